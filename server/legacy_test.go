package server_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server"
	"github.com/kortti-id/kortti/server/verify"
)

const (
	legacySuccess = "X-SSL-Authenticated: SUCCESS"
	legacyMaija   = `X-SSL-User-DN: CN=x,SN=M\C3\84KEL\C3\84,GN=MAIJA,serialNumber=` + satu + ",C=FI"
)

// The days of a migration: with the headers of django-ssl-auth somebody has an
// account, and the same one when the proxy sends the certificate.
func TestMigration(t *testing.T) {
	s, b := behindProxy(t, os.Geteuid())
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	sessionless := config.Session.Sessionless
	verified := config.Forwarded
	config.Session.Sessionless = nil
	config.Session.Absolute = server.Duration(100 * time.Hour)
	config.Forwarded = server.Forwarded{Format: "insecure-legacy-dn", From: verified.From, Family: "kortti-test-citizen", Reason: "until Friday"}
	_, err = s.srv.Reload(config)
	s.must(err)
	if log := s.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "NO CERTIFICATE IS VERIFIED") {
		t.Errorf("no warning: %s", log)
	}

	b.expect("POST", "/login", http.StatusSeeOther, "/inactive", legacySuccess, legacyMaija)
	s.approve(satu)
	resp := b.expect("POST", "/login", http.StatusSeeOther, "/account", legacySuccess, legacyMaija)
	cookie := "Cookie: " + resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	b.expect("GET", "/docs", http.StatusOK, "hello Maija Mäkelä", legacySuccess, legacyMaija, cookie)
	resp = b.expect("GET", "/whoami", http.StatusOK, `"certificate":null`, legacySuccess, legacyMaija, cookie)
	resp.Body.Close()
	b.expect("GET", "/api/x", http.StatusUnauthorized, "no-session", legacySuccess, legacyMaija)
	b.expect("GET", "/docs", http.StatusBadRequest, "", legacyMaija, cookie)

	if text := s.audited(); !strings.Contains(text, `"source":"insecure-legacy-dn"`) || !strings.Contains(text, "the proxy says who this is") || strings.Contains(text, `"certificate":"`) || strings.Contains(text, satu) {
		t.Errorf("audit: %s", text)
	}

	config.Forwarded, config.Session.Sessionless = verified, sessionless
	_, err = s.srv.Reload(config)
	s.must(err)
	certificate := "X-Ssl-Client-Cert: " + url.PathEscape(string(s.issue(s.pki.CitizenEC).PEM()))
	b.expect("GET", "/docs", http.StatusBadRequest, "", legacySuccess, legacyMaija, cookie)
	b.expect("GET", "/docs", http.StatusUnauthorized, "no-session", certificate, cookie) // logged in by a name, not by this card
	b.expect("POST", "/login", http.StatusSeeOther, "/account", certificate)             // active from before
}

// A session that stands on a name ends within a day.
func TestLegacySessionEnds(t *testing.T) {
	s, b := behindProxy(t, os.Geteuid())
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	config.Session = server.Session{Idle: server.Duration(90 * time.Hour), Absolute: server.Duration(100 * time.Hour)}
	config.Users.Create, config.Users.Reason = "active", "a test"
	config.Forwarded = server.Forwarded{Format: "insecure-legacy-dn", From: config.Forwarded.From, Family: "kortti-test-citizen", Reason: "until Friday"}
	_, err = s.srv.Reload(config)
	s.must(err)
	resp := b.expect("POST", "/login", http.StatusSeeOther, "/account", legacySuccess, legacyMaija)
	cookie := "Cookie: " + resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	s.ahead.Store(int64(23 * time.Hour))
	b.expect("GET", "/docs", http.StatusOK, "hello Maija Mäkelä", legacySuccess, legacyMaija, cookie)
	s.ahead.Store(int64(25 * time.Hour))
	b.expect("GET", "/docs", http.StatusUnauthorized, "no-session", legacySuccess, legacyMaija, cookie)
}

// A program that maps verified identities itself is not handed names.
func TestLegacyWithOwnMapper(t *testing.T) {
	s, _ := behindProxy(t, os.Geteuid())
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	config.Session.Sessionless = nil
	config.Forwarded = server.Forwarded{Format: "insecure-legacy-dn", From: []string{"unix:uid=1"}, Family: "dvv-citizen", Reason: "until Friday"}
	_, err = server.New(t.Context(), config, server.Options{MapUser: func(id verify.Identity) (fineid.Profile, error) { return id.Profile(), nil }})
	if err == nil || !strings.Contains(err.Error(), "Options.MapUser") {
		t.Errorf("started: %v", err)
	}
}
