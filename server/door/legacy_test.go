package door_test

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/verify"
)

// newLegacyRig is a door behind a proxy with a certificate of its own, which is
// what the rig's "card" is here.
func newLegacyRig(t *testing.T, legacy func([]pkix.AttributeTypeAndValue) (door.Claim, error)) *rig {
	t.Helper()
	pki, err := testPKI()
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{GivenName: "PROXY", SerialNumber: "99900000X"})
	if err != nil {
		t.Fatal(err)
	}
	pin := sha256.Sum256(proxy.Certificate.Raw)
	r := newRig(t, func(c *door.Config) {
		if c.Evidence, err = evidence.New(evidence.Config{Format: evidence.InsecureLegacyDN, From: []string{"mtls:" + hex.EncodeToString(pin[:])}}); err != nil {
			t.Fatal(err)
		}
		c.Legacy, c.Sessionless = legacy, nil
		c.MapUser = func(verify.Identity) (fineid.Profile, error) {
			t.Error("a mapper of verified identities was asked about a claim")
			return fineid.Profile{}, nil
		}
	})
	r.card = proxy
	return r
}

// citizen reads the names as kortti-server does.
func citizen(t *testing.T) func([]pkix.AttributeTypeAndValue) (door.Claim, error) {
	return func(name []pkix.AttributeTypeAndValue) (door.Claim, error) {
		pki, err := testPKI()
		if err != nil {
			t.Fatal(err)
		}
		who, err := fineid.DVV().With(pki.Issuers()...).ParseSubject("kortti-test-citizen", name)
		return door.Claim{Key: who.Family + "/" + who.SerialNumber, Profile: who.Profile()}, err
	}
}

const (
	success = "X-SSL-Authenticated: SUCCESS"
	maija   = `X-SSL-User-DN: /C=FI/serialNumber=99912345V/GN=MAIJA/SN=M\xC3\x84KEL\xC3\x84/CN=x`
)

func (r *rig) whoami(headers ...string) (answer door.Whoami) {
	r.t.Helper()
	if err := json.Unmarshal(r.do("GET", "/whoami", headers...).Body.Bytes(), &answer); err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// Somebody whom only the proxy knows gets in, and nowhere looks like somebody
// with a verified certificate.
func TestLegacy(t *testing.T) {
	r := newLegacyRig(t, citizen(t))
	expectText(t, r.do("GET", "/login", success, maija), "Maija Mäkelä", "99912345V</p>")
	expect(t, r.post("/login", nil, success, maija), http.StatusSeeOther, "/inactive")
	if _, err := r.users.Approve(t.Context(), "kortti-test-citizen/99912345V"); err != nil {
		t.Fatal(err)
	}
	r.records = nil
	expect(t, r.post("/login", nil, success, maija), http.StatusSeeOther, "/account")
	r.expectRecords("login ok")
	if got := r.records[0]; got.Source != "insecure-legacy-dn" || got.Certificate != "" || len(got.Report) != 1 || got.Report[0].Result != verify.ResultNotAsked {
		t.Errorf("recorded %+v", got)
	}
	expectText(t, r.do("GET", "/x", success, maija), "hello Maija Mäkelä")
	for name := range r.seen.Header {
		if strings.HasPrefix(name, "X-Ssl") {
			t.Errorf("the application saw %s", name)
		}
	}
	if w := r.do("GET", "/account", success, maija); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "Certificate") {
		t.Errorf("account page %d:\n%s", w.Code, w.Body)
	}
	who := r.whoami(success, maija)
	if !who.Authenticated || who.Certificate != nil || who.Session == nil || !who.Session.ExpiresAt.Equal(r.now.Add(12*time.Hour).UTC()) {
		t.Errorf("whoami %+v", who)
	}
	u, err := r.users.ByKey(t.Context(), "kortti-test-citizen/99912345V")
	if err != nil {
		t.Fatal(err)
	}
	if seen, err := r.users.Certificates(t.Context(), u.ID); err != nil || len(seen) != 0 {
		t.Errorf("certificates %v, %v", seen, err)
	}
	// The cookie is of use with the same name only.
	expect(t, r.do("GET", "/x", success, strings.Replace(maija, "GN=MAIJA", "GN=MATTI", 1)), http.StatusSeeOther, "/login?next=%2Fx")
	if got := r.records[len(r.records)-1]; got.Code != door.CodeOtherCertificate {
		t.Errorf("recorded %+v", got)
	}
	expect(t, r.do("GET", "/x", success, maija), http.StatusSeeOther, "/login?next=%2Fx") // it has ended
}

func TestLegacyRefused(t *testing.T) {
	r := newLegacyRig(t, citizen(t))
	for _, dn := range []string{
		"serialNumber=99912345V,serialNumber=99900335E,C=FI", // two people
		"serialNumber=99912345W,C=FI",                        // no SATU
		"CN=MAIJA,C=FI",
		`CN=a\09b,serialNumber=99912345V,C=FI`, // a control character
	} {
		r.records = nil
		expect(t, r.post("/login", nil, success, "X-SSL-User-DN: "+dn), http.StatusForbidden, "")
		r.expectRecords("request bad-identity")
		if r.cookie != nil {
			t.Errorf("%s: a session", dn)
		}
	}
	r.records = nil
	expect(t, r.post("/login", nil, success, `X-SSL-User-DN: /C=FI/serialNumber=99999999D/SN=A/GN=B/CN=B\/serialNumber=99900335E`), http.StatusBadRequest, "")
	r.expectRecords("evidence bad-header-value")
	if list, err := r.users.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("users %v, %v", list, err)
	}
	// The proxy's own certificate is nobody's card.
	if who := r.whoami(); who.Reason != door.CodeNoCertificate {
		t.Errorf("the proxy is %+v", who)
	}
	for name, legacy := range map[string]func([]pkix.AttributeTypeAndValue) (door.Claim, error){
		"nobody reads names": nil,
		"no key":             func([]pkix.AttributeTypeAndValue) (door.Claim, error) { return door.Claim{}, nil },
		"a key with an error": func([]pkix.AttributeTypeAndValue) (door.Claim, error) {
			return door.Claim{Key: "a/b", Profile: fineid.Profile{Username: "b"}}, errors.New("no")
		},
	} {
		if w := newLegacyRig(t, legacy).post("/login", nil, success, maija); w.Code < 400 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}
