package door_test

import (
	"net/http"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/limit"
	"github.com/kortti-id/kortti/server/verify"
)

// limitedRig counts refusals and logins with a clock that the test moves.
func limitedRig(t *testing.T, refusals, logins int) *rig {
	var r *rig
	clock := func() time.Time { return r.now }
	r = newRig(t, func(c *door.Config) {
		c.Refusals = limit.New[netip.Prefix](1, refusals, clock)
		c.Logins = limit.New[string](1, logins, clock)
	})
	return r
}

// From a network with too many refusals nobody new is looked at; whoever has
// logged in before is, for a whole hospital may be behind that address.
func TestRefusalsSpent(t *testing.T) {
	r := limitedRig(t, 3, 100)
	good := r.card
	r.login()
	signature, err := r.pki.Issue(r.pki.CitizenEC, fineidtest.Leaf{Purpose: 2})
	if err != nil {
		t.Fatal(err)
	}
	newcomer, err := r.pki.Issue(r.pki.CitizenEC, fineidtest.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	session := r.cookie
	r.card, r.cookie, r.records = signature, nil, nil
	for range 3 {
		expect(t, r.do("GET", "/docs/", "Accept: */*"), http.StatusForbidden, "")
	}
	asked := len(r.records)
	page := r.do("GET", "/docs/", "Accept: text/html")
	expect(t, page, http.StatusTooManyRequests, "")
	expectText(t, page, "Too many attempts", "too-many-requests")
	if page.Header().Get("Retry-After") != "10" {
		t.Errorf("Retry-After %q", page.Header().Get("Retry-After"))
	}
	r.card = newcomer
	expect(t, r.do("GET", "/docs/", "Accept: */*"), http.StatusTooManyRequests, "")
	r.card, r.cookie = good, session
	expectText(t, r.do("GET", "/docs/"), "hello Maija")
	for _, record := range r.records[asked:] {
		if record.Event == door.EventRequest {
			t.Errorf("looked at %+v", record)
		}
	}
	r.card, r.cookie = newcomer, nil
	r.now = r.now.Add(time.Second)
	expect(t, r.do("GET", "/docs/", "Accept: */*"), http.StatusForbidden, "")
}

// What is not the client's fault is not counted.
func TestRefusalsNotCounted(t *testing.T) {
	r := limitedRig(t, 2, 100)
	r.issuer.status, r.issuer.err = 0, http.ErrServerClosed
	for range 5 {
		expect(t, r.do("GET", "/docs/", "Accept: */*"), http.StatusForbidden, "")
	}
	r.issuer.status, r.issuer.err = verify.Good, nil
	for range 5 { // waits for an account
		expect(t, r.do("GET", "/docs/", "Accept: */*"), http.StatusForbidden, "")
	}
}

func TestLoginsSpent(t *testing.T) {
	r := limitedRig(t, 100, 2)
	for range 2 {
		expect(t, r.post("/login", nil), http.StatusSeeOther, "/inactive")
	}
	expect(t, r.post("/login", nil), http.StatusTooManyRequests, "")
	other, err := r.pki.Issue(r.pki.CitizenEC, fineidtest.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	r.card = other
	expect(t, r.post("/login", nil), http.StatusSeeOther, "/inactive")
}

// The reference on a page is that of its record.
func TestReference(t *testing.T) {
	r := newRig(t, nil)
	expect(t, r.post("/login", nil), http.StatusSeeOther, "/inactive")
	waiting := r.do("GET", "/inactive").Body.String()
	r.issuer.status = verify.Revoked
	revoked := r.do("GET", "/login").Body.String()
	program := r.do("GET", "/docs/", "Accept: */*").Body.String()
	crossed := r.do("POST", "/login", "Sec-Fetch-Site: cross-site").Body.String()
	ref := regexp.MustCompile(`[A-Z2-7]{4}-[A-Z2-7]{4}`)
	seen := map[string]bool{}
	for i, body := range []string{waiting, revoked, program, crossed} {
		got := ref.FindString(body)
		found := false
		for _, record := range r.records {
			found = found || record.Ref == got
		}
		if got == "" || !found || seen[got] {
			t.Errorf("%d: reference %q is not that of one record\n%s", i, got, body)
		}
		seen[got] = true
	}
	if got := r.records[0]; got.Code == door.CodeOK && got.Ref != "" {
		t.Errorf("record %+v", got)
	}
}
