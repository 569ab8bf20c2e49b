package server_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server"
)

// config is that of the site's file.
func (s *site) config() server.Config {
	s.t.Helper()
	c, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	return c
}

// otherRoots writes the roots and issuing CAs of another PKI.
func (s *site) otherRoots() (roots, issuing string) {
	s.t.Helper()
	other, err := fineidtest.New(fineidtest.Options{})
	s.must(err)
	return s.write("other-roots.pem", other.RootsPEM()), s.write("other-issuing.pem", other.IssuingPEM())
}

// onKept sends a request that must go over the connection of the one before.
func (b *browser) onKept(path string, status int, want string) {
	b.t.Helper()
	reused := false
	ctx := httptrace.WithClientTrace(b.t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	body := new(strings.Builder)
	resp.Write(body)
	resp.Body.Close()
	if !reused {
		b.t.Error("the request went over a new connection")
	}
	if resp.StatusCode != status || !strings.Contains(body.String(), want) {
		b.t.Errorf("GET %s: %d %s; want %d with %q", path, resp.StatusCode, body, status, want)
	}
}

// Other anchors end at once what was admitted under the old ones: kept
// connections, sessions, TLS sessions.
func TestReloadAnchors(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, http2 := range []bool{false, true} {
			t.Run(tls.VersionName(version)+map[bool]string{false: " HTTP/1.1", true: " HTTP/2"}[http2], func(t *testing.T) {
				s := newSite(t, native)
				b := s.newBrowser(version, http2)
				b.insert(s.issue(s.pki.CitizenEC))
				b.expect("POST", "/login", http.StatusSeeOther, "/inactive")
				s.approve(satu)
				b.expect("POST", "/login", http.StatusSeeOther, "/account")
				b.onKept("/docs", http.StatusOK, "hello Maija")

				c := s.config()
				c.Trust.Roots[0], c.Trust.Issuing[0] = s.otherRoots()
				kept, err := s.srv.Reload(c)
				if err != nil || len(kept) > 0 {
					t.Fatal(kept, err)
				}
				b.onKept("/docs", http.StatusForbidden, "untrusted-issuer")
				b.onKept("/api/x", http.StatusForbidden, "untrusted-issuer")
				b.CloseIdleConnections()
				resp := b.expect("GET", "/docs", http.StatusForbidden, "untrusted-issuer")
				if resp.TLS.DidResume {
					t.Error("a TLS session was resumed")
				}
				// The session has ended, and stays so under the old anchors.
				_, err = s.srv.Reload(s.config())
				s.must(err)
				b.expect("GET", "/docs", http.StatusUnauthorized, "no-session")
				b.expect("GET", "/api/x", http.StatusOK, "hello Maija")
			})
		}
	}
}

// What is wrong leaves the old configuration in force, and says so.
func TestReloadRefused(t *testing.T) {
	s := newSite(t, native)
	b := s.newBrowser(tls.VersionTLS13, true)
	b.insert(s.issue(s.pki.CitizenEC))
	b.expect("GET", "/whoami", http.StatusOK, "unknown-user")
	for name, spoil := range map[string]func(*server.Config){
		"trust.roots":      func(c *server.Config) { c.Trust.Roots = []string{s.write("empty.pem", nil)} },
		"trust":            func(c *server.Config) { c.Trust.Roots = nil },
		"trust.revocation": func(c *server.Config) { c.Trust.Revocation[0].Policy = "sometimes" },
		"forwarded":        func(c *server.Config) { c.Forwarded.Format = "rfc9440" },
		"listen.cert":      func(c *server.Config) { c.Listen.Cert = s.write("no.pem", nil) },
		"session":          func(c *server.Config) { c.Session.Absolute = 1 },
		"login":            func(c *server.Config) { c.Login.URL = "x" },
	} {
		c := s.config()
		spoil(&c)
		if _, err := s.srv.Reload(c); err == nil || !strings.Contains(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.expect("GET", "/whoami", http.StatusOK, "unknown-user")
	s.expectMetric(`kortti_server_reloads_total{result="refused"} 7`)
	s.expectMetric(`kortti_server_reloads_total{result="done"} 0`)
}

// Addresses, store and audit log wait for a restart; all else changes.
func TestReloadKept(t *testing.T) {
	s := newSite(t, native)
	c := s.config()
	c.Listen.HTTPS, c.Users.Store = "127.0.0.1:1", "sqlite:"+filepath.Join(s.dir, "other.db")
	c.Limits.Handshakes, c.Login.URL = 7, "/kirjaudu"
	kept, err := s.srv.Reload(c)
	s.must(err)
	if got := strings.Join(kept, " "); got != "limits.handshakes listen.https users.store" {
		t.Errorf("kept %q", got)
	}
	b := s.newBrowser(tls.VersionTLS13, false)
	b.expect("GET", "/kirjaudu", http.StatusForbidden, "no-certificate")
	if !strings.Contains(s.log.String(), "limits.handshakes listen.https users.store") {
		t.Errorf("the log does not name what was kept:\n%s", s.log.String())
	}
}

// A renewed certificate of the server's own is used from the next connection on.
func TestReloadOwnCertificate(t *testing.T) {
	s := newSite(t, native)
	shown := func() string {
		b := s.newBrowser(tls.VersionTLS13, false)
		return b.expect("GET", "/healthz", http.StatusOK, "ok").TLS.PeerCertificates[0].SerialNumber.String()
	}
	old := shown()
	s.ownCertificate()
	_, err := s.srv.Reload(s.config())
	s.must(err)
	if shown() == old {
		t.Error("the old certificate is still shown")
	}
}

// Each request sees one configuration whole, whatever else is going on.
func TestReloadUnderRequests(t *testing.T) {
	s := newSite(t, native)
	b := s.newBrowser(tls.VersionTLS13, true)
	b.insert(s.issue(s.pki.CitizenEC))
	other := s.config()
	other.Trust.Roots[0], other.Trust.Issuing[0] = s.otherRoots()
	configs := []server.Config{s.config(), other}
	done := make(chan struct{})
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, body := b.do("GET", "/api/x")
				if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "unknown-user") && !strings.Contains(body, "untrusted-issuer") {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
			}
		})
	}
	for i := range 20 {
		if _, err := s.srv.Reload(configs[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(done)
	running.Wait()
}
