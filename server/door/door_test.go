package door_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

// responder is what the issuer says about every certificate.
type responder struct {
	status verify.Status
	err    error
}

func (r *responder) Check(context.Context, *x509.Certificate, *x509.Certificate) (verify.Answer, error) {
	return verify.Answer{Status: r.status}, r.err
}

// testPKI is made once: its RSA keys take a second.
var testPKI = sync.OnceValues(func() (*fineidtest.PKI, error) { return fineidtest.New(fineidtest.Options{}) })

// rig is a door with everything behind it and a browser in front.
type rig struct {
	t        *testing.T
	now      time.Time
	pki      *fineidtest.PKI
	issuer   responder
	users    *users.Store
	sessions *session.Store
	records  []door.Record
	// unrecorded is what the audit log says to each of them.
	unrecorded error
	handler    http.Handler
	// seen is the last request that the application got.
	seen *http.Request

	// The browser: a card in the reader, and its cookies.
	card   *fineidtest.Issued
	cookie *http.Cookie
}

func newRig(t *testing.T, edit func(*door.Config)) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Now().Truncate(time.Second), issuer: responder{status: verify.Good}}
	clock := func() time.Time { return r.now }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	r.pki, err = testPKI()
	must(err)
	verifier, err := verify.New(verify.Config{
		Roots:   []*x509.Certificate{r.pki.Root.Certificate, r.pki.RootRSA.Certificate},
		Issuing: []*x509.Certificate{r.pki.CitizenEC.Certificate, r.pki.CitizenRSA.Certificate},
		Issuers: fineid.DVV().With(r.pki.Issuers()...), Revocation: &r.issuer, Now: clock,
	})
	must(err)
	reader, err := evidence.New(evidence.Config{})
	must(err)
	db, err := database.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	must(err)
	t.Cleanup(func() { db.Close() })
	r.users = users.New(db, clock)
	r.sessions, err = session.New(db, session.Limits{Idle: 30 * time.Minute, Absolute: 12 * time.Hour}, clock)
	must(err)
	config := door.Config{
		Evidence: reader, Verifier: verifier, Users: r.users, Sessions: r.sessions, Create: users.CreateInactive,
		LoginURL: "/login", RedirectURL: "/account", InactiveURL: "/inactive", Sessionless: []string{"/api/", "/status"},
		Decided: func(record door.Record) error {
			r.records = append(r.records, record)
			return r.unrecorded
		},
		Ready: db.Ready, Now: clock, Log: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&config)
	}
	d, err := door.New(config)
	must(err)
	r.handler = d.Handler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.seen = req
		user, ok := door.UserFrom(req.Context())
		if !ok {
			t.Error("the application got a request without a user")
		}
		fmt.Fprintf(w, "hello %s", user.Name())
	}))
	r.card = r.issue(fineidtest.Leaf{GivenName: "MAIJA", Surname: "MÄKELÄ", SerialNumber: "99912345V"})
	return r
}

func (r *rig) issue(leaf fineidtest.Leaf) *fineidtest.Issued {
	r.t.Helper()
	issued, err := r.pki.Issue(r.pki.CitizenEC, leaf)
	if err != nil {
		r.t.Fatal(err)
	}
	return issued
}

// do sends a request with the card and the cookie, as a browser that navigates
// does unless the headers say otherwise ("Name: value").
func (r *rig) do(method, target string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, "https://kortti.example"+target, nil)
	return r.send(req, headers...)
}

func (r *rig) post(target string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(http.MethodPost, "https://kortti.example"+target, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.send(req, headers...)
}

func (r *rig) send(req *http.Request, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req.TLS = &tls.ConnectionState{HandshakeComplete: true}
	if r.card != nil {
		req.TLS.PeerCertificates = []*x509.Certificate{r.card.Certificate}
	}
	if r.cookie != nil {
		req.AddCookie(r.cookie)
	}
	req.Header.Set("Accept", "text/html,*/*")
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
	}
	r.seen = nil
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	for _, cookie := range w.Result().Cookies() {
		r.cookie = cookie
		if cookie.MaxAge < 0 {
			r.cookie = nil
		}
	}
	return w
}

