package revoke

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/verify"
)

// signList makes a list of the CA with one revoked certificate, or none.
func (b *bench) signList(t testing.TB, ca *fineidtest.CA, list x509.RevocationList, revoked *x509.Certificate) []byte {
	t.Helper()
	return signList(t, ca.Certificate, ca.Key, b.clock.now(), list, revoked, 1)
}

func signList(t testing.TB, ca *x509.Certificate, key crypto.Signer, now time.Time, list x509.RevocationList, revoked *x509.Certificate, reason int) []byte {
	t.Helper()
	if list.Number == nil {
		list.Number = big.NewInt(100)
	}
	if list.ThisUpdate.IsZero() {
		list.ThisUpdate, list.NextUpdate = now.Add(-time.Minute), now.Add(time.Hour)
	}
	if revoked != nil {
		list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: revoked.SerialNumber, RevocationTime: now.Add(-time.Hour), ReasonCode: reason}}
	}
	der, err := x509.CreateRevocationList(rand.Reader, &list, ca, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func listExtension(t testing.TB, id int, value any) pkix.Extension {
	t.Helper()
	der, ok := value.([]byte)
	if !ok {
		var err error
		if der, err = asn1.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: true, Value: der}
}

// scope is an issuingDistributionPoint: a URL, or one of the flags.
func scope(t testing.TB, url string, flag int) pkix.Extension {
	t.Helper()
	type point struct {
		Name asn1.RawValue `asn1:"optional"`
		Flag asn1.RawValue `asn1:"optional"`
	}
	var p point
	if url != "" {
		uri := append([]byte{0x86, byte(len(url))}, url...)
		full := append([]byte{0xA0, byte(len(uri))}, uri...)
		p.Name = asn1.RawValue{FullBytes: append([]byte{0xA0, byte(len(full))}, full...)}
	} else {
		p.Flag = asn1.RawValue{FullBytes: []byte{0x80 | byte(flag), 1, 0xFF}}
	}
	return listExtension(t, 28, p)
}

func status(a verify.Answer, err error) string {
	switch {
	case err != nil:
		return "error: " + err.Error()
	case a.Status == verify.Good:
		return "good"
	case a.Status == verify.Revoked:
		return "revoked"
	}
	return "not asked"
}

func expectStatus(t *testing.T, c *Client, leaf *fineidtest.Issued, want string) {
	t.Helper()
	if got := status(check(c, leaf)); !strings.HasPrefix(got, want) && (want != "error" || !strings.HasPrefix(got, "error")) {
		t.Errorf("%s, want %s", got, want)
	}
}

// The list alone answers, is fetched once however many wait for it, and a
// revocation counts as soon as it is known.
func TestPreferCRL(t *testing.T) {
	b := newBench(t)
	c := b.client(t, Rule{Policy: PreferCRL})
	leaf, other := b.issue(t, b.CitizenEC), b.issue(t, b.CitizenEC)
	var running sync.WaitGroup
	for range 100 {
		running.Go(func() { expectStatus(t, c, leaf, "good") })
	}
	running.Wait()
	if n := b.Requests(); n.CRL != 1 || n.OCSP != 0 {
		t.Errorf("%+v, want one list", n)
	}
	if err := b.Revoke(leaf.Certificate, b.clock.now(), 1); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, c, leaf, "good") // nobody has heard of it
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, c, leaf, "revoked")
	expectStatus(t, c, other, "good")
	if lists := c.Lists(); len(lists) != 1 || lists[0].Entries != 1 || lists[0].Fetches != 2 || lists[0].Failures != 0 {
		t.Errorf("%+v", lists)
	}
}

