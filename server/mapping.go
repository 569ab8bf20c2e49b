package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/verify"
)

// mappable are the fields of a certificate that [users.mapping] can name.
var mappable = map[string]func(fineid.Identity) string{
	"serial_number": func(id fineid.Identity) string { return id.SerialNumber },
	"given_name":    func(id fineid.Identity) string { return id.GivenName },
	"surname":       func(id fineid.Identity) string { return id.Surname },
	"common_name":   func(id fineid.Identity) string { return id.CommonName },
	"pseudonym":     func(id fineid.Identity) string { return id.Pseudonym },
	"email":         func(id fineid.Identity) string { return id.Email },
	"upn":           func(id fineid.Identity) string { return id.UPN },
}

// distinct are those of them that an issuer gives to one person alone. The user
// name is what an application knows people by.
var distinct = []string{"serial_number", "pseudonym", "upn"}

// profile makes the function that maps people to users. What the table does not
// name is as in fineid.
func (m Mapping) profile() (func(fineid.Identity) (fineid.Profile, error), error) {
	for key, field := range map[string]string{"username": m.Username, "first_name": m.FirstName, "last_name": m.LastName, "email": m.Email} {
		switch _, known := mappable[field]; {
		case field == "":
		case !known:
			return nil, fmt.Errorf("%s: there is no field %q; use one of %s", key, field, strings.Join(slices.Sorted(maps.Keys(mappable)), ", "))
		case key == "username" && !slices.Contains(distinct, field):
			return nil, fmt.Errorf("username: two people may have the same %s; use one of %s", field, strings.Join(distinct, ", "))
		}
	}
	return func(id fineid.Identity) (fineid.Profile, error) {
		p := id.Profile()
		for _, to := range []struct {
			field string
			value *string
		}{{m.Username, &p.Username}, {m.FirstName, &p.FirstName}, {m.LastName, &p.LastName}, {m.Email, &p.Email}} {
			if from, set := mappable[to.field]; set {
				*to.value = from(id)
			}
		}
		if p.Username == "" {
			return fineid.Profile{}, fmt.Errorf("[users.mapping] takes the user name from %s, which the certificate does not have: %w",
				m.Username, &verify.Refusal{Code: verify.CodeBadIdentity, Check: verify.CheckIdentity})
		}
		return p, nil
	}, nil
}