// login makes an active user and logs in.
func (r *rig) login() {
	r.t.Helper()
	r.post("/login", nil)
	if _, err := r.users.Approve(r.t.Context(), "99912345V"); err != nil {
		r.t.Fatal(err)
	}
	expect(r.t, r.post("/login", nil), http.StatusSeeOther, "/account")
	if r.cookie == nil {
		r.t.Fatal("no session cookie")
	}
	r.records = nil
}

// expect checks the status and, for redirects, the address.
func expect(t *testing.T, w *httptest.ResponseRecorder, status int, location string) {
	t.Helper()
	if w.Code != status || w.Header().Get("Location") != location {
		t.Errorf("got %d to %q, want %d to %q\n%s", w.Code, w.Header().Get("Location"), status, location, w.Body)
	}
}

func expectText(t *testing.T, w *httptest.ResponseRecorder, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(w.Body.String(), text) {
			t.Errorf("no %q in:\n%s", text, w.Body)
		}
	}
}

func (r *rig) expectRecords(want ...string) {
	r.t.Helper()
	var got []string
	for _, record := range r.records {
		got = append(got, string(record.Event)+" "+record.Code)
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		r.t.Errorf("records %q, want %q", got, want)
	}
}

// The whole way of a newcomer.
func TestNewcomer(t *testing.T) {
	r := newRig(t, nil)
	expect(t, r.do("GET", "/docs/?q=1"), http.StatusSeeOther, "/login?next=%2Fdocs%2F%3Fq%3D1")

	page := r.do("GET", "/login?next=%2Fdocs%2F%3Fq%3D1")
	expect(t, page, http.StatusOK, "")
	expectText(t, page, "Is this you?", "Maija Mäkelä", "99912345V", `value="/docs/?q=1"`, "administrator has to approve")
	if list, err := r.users.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("looking at the page made %d users, %v", len(list), err)
	}

	expect(t, r.post("/login", url.Values{"next": {"/docs/?q=1"}}), http.StatusSeeOther, "/inactive")
	if r.cookie != nil {
		t.Error("an inactive user got a cookie")
	}
	page = r.do("GET", "/inactive")
	expect(t, page, http.StatusForbidden, "")
	expectText(t, page, "inactive", "99912345V")
	expect(t, r.do("GET", "/docs/"), http.StatusSeeOther, "/inactive")
	expect(t, r.do("GET", "/login"), http.StatusSeeOther, "/inactive")
	expect(t, r.do("GET", "/docs/", "Accept: */*"), http.StatusForbidden, "")
	if r.seen != nil {
		t.Fatal("the application was reached")
	}
	r.expectRecords("login inactive", "request inactive", "request inactive")
	if !r.records[0].Created || len(r.records[0].Report) == 0 || len(r.records[0].Certificate) != 64 {
		t.Errorf("record %+v", r.records[0])
	}

	if _, err := r.users.Approve(t.Context(), "99912345V"); err != nil {
		t.Fatal(err)
	}
	expect(t, r.do("GET", "/docs/"), http.StatusSeeOther, "/login?next=%2Fdocs%2F")
	expect(t, r.do("GET", "/inactive"), http.StatusSeeOther, "/login")
	expect(t, r.post("/login", url.Values{"next": {"/docs/?q=1"}}), http.StatusSeeOther, "/docs/?q=1")
	expectText(t, r.do("GET", "/docs/?q=1"), "hello Maija Mäkelä")
	expect(t, r.do("GET", "/login?next=/docs/"), http.StatusSeeOther, "/docs/")
	page = r.do("GET", "/account")
	expectText(t, page, "Your account", "Maija Mäkelä", fmt.Sprintf("%x", r.card.Certificate.SerialNumber), "Log out")
	u, err := r.users.ByKey(t.Context(), "kortti-test-citizen/99912345V")
	if err != nil {
		list, _ := r.users.List(t.Context())
		t.Fatalf("%v; users %+v", err, list)
	}
	if list, err := r.users.Certificates(t.Context(), u.ID); err != nil || len(list) != 1 {
		t.Errorf("%d certificates noted, %v", len(list), err)
	}

	expect(t, r.do("GET", "/logout"), http.StatusMethodNotAllowed, "")
	old := r.cookie
	expect(t, r.post("/logout", nil), http.StatusSeeOther, "/login?bye=1")
	if r.cookie != nil {
		t.Error("the cookie is still there")
	}
	expectText(t, r.do("GET", "/login?bye=1"), "You are logged out")
	r.cookie = old
	expect(t, r.do("GET", "/docs/"), http.StatusSeeOther, "/login?next=%2Fdocs%2F")
	r.expectRecords("login inactive", "request inactive", "request inactive", "login ok", "logout ok")
}