// Where no list can be had OCSP is asked, and without either nobody gets in.
func TestPreferCRLWithoutList(t *testing.T) {
	b := newBench(t)
	b.CRL.Down.Store(true)
	c := b.client(t, Rule{Policy: PreferCRL})
	leaf := b.issue(t, b.CitizenEC)
	expectStatus(t, c, leaf, "good")
	if n := b.Requests(); n.OCSP != 1 {
		t.Errorf("%+v, want one question", n)
	}
	b.OCSP.Down.Store(true)
	expectStatus(t, c, b.issue(t, b.CitizenEC), "error")
	b.CRL.Down.Store(false)
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, c, b.issue(t, b.CitizenEC), "good")
	if lists := c.Lists(); lists[0].Failures != 1 {
		t.Errorf("%+v", lists)
	}
}

// A list that a rule names is asked beside OCSP: who is on it is out, whatever
// the responder has said; who is not may stand in for an answer.
func TestListBesideOCSP(t *testing.T) {
	b := newBench(t)
	url := b.BaseURL() + "/crl/" + b.CitizenEC.Name + ".crl"
	c := b.client(t, Rule{CRL: []string{url}, MaxAge: 24 * time.Hour})
	leaf := b.issue(t, b.CitizenEC)
	expectStatus(t, c, leaf, "good")
	if n := b.Requests(); n.OCSP != 1 || n.CRL != 1 {
		t.Errorf("%+v", n)
	}
	if err := b.Revoke(leaf.Certificate, b.clock.now(), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, c, leaf, "revoked")
	if n := b.Requests(); n.OCSP != 1 {
		t.Errorf("%+v, want the good answer from memory not to count", n)
	}
	b.OCSP.Down.Store(true)
	expectStatus(t, c, b.issue(t, b.CitizenEC), "good")
}

// Without a responder the list is the answer, under each policy.
func TestListAlone(t *testing.T) {
	for _, test := range []struct {
		name             string
		rule             Rule
		down, day, later string // list there; down from the start; a day later and down
	}{
		{"must", Rule{}, "error", "good", "error"},
		{"grace", Rule{Policy: Grace, Grace: 48 * time.Hour}, "error", "good", "good"},
		{"open", Rule{Policy: Open, Reason: "test"}, "not asked", "good", "not asked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			leaf, err := b.Issue(b.CitizenEC, fineidtest.Leaf{NoAIA: true})
			if err != nil {
				t.Fatal(err)
			}
			b.CRL.Down.Store(true)
			c := b.client(t, test.rule)
			expectStatus(t, c, leaf, test.down)
			b.CRL.Down.Store(false)
			if err := c.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectStatus(t, c, leaf, test.day)
			b.CRL.Down.Store(true)
			b.clock.forward(25 * time.Hour)
			if c.Refresh(t.Context()) == nil {
				t.Error("an outage is no problem")
			}
			expectStatus(t, c, leaf, test.later)
			b.clock.forward(48 * time.Hour)
			if test.name == "grace" {
				expectStatus(t, c, leaf, "error")
			}
		})
	}
}

