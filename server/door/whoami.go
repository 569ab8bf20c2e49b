package door

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/users"
)

// Whoami is the answer to GET /whoami. User, Certificate and Session are null
// where there is none; User is there without Authenticated for those who wait
// for approval, so only Authenticated may decide anything.
type Whoami struct {
	Authenticated bool               `json:"authenticated"`
	User          *WhoamiUser        `json:"user"`
	Certificate   *WhoamiCertificate `json:"certificate"`
	Session       *WhoamiSession     `json:"session"`
	Reason        string             `json:"reason"` // code when not authenticated
}

// WhoamiUser is a user as /whoami shows it.
type WhoamiUser struct {
	Username  string   `json:"username"`
	FirstName string   `json:"first_name"`
	LastName  string   `json:"last_name"`
	Email     string   `json:"email"`
	IsActive  bool     `json:"is_active"`
	Roles     []string `json:"roles"`
}

// WhoamiCertificate is a verified certificate as /whoami shows it.
type WhoamiCertificate struct {
	Subject  string    `json:"subject"` // RFC 4514, for showing
	Issuer   string    `json:"issuer"`  // RFC 4514, for showing
	Serial   string    `json:"serial"`  // hexadecimal
	NotAfter time.Time `json:"not_after"`
	SHA256   string    `json:"sha256"` // of the DER, hexadecimal
}

// WhoamiSession is a session as /whoami shows it.
type WhoamiSession struct {
	ExpiresAt time.Time `json:"expires_at"`
}

func (d *Door) whoami(w http.ResponseWriter, _ *http.Request, v visit) {
	answer := Whoami{Authenticated: v.code == "", Reason: v.code, Certificate: v.certificate()}
	if v.code == "" || v.code == CodeInactive {
		answer.User = whoamiUser(v.user)
	}
	if v.code == "" && v.loggedIn {
		answer.Session = &WhoamiSession{ExpiresAt: v.session.Expires}
	}
	writeJSON(w, http.StatusOK, answer)
}

func whoamiUser(u users.User) *WhoamiUser {
	return &WhoamiUser{
		Username: u.Username, FirstName: u.FirstName, LastName: u.LastName, Email: u.Email,
		IsActive: u.Active, Roles: append([]string{}, u.Roles...), // [] rather than null
	}
}

// certificate is the verified one, nil where there is none.
func (v visit) certificate() *WhoamiCertificate {
	if !v.identity.Verified() {
		return nil
	}
	leaf := v.identity.Leaf
	return &WhoamiCertificate{
		Subject: fineid.DistinguishedName(leaf.Subject), Issuer: fineid.DistinguishedName(leaf.Issuer),
		Serial: leaf.SerialNumber.Text(16), NotAfter: leaf.NotAfter.UTC(), SHA256: fmt.Sprintf("%x", v.identity.Fingerprint),
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // fails only when the client is gone
}
