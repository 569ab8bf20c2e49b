package server_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Anybody can have a person's certificate. Without its key nothing comes of it:
// no question to the issuer, no record, no account.
func TestCertificateWithoutItsKey(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, http2 := range []bool{false, true} {
			s := newSite(t, native)
			victim, thief := s.issue(s.pki.CitizenEC).TLS(), s.issue(s.pki.CitizenEC).TLS()
			victim.PrivateKey = thief.PrivateKey
			b := s.newBrowser(version, http2)
			b.card.Store(&victim)
			asked := s.pki.Requests().OCSP
			for _, path := range []string{"/login", "/api/x"} {
				if resp, err := b.Post(b.base+path, "", nil); err == nil {
					resp.Body.Close()
					t.Errorf("%s: POST %s was answered with %s", tls.VersionName(version), path, resp.Status)
				}
			}
			if n := s.pki.Requests().OCSP; n != asked {
				t.Errorf("the issuer was asked %d times", n-asked)
			}
			if audited := s.audited(); audited != "" {
				t.Errorf("audited %s", audited)
			}
		}
	}
}

// admitted gives a client that is logged in.
func (s *site) admitted() *browser {
	b := s.newBrowser(tls.VersionTLS13, true)
	b.insert(s.issue(s.pki.CitizenEC))
	b.expect("POST", "/login", http.StatusSeeOther, "/inactive")
	s.approve(satu)
	b.expect("POST", "/login", http.StatusSeeOther, "/account")
	return b
}

// At the end requests under way are finished, and kept connections do not hold
// the server up.
func TestShutdownWithOpenConnections(t *testing.T) {
	s := newSite(t, native)
	idle, busy := s.newBrowser(tls.VersionTLS12, false), s.admitted()
	idle.expect("GET", "/healthz", http.StatusOK, "ok")
	answered := make(chan string)
	go func() {
		resp, err := busy.Get(busy.base + "/hold")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	<-s.held
	s.stop()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(busy.base, "https://"))
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("new connections are still taken")
		}
	}
	close(s.leave)
	if body := <-answered; body != "hello Maija Mäkelä" {
		t.Errorf("the request under way got %q", body)
	}
}

// A mistake of the application costs that request, and its owner hears of it.
func TestPanic(t *testing.T) {
	s := newSite(t, native)
	b := s.admitted()
	if resp, err := b.Get(b.base + "/panic"); err == nil {
		resp.Body.Close()
		t.Errorf("answered with %s", resp.Status)
	}
	b.expect("GET", "/docs", http.StatusOK, "hello")
	if log := s.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "the application's mistake") || !strings.Contains(log, "server_test.go") {
		t.Errorf("the log does not tell: %s", log)
	}
}