// What is on a list that is too old to be an answer stays out under every policy.
func TestRevokedOnStaleList(t *testing.T) {
	b := newBench(t)
	leaf, err := b.Issue(b.CitizenEC, fineidtest.Leaf{NoAIA: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(leaf.Certificate, b.clock.now(), 1); err != nil {
		t.Fatal(err)
	}
	c := b.client(t, Rule{Policy: Open, Reason: "test"})
	expectStatus(t, c, leaf, "revoked")
	b.CRL.Down.Store(true)
	b.clock.forward(1000 * time.Hour)
	expectStatus(t, c, leaf, "revoked")
}

// Lists that must not be believed, or do not speak of the certificate.
func TestBelieveLists(t *testing.T) {
	b := newBench(t)
	leaf := b.issue(t, b.CitizenEC)
	now := b.clock.now()
	ca := b.CitizenEC
	hostile, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	impostor := *ca.Certificate
	impostor.PublicKey = hostile.Public()
	point := leaf.Certificate.CRLDistributionPoints[0]
	full := b.signList(t, ca, x509.RevocationList{}, nil)
	with := func(e ...pkix.Extension) x509.RevocationList { return x509.RevocationList{ExtraExtensions: e} }
	numbered := func(n int64, e ...pkix.Extension) x509.RevocationList {
		return x509.RevocationList{Number: big.NewInt(n), ExtraExtensions: e}
	}
	base := func(n int64) pkix.Extension { return listExtension(t, 27, big.NewInt(n)) }
	for name, test := range map[string]struct {
		lists [][]byte
		want  string
	}{
		"full":                        {[][]byte{full}, "good"},
		"full, revoked":               {[][]byte{b.signList(t, ca, x509.RevocationList{}, leaf.Certificate)}, "revoked"},
		"its own distribution point":  {[][]byte{b.signList(t, ca, with(scope(t, point, 0)), nil)}, "good"},
		"another distribution point":  {[][]byte{b.signList(t, ca, with(scope(t, "http://other.example/x.crl", 0)), nil)}, "error"},
		"for users":                   {[][]byte{b.signList(t, ca, with(scope(t, "", 1)), nil)}, "good"},
		"for CAs":                     {[][]byte{b.signList(t, ca, with(scope(t, "", 2)), nil)}, "error"},
		"for attribute certificates":  {[][]byte{b.signList(t, ca, with(scope(t, "", 5)), nil)}, "error"},
		"another CA's":                {[][]byte{b.signList(t, b.CitizenRSA, x509.RevocationList{}, nil)}, "error"},
		"its name, another key":       {[][]byte{signList(t, &impostor, hostile, now, x509.RevocationList{}, nil, 0)}, "error"},
		"stale":                       {[][]byte{b.signList(t, ca, x509.RevocationList{ThisUpdate: now.Add(-2 * time.Hour), NextUpdate: now.Add(-time.Hour)}, nil)}, "error"},
		"from the future":             {[][]byte{b.signList(t, ca, x509.RevocationList{ThisUpdate: now.Add(time.Hour), NextUpdate: now.Add(2 * time.Hour)}, nil)}, "error"},
		"no list":                     {[][]byte{[]byte("<html>")}, "error"},
		"delta alone":                 {[][]byte{b.signList(t, ca, numbered(101, base(100)), nil)}, "error"},
		"delta that revokes":          {[][]byte{full, b.signList(t, ca, numbered(101, base(100)), leaf.Certificate)}, "revoked"},
		"delta for a later base":      {[][]byte{full, b.signList(t, ca, numbered(103, base(102)), leaf.Certificate)}, "good"},
		"delta older than the base":   {[][]byte{full, b.signList(t, ca, numbered(99, base(98)), leaf.Certificate)}, "good"},
		"delta of another scope":      {[][]byte{full, b.signList(t, ca, numbered(101, base(100), scope(t, "", 1)), leaf.Certificate)}, "good"},
		"the later one of two deltas": {[][]byte{full, b.signList(t, ca, numbered(101, base(100)), leaf.Certificate), b.signList(t, ca, numbered(102, base(100)), nil)}, "good"},
		"delta that takes back": {[][]byte{
			signList(t, ca.Certificate, ca.Key, now, x509.RevocationList{}, leaf.Certificate, 6),
			signList(t, ca.Certificate, ca.Key, now, numbered(101, base(100)), leaf.Certificate, 8),
		}, "good"},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for i, der := range test.lists {
				file := filepath.Join(t.TempDir(), string(rune('a'+i)))
				if err := os.WriteFile(file, der, 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files, file)
			}
			b.OCSP.Down.Store(true)
			expectStatus(t, b.client(t, Rule{Policy: PreferCRL, CRL: files}), leaf, test.want)
		})
	}
}

