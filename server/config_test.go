package server_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server"
)

func TestLoadDefaults(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k.toml")
	if err := os.WriteFile(path, []byte(`[listen]
http = "unix:k.sock"
[trust]
roots = ["a.pem", "/etc/b.pem"]
[session]
idle = "5m"
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := server.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []struct{ got, want string }{
		{c.Listen.HTTP, "unix:" + dir + "/k.sock"},
		{c.Trust.Roots[0], dir + "/a.pem"},
		{c.Trust.Roots[1], "/etc/b.pem"},
		{c.Users.Store, "sqlite:" + dir + "/kortti.db"},
		{c.Login.URL, "/login"},
		{c.Login.Redirect, "/account"},
		{time.Duration(c.Session.Idle).String(), "5m0s"},
		{time.Duration(c.Session.Absolute).String(), "12h0m0s"},
		{c.Audit.Dir, ""},
	} {
		if field.got != field.want {
			t.Errorf("%q, want %q", field.got, field.want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"[trust]\nrootz = []", "k.toml:2: unknown key trust.rootz"},
		{"[trusty]\nroots = []\n[listen]\nhtps = \"\"", "k.toml:4: unknown key listen.htps"},
		{"[listen]\nhttps = 8443", "k.toml:2: "},
		{"[listen]\nhttps = \":1\"\nhttps = \":2\"", "k.toml:3"},
		{"[session]\nidle = \"soon\"", `"soon" is not a time`},
		{"[session]\nidle = \"-5m\"", `"-5m" is not a time`},
		{"[[trust.issuer]]\nclass = \"pope\"", "unknown class"},
		{"[trust]\nclasses = [\"pope\"]", "unknown class"},
		{"[listen", "k.toml:1"},
	} {
		path := filepath.Join(t.TempDir(), "k.toml")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := server.Load(path)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v; want %q in it", test.text, err, test.want)
		}
	}
}

// One right configuration, and each thing that can be wrong with it.
func TestCheck(t *testing.T) {
	s := newSite(t, native)
	card := s.issue(s.pki.CitizenEC)
	roots := s.pki.RootsPEM()
	old, err := fineidtest.New(fineidtest.Options{ECOnly: true, Now: func() time.Time { return time.Now().AddDate(-60, 0, 0) }})
	s.must(err)
	files := map[string][]byte{
		"empty.pem": nil, "text.pem": []byte("no certificate\n"), "leaf.pem": card.PEM(),
		"broken.pem": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"cut.pem":    roots[:len(roots)-200],
		"key.pem":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}),
		"root.der":   s.pki.Root.Certificate.Raw,
		"old.pem":    old.RootsPEM(),
	}
	for name, content := range files {
		s.write(name, content)
	}
	under := func(name string) string { return filepath.Join(s.dir, name) }
	public := func(name string) string { // a copy that everybody may read
		content, err := os.ReadFile(under(name))
		s.must(err)
		path := s.write("public-"+name, content)
		s.must(os.Chmod(path, 0o604))
		return path
	}
	socket := func(c *server.Config, path string) {
		c.Listen = server.Listen{HTTP: "unix:" + path}
		c.Forwarded = server.Forwarded{Format: "nginx-escaped-pem", From: []string{"unix:uid=1"}}
	}
	legacy := func(c *server.Config, family, reason string) {
		c.Session.Sessionless = nil
		c.Forwarded = server.Forwarded{Format: "insecure-legacy-dn", From: []string{"unix:uid=1"}, Family: family, Reason: reason}
	}
	for _, test := range []struct {
		name string
		edit func(*server.Config)
		want string // the start of one problem, "" for none
	}{
		{"right", func(*server.Config) {}, ""},
		{"DER", func(c *server.Config) { c.Trust.Roots = append(c.Trust.Roots, under("root.der")) }, ""},
		{"no roots", func(c *server.Config) { c.Trust.Roots = nil }, "trust: verify: no trust anchors"},
		{"missing", func(c *server.Config) { c.Trust.Roots = []string{"/none.pem"} }, "trust.roots: read CA certificates: open /none.pem"},
		{"empty", func(c *server.Config) { c.Trust.Roots = []string{under("empty.pem")} }, "trust.roots: " + under("empty.pem") + " is empty"},
		{"expired CA", func(c *server.Config) { c.Trust.Roots = append(c.Trust.Roots, under("old.pem")) }, "warning: trust.roots: " + under("old.pem") + ": CA "},
		{"text", func(c *server.Config) { c.Trust.Issuing = []string{under("text.pem")} }, "trust.issuing: " + under("text.pem") + ": is not a certificate"},
		{"leaf", func(c *server.Config) { c.Trust.Roots = []string{under("leaf.pem")} }, "trust.roots: " + under("leaf.pem") + ": certificate 1 is not that of a CA"},
		{"broken", func(c *server.Config) { c.Trust.Roots = []string{under("broken.pem")} }, "trust.roots: " + under("broken.pem") + ": certificate 1 cannot be read"},
		{"cut", func(c *server.Config) { c.Trust.Roots = []string{under("cut.pem")} }, "trust.roots: " + under("cut.pem") + ": PEM block 2 is broken"},
		{"key", func(c *server.Config) { c.Trust.Roots = []string{under("key.pem")} }, "trust.roots: " + under("key.pem") + ": holds a PEM block"},
		{"purpose", func(c *server.Config) { c.Trust.Purpose = "signature" }, "trust: verify: purpose"},
		{"policy OID", func(c *server.Config) { c.Trust.Policies = []string{"x"} }, "trust: verify: policy"},
		{"revocation", func(c *server.Config) { c.Trust.Revocation[0].Policy = "maybe" }, "trust.revocation: "},
		{"open without reason", func(c *server.Config) { c.Trust.Revocation[0].Policy = "open" }, "trust.revocation: "},
		{"issuer", func(c *server.Config) { c.Trust.Issuers[0].Family = "a/b" }, "trust.issuer: "},
		{"nowhere", func(c *server.Config) { c.Listen.HTTPS = "" }, "listen: neither"},
		{"both", func(c *server.Config) {
			c.Listen.HTTP, c.Forwarded = ":1", server.Forwarded{Format: "nginx-escaped-pem", From: []string{"unix:uid=1"}}
		}, "listen: https and http"},
		{"no key", func(c *server.Config) { c.Listen.Key = "" }, "listen.https: needs cert and key"},
		{"wrong key", func(c *server.Config) { c.Listen.Key = under("key.pem") }, "listen.cert: load"},
		{"no such port", func(c *server.Config) { c.Listen.HTTPS = "127.0.0.1:99999" }, "listen.https: "},
		{"group without a socket", func(c *server.Config) { c.Listen.Group = "root" }, "listen.group: "},
		{"no such group", func(c *server.Config) { socket(c, under("k.sock")); c.Listen.Group = "no-such-group" }, "listen.http: socket " + under("k.sock")},
		{"no socket directory", func(c *server.Config) { socket(c, "/none/k.sock") }, "listen.http: socket /none/k.sock: /none is not a directory"},
		{"socket is a file", func(c *server.Config) { socket(c, under("text.pem")) }, "listen.http: socket " + under("text.pem") + ": something else"},
		{"rule for nobody", func(c *server.Config) {
			c.Trust.Revocation = append(c.Trust.Revocation, server.Revocation{Issuer: "Citizen CA"})
		}, "warning: trust.revocation: no CA in roots or issuing has the common name \"Citizen CA\""},
		{"public key", func(c *server.Config) { c.Listen.Key = public("server-key.pem") }, "warning: listen.key: "},
		{"public store", func(c *server.Config) { c.Users.Store = "sqlite:" + public("empty.pem") }, "warning: users.store: "},
		{"public audit", func(c *server.Config) {
			c.Audit.Dir = filepath.Join(s.dir, "public-audit")
			s.must(os.MkdirAll(c.Audit.Dir, 0o755))
		}, "warning: audit.dir: "},
		{"audit in a file", func(c *server.Config) { c.Audit.Dir = under("server.pem") }, "audit.dir: "},
		{"no port", func(c *server.Config) { c.Listen.HTTPS = "localhost" }, "listen.https: "},
		{"public admin", func(c *server.Config) { c.Listen.Admin = ":9090" }, "warning: listen.admin: "},
		{"no proxy format", func(c *server.Config) { c.Listen.HTTPS, c.Listen.HTTP = "", "unix:/k.sock" }, "forwarded.format: is off"},
		{"proxies of no format", func(c *server.Config) { c.Forwarded.From = []string{"unix:uid=1"} }, "forwarded: "},
		{"everybody a proxy", func(c *server.Config) {
			c.Forwarded.Format, c.Forwarded.From = "nginx-escaped-pem", []string{"0.0.0.0/0"}
		}, "forwarded: "},
		{"no proxies", func(c *server.Config) { c.Forwarded.Format = "nginx-escaped-pem" }, "forwarded: "},
		{"legacy headers", func(c *server.Config) { legacy(c, "dvv-citizen", "r") }, "warning: forwarded: format \"insecure-legacy-dn\": NO CERTIFICATE"},
		{"legacy headers without reason", func(c *server.Config) { legacy(c, "dvv-citizen", " ") }, "forwarded.reason: "},
		{"legacy headers of nobody", func(c *server.Config) { legacy(c, "", "r") }, "forwarded.family: is not set"},
		{"legacy headers of an unknown family", func(c *server.Config) { legacy(c, "dvv-citizens", "r") }, "forwarded.family: unknown issuer family"},
		{"legacy headers of systems", func(c *server.Config) { legacy(c, "dvv-service", "r") }, "forwarded.family: holders of class \"unknown\""},
		{"legacy headers of a class not let in", func(c *server.Config) {
			legacy(c, "dvv-citizen", "r")
			c.Trust.Classes = []fineid.Class{fineid.Organisation}
		}, "forwarded.family: holders of class \"citizen\""},
		{"legacy headers without sessions", func(c *server.Config) {
			legacy(c, "dvv-citizen", "r")
			c.Session.Sessionless = []string{"/api/"}
		}, "session.sessionless: "},
		{"legacy headers from a network", func(c *server.Config) {
			legacy(c, "dvv-citizen", "r")
			c.Forwarded.From = []string{"10.0.0.0/8"}
		}, "forwarded: evidence: format \"insecure-legacy-dn\" is believed from"},
		{"family of no use", func(c *server.Config) { c.Forwarded.Family = "dvv-citizen" }, "forwarded: family and reason"},
		{"active without reason", func(c *server.Config) { c.Users.Create = "active" }, "users.create: "},
		{"create", func(c *server.Config) { c.Users.Create = "perhaps" }, "users.create: "},
		{"map", func(c *server.Config) { c.Users.Map = "ldap" }, "users.map: "},
		{"mapping", func(c *server.Config) {
			c.Users.Mapping = server.Mapping{Username: "upn", FirstName: "given_name", LastName: "surname", Email: "email"}
		}, ""},
		{"mapping from nowhere", func(c *server.Config) { c.Users.Mapping.Email = "mail" }, "users.mapping: email: there is no field \"mail\"; use one of common_name, "},
		{"user name that two may have", func(c *server.Config) { c.Users.Mapping.Username = "common_name" }, "users.mapping: username: two people may have the same common_name"},
		{"store", func(c *server.Config) { c.Users.Store = "postgres://x" }, "users.store: postgres"},
		{"store directory", func(c *server.Config) { c.Users.Store = "sqlite:/none/k.db" }, "users.store: database /none/k.db"},
		{"login host", func(c *server.Config) { c.Login.Host = "login.example" }, "login.host: "},
		{"login url", func(c *server.Config) { c.Login.URL = "login" }, "login: "},
		{"sessionless", func(c *server.Config) { c.Session.Sessionless = []string{"api"} }, "login: "},
		{"limits", func(c *server.Config) { c.Session.Absolute = 1 }, "session: "},
		{"audit", func(c *server.Config) { c.Audit.Dir = "/none/audit" }, "audit.dir: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
			s.must(err)
			test.edit(&c)
			var texts []string
			for _, problem := range server.Check(c) {
				text := problem.String()
				if strings.Contains(text, "NO CERTIFICATE IS VERIFIED") && !strings.HasPrefix(test.want, "warning: ") {
					continue // said whatever else is wrong
				}
				texts = append(texts, text)
			}
			if test.want == "" {
				if len(texts) > 0 {
					t.Errorf("problems %q", texts)
				}
				return
			}
			if len(texts) != 1 || !strings.HasPrefix(texts[0], test.want) {
				t.Errorf("problems %q; want one that begins with %q", texts, test.want)
			}
		})
	}
}

// Who is let in follows the classes in the file; issuers without a place in the
// table are let in by nobody's oversight.
func TestClasses(t *testing.T) {
	s := newSite(t, native)
	content, err := os.ReadFile(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	card, err := s.pki.Issue(s.pki.OrganisationEC, fineidtest.Leaf{})
	s.must(err)
	text := string(content)
	unplaced := strings.ReplaceAll(text, "[[trust.issuer]]\ncn = \"", "[[trust.issuer]]\ncn = \"not ")
	for _, test := range []struct{ text, classes, code string }{
		{text, "", ""},
		{text, `["organisation"]`, ""},
		{text, `["citizen", "unknown"]`, "policy"},
		{unplaced, "", "policy"},
		{unplaced, `["unknown"]`, ""},
	} {
		if test.classes != "" {
			test.text = strings.Replace(test.text, "[trust]\n", "[trust]\nclasses = "+test.classes+"\n", 1)
		}
		config, err := server.Load(s.write("classes.toml", []byte(test.text)))
		s.must(err)
		report, err := server.Why(t.Context(), config, card.PEM(), time.Time{})
		if err != nil || report.Code != test.code {
			t.Errorf("classes %s: code %q, %v; want %q", test.classes, report.Code, err, test.code)
		}
	}
}

func TestWhy(t *testing.T) {
	s := newSite(t, native)
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	good := s.issue(s.pki.CitizenEC)
	revoked := s.issue(s.pki.CitizenRSA)
	s.must(s.pki.Revoke(revoked.Certificate, time.Now(), 1))
	expired, err := s.pki.Issue(s.pki.CitizenEC, fineidtest.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	s.must(err)
	yesterday := time.Now().Add(-24 * time.Hour)
	for _, test := range []struct {
		content []byte
		at      time.Time
		code    string
	}{
		{good.PEM(), time.Time{}, ""},
		{good.Certificate.Raw, time.Time{}, ""},
		{good.ChainPEM(), time.Time{}, ""},
		{good.PEM(), yesterday, ""},
		{good.PEM(), good.Certificate.NotBefore.Add(-time.Second), "not-yet-valid"},
		{good.PEM(), good.Certificate.NotAfter.Add(time.Second), "expired"},
		{revoked.PEM(), time.Time{}, "revoked"},
		{revoked.PEM(), yesterday, ""}, // it was revoked today
		{expired.PEM(), time.Time{}, "expired"},
		{expired.PEM(), expired.Certificate.NotAfter, ""},
	} {
		report, err := server.Why(t.Context(), config, test.content, test.at)
		if err != nil || report.Code != test.code || len(report.Steps) == 0 {
			t.Errorf("at %v: %+v, %v; want code %q", test.at, report, err, test.code)
		}
	}
	if _, err := server.Why(t.Context(), config, []byte("text"), time.Time{}); err == nil {
		t.Error("explained a text")
	}
}