// Whoever cannot be put on record does not get in.
func TestLoginMustBeOnRecord(t *testing.T) {
	r := newRig(t, nil)
	r.login()
	r.cookie = nil
	r.unrecorded = errors.New("disk full")
	expect(t, r.post("/login", nil), http.StatusInternalServerError, "")
	if r.cookie != nil {
		t.Error("the browser got a cookie")
	}
	r.unrecorded = nil
	expect(t, r.post("/login", nil), http.StatusSeeOther, "/account")
}

func TestEachLoginHasANewToken(t *testing.T) {
	r := newRig(t, nil)
	r.login()
	first := r.cookie
	expect(t, r.post("/login", nil), http.StatusSeeOther, "/account")
	if r.cookie.Value == first.Value {
		t.Error("the token is the old one")
	}
	r.cookie = first
	expect(t, r.do("GET", "/x", "Accept: */*"), http.StatusUnauthorized, "")
}

func TestCreate(t *testing.T) {
	for _, test := range []struct {
		create   users.Create
		page     int
		status   int
		location string
	}{
		{users.CreateOff, http.StatusForbidden, http.StatusForbidden, ""},
		{users.CreateInactive, http.StatusOK, http.StatusSeeOther, "/inactive"},
		{users.CreateActive, http.StatusOK, http.StatusSeeOther, "/account"},
	} {
		t.Run(string(test.create), func(t *testing.T) {
			r := newRig(t, func(c *door.Config) { c.Create = test.create })
			expect(t, r.do("GET", "/login"), test.page, "")
			expect(t, r.post("/login", nil), test.status, test.location)
		})
	}
}

// Certificates that get nobody in.
func TestRefusedCertificates(t *testing.T) {
	stranger, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Issue(stranger.CitizenEC, fineidtest.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		code   string
		status int // for programs
		edit   func(*rig)
	}{
		{"no-certificate", http.StatusUnauthorized, func(r *rig) { r.card = nil }},
		{"expired", http.StatusForbidden, func(r *rig) { r.now = r.card.Certificate.NotAfter.Add(time.Second) }},
		{"not-yet-valid", http.StatusForbidden, func(r *rig) { r.now = r.card.Certificate.NotBefore.Add(-time.Second) }},
		{"wrong-purpose", http.StatusForbidden, func(r *rig) { r.card = r.issue(fineidtest.Leaf{Purpose: fineid.Signature}) }},
		{"revoked", http.StatusForbidden, func(r *rig) { r.issuer.status = verify.Revoked }},
		{"revocation-unknown", http.StatusForbidden, func(r *rig) { r.issuer.err = errors.New("down") }},
		{"untrusted-issuer", http.StatusForbidden, func(r *rig) { r.card = foreign }},
		{"bad-identity", http.StatusForbidden, func(r *rig) { r.card = r.issue(fineidtest.Leaf{SerialNumber: "99912345A"}) }},
	} {
		t.Run(test.code, func(t *testing.T) {
			r := newRig(t, nil)
			test.edit(r)
			page := r.do("GET", "/login?next=/docs/")
			expect(t, page, http.StatusForbidden, "")
			expectText(t, page, "You cannot get in", "<code>"+test.code+"</code>", "/login?next=%2Fdocs%2F", verify.Text(test.code, "en")[:20])
			expect(t, r.post("/login", nil), http.StatusForbidden, "")
			expect(t, r.do("GET", "/docs/"), http.StatusSeeOther, "/login?next=%2Fdocs%2F")
			for _, target := range []string{"/docs/", "/api/x"} {
				answer := r.do("GET", target, "Accept: application/json")
				expect(t, answer, test.status, "")
				expectText(t, answer, `"code":"`+test.code+`"`)
			}
			if list, err := r.users.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("%d users, %v", len(list), err)
			}
			if r.seen != nil {
				t.Error("the application was reached")
			}
		})
	}
}