// An older list never takes the place of a newer one, also not over a restart.
func TestOlderList(t *testing.T) {
	b := newBench(t)
	b.OCSP.Down.Store(true)
	leaf := b.issue(t, b.CitizenEC)
	cache := t.TempDir()
	file := filepath.Join(t.TempDir(), "list.crl")
	put := func(number int64, revoked *x509.Certificate) {
		t.Helper()
		if err := os.WriteFile(file, b.signList(t, b.CitizenEC, x509.RevocationList{Number: big.NewInt(number)}, revoked), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rule := Rule{Issuer: "*", Policy: PreferCRL, CRL: []string{file}}
	first, err := New(Config{Rules: []Rule{rule}, Now: b.clock.now, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	put(7, leaf.Certificate)
	expectStatus(t, first, leaf, "revoked")
	put(6, nil)
	if err := first.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "older than the one at hand") {
		t.Errorf("%v", err)
	}
	expectStatus(t, first, leaf, "revoked")
	first.Close()
	second, err := New(Config{Rules: []Rule{rule}, Now: b.clock.now, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	expectStatus(t, second, leaf, "revoked")
	put(8, nil)
	if err := second.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectStatus(t, second, leaf, "good")
}

// Lists are asked for where the rule allows it, and nowhere else.
func TestWhereListsComeFrom(t *testing.T) {
	b := newBench(t)
	leaf, err := b.Issue(b.CitizenEC, fineidtest.Leaf{NoAIA: true})
	if err != nil {
		t.Fatal(err)
	}
	redirect := httptest.NewServer(http.RedirectHandler(leaf.Certificate.CRLDistributionPoints[0], http.StatusFound))
	defer redirect.Close()
	for name, test := range map[string]struct {
		rule Rule
		want string
	}{
		"listed":                 {Rule{}, "good"},
		"another host":           {Rule{Hosts: []string{"crl.example.fi"}}, "error"},
		"loopback, not listed":   {Rule{Hosts: []string{}}, "error"},
		"redirect":               {Rule{CRL: []string{redirect.URL + "/x"}, Hosts: []string{"127.0.0.1"}}, "error"},
		"file that is not there": {Rule{CRL: []string{filepath.Join(t.TempDir(), "none")}}, "error"},
	} {
		before := b.Requests().CRL
		expectStatus(t, b.client(t, test.rule), leaf, test.want)
		if test.want != "good" && b.Requests().CRL != before {
			t.Errorf("%s: the list was fetched", name)
		}
	}
	if _, err := New(Config{Rules: []Rule{{Issuer: "*", CRL: []string{"ldap://crl.example.fi/x"}}}}); err == nil {
		t.Error("took an LDAP address")
	}
}

// What was learned survives a restart while nobody can be asked.
func TestCache(t *testing.T) {
	b := newBench(t)
	cache := filepath.Join(t.TempDir(), "cache")
	good, revoked := b.issue(t, b.CitizenEC), b.issue(t, b.CitizenEC)
	listed, err := b.Issue(b.CitizenRSA, fineidtest.Leaf{NoAIA: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range []*fineidtest.Issued{revoked} {
		if err := b.Revoke(leaf.Certificate, b.clock.now(), 1); err != nil {
			t.Fatal(err)
		}
	}
	start := func() *Client {
		c, err := New(Config{Rules: []Rule{{Issuer: "*", Policy: Open, Reason: "test", Hosts: []string{b.host}}}, Now: b.clock.now, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	first := start()
	expectStatus(t, first, good, "good")
	expectStatus(t, first, revoked, "revoked")
	expectStatus(t, first, listed, "good")
	first.Close()
	if info, err := os.Stat(cache); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	b.OCSP.Down.Store(true)
	b.CRL.Down.Store(true)
	second := start()
	expectStatus(t, second, good, "good")
	expectStatus(t, second, revoked, "revoked")
	expectStatus(t, second, listed, "good")
	if n := second.Counters(); n.Asked != 0 || n.CacheRefused != 0 {
		t.Errorf("%+v", n)
	}
	second.Close()
	b.clock.forward(1000 * time.Hour) // past all that was good
	third := start()
	expectStatus(t, third, good, "not asked")
	expectStatus(t, third, revoked, "revoked")
	third.Close()

	// What somebody has written over is not believed.
	files, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fourth := start()
	for _, leaf := range []*fineidtest.Issued{good, revoked, listed} {
		expectStatus(t, fourth, leaf, "not asked")
	}
	if n := fourth.Counters(); n.CacheRefused == 0 {
		t.Errorf("%+v", n)
	}
}

// A new configuration does not forget what was known.
func TestAfter(t *testing.T) {
	b := newBench(t)
	revoked := b.issue(t, b.CitizenEC)
	listed, err := b.Issue(b.CitizenRSA, fineidtest.Leaf{NoAIA: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(revoked.Certificate, b.clock.now(), 1); err != nil {
		t.Fatal(err)
	}
	old := b.client(t, Rule{})
	expectStatus(t, old, revoked, "revoked")
	expectStatus(t, old, listed, "good")
	b.OCSP.Down.Store(true)
	b.CRL.Down.Store(true)
	b.clock.forward(12 * time.Hour) // within the list's day, past the answer's hour
	c, err := New(Config{Rules: []Rule{{Issuer: "*", Policy: Open, Reason: "test", Hosts: []string{b.host}}}, Now: b.clock.now, After: old})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	old.Close()
	expectStatus(t, c, revoked, "revoked")
	expectStatus(t, c, listed, "good")
}

// While a responder is down it is not asked at each click of one person.
func TestFailuresAreRemembered(t *testing.T) {
	b := newBench(t)
	b.OCSP.Down.Store(true)
	c := b.client(t, Rule{})
	leaf := b.issue(t, b.CitizenEC)
	for range 20 {
		expectStatus(t, c, leaf, "error")
	}
	if n := b.Requests().OCSP; n != 1 {
		t.Errorf("asked %d times", n)
	}
	b.OCSP.Down.Store(false)
	b.clock.forward(failureLife)
	expectStatus(t, c, leaf, "good")
}

func TestShorten(t *testing.T) {
	for by, want := range map[float64]time.Duration{0: 100, 1: 75, 0.4: 90} {
		if got := shorten(100, by); got != want {
			t.Errorf("%v: %d, want %d", by, got, want)
		}
	}
}

// Of CA certificates those that name nothing are not asked about; a responder
// for holders is not asked about them.
func TestIssuingCAs(t *testing.T) {
	b := newBench(t)
	c := b.client(t, Rule{URL: b.BaseURL() + "/ocsp/" + b.CitizenEC.Name})
	ca, root := b.CitizenEC.Certificate, b.Root.Certificate
	if got := status(c.Check(context.Background(), ca, root)); got != "good" {
		t.Error(got)
	}
	if n := b.Requests(); n.OCSP != 0 || n.CRL != 1 {
		t.Errorf("%+v", n)
	}
	bare := *ca
	bare.CRLDistributionPoints, bare.OCSPServer = nil, nil
	if got := status(c.Check(context.Background(), &bare, root)); got != "not asked" {
		t.Error(got)
	}
	if err := b.Revoke(ca, b.clock.now(), 2); err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := status(c.Check(context.Background(), ca, root)); got != "revoked" {
		t.Error(got)
	}
}

func FuzzKeptAnswer(f *testing.F) {
	f.Add([]byte(`{"received":"2026-01-01T00:00:00Z","nonce":"AAAA","response":"MAA="}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if a, err := parseKept(content); err == nil && len(a.Response) > len(content) {
			t.Error("longer than what it was read from")
		}
	})
}

// BenchmarkList is what a check by list costs.
func BenchmarkList(b *testing.B) {
	bench := newBench(b)
	c, err := New(Config{Rules: []Rule{{Issuer: "*", Policy: PreferCRL, Hosts: []string{bench.host}}}, Now: bench.clock.now})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	leaf := bench.issue(b, bench.CitizenEC)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Check(b.Context(), leaf.Certificate, leaf.CA.Certificate); err != nil {
			b.Fatal(err)
		}
	}
}
