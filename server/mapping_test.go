package server_test

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server"
)

func TestMapping(t *testing.T) {
	s := newSite(t, native)
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	config.Users.Mapping = server.Mapping{Username: "upn", LastName: "surname", Email: "email"}
	config.Users.Create, config.Users.Reason = "active", "a test"
	_, err = s.srv.Reload(config)
	s.must(err)
	b := s.newBrowser(tls.VersionTLS13, true)

	// One without a user name is told so, and the administrator why.
	b.insert(s.issue(s.pki.CitizenEC))
	b.expect("GET", "/login", http.StatusForbidden, "bad-identity")
	b.expect("POST", "/login", http.StatusForbidden, "bad-identity")
	audited := s.audited()
	if n := strings.Count(audited, "takes the user name from upn"); n != 2 {
		t.Errorf("recorded %d times: %s", n, audited)
	}

	card, err := s.pki.Issue(s.pki.CitizenEC, fineidtest.Leaf{
		GivenName: "MAIJA", Surname: "MÄKELÄ", SerialNumber: satu, UPN: "mm@ad.example.com", Email: "maija@example.com",
	})
	s.must(err)
	b.insert(card)
	b.CloseIdleConnections()
	b.expect("POST", "/login", http.StatusSeeOther, "/account")
	u := b.whoami().User
	if u == nil || u.Username != "mm@ad.example.com" || u.FirstName != "Maija" || u.LastName != "MÄKELÄ" || u.Email != "maija@example.com" {
		t.Errorf("user %+v", u)
	}
	b.expect("GET", "/", http.StatusOK, "hello Maija MÄKELÄ")
}