// What happens to a session when something changes behind it.
func TestSessionFollows(t *testing.T) {
	for _, test := range []struct {
		name   string
		edit   func(*rig)
		reason string // of /whoami
		ended  bool   // whether the session is over for good
	}{
		{"revoked", func(r *rig) { r.issuer.status = verify.Revoked }, "revoked", true},
		{"issuer cannot be asked", func(r *rig) { r.issuer.err = errors.New("down") }, "revocation-unknown", false},
		{"no card", func(r *rig) { r.card = nil }, "no-certificate", false},
		{"somebody else's card", func(r *rig) { r.card = r.issue(fineidtest.Leaf{}) }, "unknown-user", true},
		{"another card of the same person", func(r *rig) {
			r.card = r.issue(fineidtest.Leaf{GivenName: "MAIJA", Surname: "MÄKELÄ", SerialNumber: "99912345V"})
		}, "no-session", true},
		{"deactivated", func(r *rig) {
			if _, err := r.users.Deactivate(r.t.Context(), "99912345V"); err != nil {
				r.t.Fatal(err)
			}
		}, "inactive", true},
		{"idle", func(r *rig) { r.now = r.now.Add(30 * time.Minute) }, "no-session", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.login()
			cookie, card := r.cookie, r.card
			expect(t, r.do("GET", "/docs/"), http.StatusOK, "")
			test.edit(r)
			expectText(t, r.do("GET", "/whoami"), `"authenticated":false`, `"reason":"`+test.reason+`"`)
			if w := r.do("GET", "/docs/"); w.Code != http.StatusSeeOther || r.seen != nil {
				t.Errorf("status %d", w.Code)
			}

			r.cookie, r.card, r.issuer = cookie, card, responder{status: verify.Good}
			if _, err := r.users.Approve(t.Context(), "99912345V"); err != nil {
				t.Fatal(err)
			}
			if w := r.do("GET", "/docs/"); (w.Code != http.StatusOK) != test.ended {
				t.Errorf("afterwards status %d, ended should be %v", w.Code, test.ended)
			}
		})
	}
}

func TestSessionIsEndedOnceAndForAll(t *testing.T) {
	r := newRig(t, nil)
	r.login()
	r.issuer.status = verify.Revoked
	r.do("GET", "/docs/")
	r.do("GET", "/docs/")
	r.expectRecords("request revoked", "session-ended revoked", "request revoked")
}

func TestSessionless(t *testing.T) {
	r := newRig(t, nil)
	get := func(path string) *httptest.ResponseRecorder { return r.do("GET", path, "Accept: */*") }
	expectText(t, get("/api/x"), "unknown-user")
	r.post("/login", nil)
	expectText(t, get("/api/x"), `"inactive"`)
	if _, err := r.users.Approve(t.Context(), "99912345V"); err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{
		"/api/x":         http.StatusOK,
		"/api/":          http.StatusOK,
		"/status":        http.StatusOK,
		"/status/x":      http.StatusUnauthorized,
		"/api":           http.StatusUnauthorized,
		"/api/../docs/":  http.StatusUnauthorized,
		"/api//docs":     http.StatusUnauthorized,
		"/docs/":         http.StatusUnauthorized,
		"/api/..%2Fdocs": http.StatusUnauthorized,
		"/api/..;/docs":  http.StatusUnauthorized,
	} {
		if w := get(path); w.Code != status {
			t.Errorf("%s: %d, want %d", path, w.Code, status)
		}
	}
	w := get("/api/x")
	if len(w.Result().Cookies()) != 0 {
		t.Error("a route without sessions set a cookie")
	}
}

func TestCrossOrigin(t *testing.T) {
	r := newRig(t, nil)
	r.login()
	for _, target := range []string{"/login", "/logout", "/docs/", "/api/x", "/account", "/whoami"} {
		for _, headers := range [][]string{
			{"Sec-Fetch-Site: cross-site"},
			{"Sec-Fetch-Site: same-site"},
			{"Origin: https://evil.example"},
			{"Origin: null"},
		} {
			r.seen = nil
			if w := r.post(target, nil, headers...); w.Code != http.StatusForbidden || r.seen != nil {
				t.Errorf("POST %s with %v: %d", target, headers, w.Code)
			}
		}
	}
	if w := r.do("GET", "/docs/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"); w.Code != http.StatusOK {
		t.Errorf("a link from elsewhere: %d", w.Code)
	}
	for _, protocol := range []string{"websocket", "WebSocket", "h2c, websocket", "x"} {
		if w := r.do("GET", "/docs/", "Upgrade: "+protocol, "Origin: https://evil.example"); w.Code != http.StatusForbidden {
			t.Errorf("upgrade to %s from elsewhere: %d", protocol, w.Code)
		}
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site: same-origin"}, {"Origin: https://kortti.example"}, nil} {
		if w := r.post("/docs/", nil, headers...); w.Code != http.StatusOK {
			t.Errorf("own POST with %v: %d", headers, w.Code)
		}
	}
}

func TestHeadersOfStrangers(t *testing.T) {
	r := newRig(t, nil)
	r.login()
	for _, header := range []string{"X-SSL-Client-Cert: x", "X_SSL_Client_Cert: x", "Client-Cert: :eA==:", "X-Kortti-User: root", "Remote-User: root"} {
		w := r.do("GET", "/docs/", header)
		expect(t, w, http.StatusBadRequest, "")
		if r.seen != nil {
			t.Errorf("%s: the application was reached", header)
		}
	}
	if len(r.records) != 5 || r.records[0].Event != door.EventEvidence || r.records[0].Code != evidence.CodeUntrustedPeer {
		t.Errorf("records %+v", r.records)
	}
}

func TestHealth(t *testing.T) {
	broken := errors.New("no disk")
	r := newRig(t, func(c *door.Config) { c.Ready = func(context.Context) error { return broken } })
	r.card = nil
	expect(t, r.do("GET", "/healthz"), http.StatusOK, "")
	expect(t, r.do("GET", "/readyz"), http.StatusServiceUnavailable, "")
	broken = nil
	expect(t, r.do("GET", "/readyz"), http.StatusOK, "")
}

func TestFormIsBounded(t *testing.T) {
	r := newRig(t, nil)
	req := httptest.NewRequest(http.MethodPost, "https://kortti.example/login", io.MultiReader(
		strings.NewReader("next=/docs/&fill="), strings.NewReader(strings.Repeat("x", 1<<20))))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	expect(t, r.send(req), http.StatusSeeOther, "/inactive")
}

// deadline notes until when a handler reads.
type deadline struct {
	*httptest.ResponseRecorder
	at time.Time
}

func (d *deadline) SetReadDeadline(at time.Time) error {
	d.at = at
	return nil
}

// Somebody who sends a form byte by byte is not waited for.
func TestFormHasADeadline(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/login", "/logout"} {
		w := &deadline{ResponseRecorder: httptest.NewRecorder()}
		r.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "https://kortti.example"+path, nil))
		if left := time.Until(w.at); left <= 0 || left > time.Minute {
			t.Errorf("%s reads until %v", path, w.at)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, edit := range map[string]func(*door.Config){
		"no login":           func(c *door.Config) { c.LoginURL = "" },
		"login elsewhere":    func(c *door.Config) { c.LoginURL = "https://login.example/" },
		"login is account":   func(c *door.Config) { c.LoginURL = "/account" },
		"inactive is login":  func(c *door.Config) { c.InactiveURL = "/login" },
		"pattern":            func(c *door.Config) { c.LoginURL = "/{x}" },
		"redirect elsewhere": func(c *door.Config) { c.RedirectURL = "//evil.example" },
		"redirect is login":  func(c *door.Config) { c.RedirectURL = "/login" },
		"sessionless":        func(c *door.Config) { c.Sessionless = []string{"api/"} },
		"unclean":            func(c *door.Config) { c.Sessionless = []string{"/a/../"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := door.Config{LoginURL: "/login", RedirectURL: "/account", InactiveURL: "/inactive"}
			edit(&c)
			if _, err := door.New(c); err == nil {
				t.Error("was taken")
			}
		})
	}
}
