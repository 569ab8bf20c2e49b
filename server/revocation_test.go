package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/server"
)

// A list that has come in ends what was admitted before it at the next request:
// kept connections, sessions, routes without sessions.
func TestRevokedByList(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, http2 := range []bool{false, true} {
			t.Run(tls.VersionName(version)+map[bool]string{false: " HTTP/1.1", true: " HTTP/2"}[http2], func(t *testing.T) {
				s := newSite(t, native)
				card := s.issue(s.pki.CitizenEC)
				list := s.write("list.crl", s.list(card.CA.Name))
				c := s.config()
				c.Trust.Revocation[0].Policy, c.Trust.Revocation[0].CRL = "prefer-crl", []string{list}
				root := server.Revocation{Issuer: card.CA.Parent.Certificate.Subject.CommonName, Hosts: c.Trust.Revocation[0].Hosts}
				c.Trust.Revocation = append(c.Trust.Revocation, root)
				_, err := s.srv.Reload(c)
				s.must(err)
				b := s.newBrowser(version, http2)
				b.insert(card)
				b.expect("POST", "/login", http.StatusSeeOther, "/inactive")
				s.approve(satu)
				b.expect("POST", "/login", http.StatusSeeOther, "/account")
				b.onKept("/docs", http.StatusOK, "hello Maija")

				s.must(s.pki.Revoke(card.Certificate, time.Now(), 1))
				der := s.list(card.CA.Name)
				s.write("list.crl", der)
				newer, err := x509.ParseRevocationList(der)
				s.must(err)
				_, err = s.srv.Reload(c) // looks at the file again, as its time would
				s.must(err)
				s.waitForMetric(`kortti_server_crl_entries{issuer="` + card.CA.Certificate.Subject.CommonName + `",address="` + list + `"} ` + strconv.Itoa(len(newer.RevokedCertificateEntries)))
				b.onKept("/api/x", http.StatusForbidden, `"revoked"`)
				b.onKept("/docs", http.StatusForbidden, `"revoked"`)
				b.CloseIdleConnections()
				if resp := b.expect("GET", "/docs", http.StatusForbidden, `"revoked"`); resp.TLS.DidResume {
					t.Error("a TLS session was resumed")
				}
			})
		}
	}
}

// list is what the CA publishes.
func (s *site) list(ca string) []byte {
	s.t.Helper()
	resp, err := http.Get(s.pki.BaseURL() + "/crl/" + ca + ".crl")
	s.must(err)
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	s.must(err)
	return der
}

// A CA whose list or responder may not be asked is said at the check.
func TestUnreachableRevocation(t *testing.T) {
	s := newSite(t, native)
	c := s.config()
	c.Trust.Revocation = []server.Revocation{{Issuer: "*", Hosts: []string{"ocsp.example.fi"}}}
	found := false
	for _, problem := range server.Check(c) {
		found = found || problem.Warning && problem.Key == "trust.revocation" && strings.Contains(problem.Text, "cannot be asked")
	}
	if !found {
		t.Errorf("%v", server.Check(c))
	}
}
