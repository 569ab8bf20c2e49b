package fineid

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Attribute types of subjects (X.520).
var (
	oidCommonName         = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSurname            = asn1.ObjectIdentifier{2, 5, 4, 4}
	oidSerialNumber       = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidCountry            = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidOrganization       = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOrganizationalUnit = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidTitle              = asn1.ObjectIdentifier{2, 5, 4, 12}
	oidGivenName          = asn1.ObjectIdentifier{2, 5, 4, 42}
	oidPseudonym          = asn1.ObjectIdentifier{2, 5, 4, 65}
)

const (
	// maxSubject bounds the whole subject, in bytes of DER. Real ones have
	// about 120.
	maxSubject = 4096
	// maxValue bounds one value, in characters; X.520 allows 64 for most.
	maxValue = 256
)

// wellFormed tells whether a Name holds what its type says and nothing else (RFC
// 5280 section 4.1.2.4). x509 reads over what follows a value, which another
// program may read.
func wellFormed(name cryptobyte.String) bool {
	var rdns cryptobyte.String
	if !name.ReadASN1(&rdns, cbasn1.SEQUENCE) || !name.Empty() {
		return false
	}
	for !rdns.Empty() {
		var set cryptobyte.String
		if !rdns.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return false
		}
		for !set.Empty() {
			var attribute, value cryptobyte.String
			var oid asn1.ObjectIdentifier
			var tag cbasn1.Tag
			if !set.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&oid) ||
				!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
				return false
			}
		}
	}
	return true
}

// readSubject fills the fields that come from the subject.
func readSubject(names []pkix.AttributeTypeAndValue, id *Identity) error {
	single := []struct {
		name  string
		oid   asn1.ObjectIdentifier
		field *string
	}{
		{"commonName", oidCommonName, &id.CommonName},
		{"surname", oidSurname, &id.Surname},
		{"serialNumber", oidSerialNumber, &id.SerialNumber},
		{"countryName", oidCountry, &id.Country},
		{"organizationName", oidOrganization, &id.Organization},
		{"title", oidTitle, &id.Title},
		{"givenName", oidGivenName, &id.GivenName},
		{"pseudonym", oidPseudonym, &id.Pseudonym},
	}
	seen := make(map[string]bool)
	for _, attribute := range names {
		if attribute.Type.Equal(oidOrganizationalUnit) {
			unit, err := text(attribute.Value)
			if err != nil {
				return fmt.Errorf("organizationalUnitName: %w", err)
			}
			id.OrganizationalUnits = append(id.OrganizationalUnits, unit)
			continue
		}
		for _, s := range single {
			if !attribute.Type.Equal(s.oid) {
				continue
			}
			// x509 keeps the last of several silently: a certificate could
			// show one name to us and another one to the next program.
			if seen[s.name] {
				return fmt.Errorf("%s: %w", s.name, ErrAmbiguous)
			}
			seen[s.name] = true
			value, err := text(attribute.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			*s.field = value
		}
	}
	if strings.ContainsFunc(id.SerialNumber, notInSerialNumber) {
		return fmt.Errorf("serialNumber: %w: a character outside of PrintableString, or a space", ErrMalformed)
	}
	return nil
}

// notInSerialNumber tells which characters a serialNumber must not have. It is
// a PrintableString by X.520; spaces are refused since a user name with one at
// its end would look like another's.
func notInSerialNumber(r rune) bool {
	return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("'()+,-./:=?", r))
}

// text checks one attribute value. Invisible characters (controls, NUL,
// direction marks) are refused because they make two names look the same.
func text(value any) (string, error) {
	s, ok := value.(string)
	switch {
	case !ok:
		return "", fmt.Errorf("%w: not a text", ErrMalformed)
	case s == "":
		return "", fmt.Errorf("%w: empty", ErrMalformed)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, invisible):
		return "", fmt.Errorf("%w: control or invalid characters", ErrMalformed)
	case utf8.RuneCountInString(s) > maxValue:
		return "", fmt.Errorf("%w: longer than %d characters", ErrMalformed, maxValue)
	}
	return s, nil
}

func invisible(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }
