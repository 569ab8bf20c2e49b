package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/verify"
)

// checker is a Checker that a test steers, and that counts.
type checker struct {
	answer verify.Answer
	err    error
	calls  atomic.Int32
	ca     *verify.Answer // about CAs, nil = the same
	caErr  error
}

func (c *checker) Check(_ context.Context, leaf, _ *x509.Certificate) (verify.Answer, error) {
	c.calls.Add(1)
	if leaf.IsCA && c.ca != nil {
		return *c.ca, c.caErr
	}
	return c.answer, c.err
}

func goodChecker() *checker {
	return &checker{answer: verify.Answer{Status: verify.Good, Until: time.Now().Add(time.Hour), Detail: "asked"}}
}

func newPKI(t testing.TB) *fineidtest.PKI {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return pki
}

func issue(t testing.TB, pki *fineidtest.PKI, ca *fineidtest.CA, leaf fineidtest.Leaf) *fineidtest.Issued {
	t.Helper()
	issued, err := pki.Issue(ca, leaf)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func config(pki *fineidtest.PKI) verify.Config {
	return verify.Config{
		Roots:      []*x509.Certificate{pki.Root.Certificate, pki.RootRSA.Certificate},
		Issuing:    []*x509.Certificate{pki.CitizenEC.Certificate, pki.CitizenRSA.Certificate, pki.OrganisationEC.Certificate},
		Issuers:    fineid.DVV().With(pki.Issuers()...),
		Revocation: goodChecker(),
	}
}

func newVerifier(t testing.TB, c verify.Config) *verify.Verifier {
	t.Helper()
	v, err := verify.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func of(c *x509.Certificate, chain ...*x509.Certificate) evidence.Evidence {
	ev := evidence.Evidence{Leaf: c.Raw, Source: evidence.SourceTLS}
	for _, c := range chain {
		ev.Chain = append(ev.Chain, c.Raw)
	}
	return ev
}

func codeOf(err error) string {
	var refusal *verify.Refusal
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	if err != nil {
		return "not a *Refusal: " + err.Error()
	}
	return ""
}

func TestAccepted(t *testing.T) {
	pki := newPKI(t)
	v := newVerifier(t, config(pki))
	for _, c := range []struct {
		name   string
		ca     *fineidtest.CA
		leaf   fineidtest.Leaf
		family string
		class  fineid.Class
	}{
		{"P-384", pki.CitizenEC, fineidtest.Leaf{}, "kortti-test-citizen", fineid.Citizen},
		{"RSA", pki.CitizenRSA, fineidtest.Leaf{}, "kortti-test-citizen", fineid.Citizen},
		{"organisation", pki.OrganisationEC, fineidtest.Leaf{Organization: "Yritys Oy"}, "kortti-test-organisation", fineid.Organisation},
		{"client authentication", pki.CitizenEC, fineidtest.Leaf{ExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 2}}}, "kortti-test-citizen", fineid.Citizen},
		{"smart card logon", pki.CitizenEC, fineidtest.Leaf{UPN: "a@example.fi", ExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 20, 2, 2}}}, "kortti-test-citizen", fineid.Citizen},
		{"critical UPN alone", pki.CitizenEC, fineidtest.Leaf{UPN: "a@example.fi", CriticalSAN: true}, "kortti-test-citizen", fineid.Citizen},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf := issue(t, pki, c.ca, c.leaf)
			id, report, err := v.Verify(t.Context(), of(leaf.Certificate))
			if err != nil {
				t.Fatal(err)
			}
			if !id.Verified() || id.Class != c.class || id.Key != c.family+"/"+id.SerialNumber || id.SerialNumber == "" {
				t.Errorf("verified %v, class %v, key %q", id.Verified(), id.Class, id.Key)
			}
			if len(id.Chain) != 3 || !id.Chain[0].Equal(leaf.Certificate) || !id.Chain[1].Equal(c.ca.Certificate) || !id.Leaf.Equal(leaf.Certificate) {
				t.Errorf("chain of %d", len(id.Chain))
			}
			if report.Decision != verify.Accepted || report.Code != "" || report.Epoch != v.Epoch() || report.Fingerprint != id.Fingerprint || report.RevocationUntil.IsZero() {
				t.Errorf("report %+v", report)
			}
			again, second, err := v.Verify(t.Context(), of(leaf.Certificate))
			if err != nil || !reflect.DeepEqual(again, id) || !reflect.DeepEqual(second.Steps, report.Steps) {
				t.Errorf("from the cache: %v\n%v\n%v", err, second.Steps, report.Steps)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	pki, foreign := newPKI(t), newPKI(t)
	v := newVerifier(t, config(pki))
	long := time.Now().Add(-20 * 365 * 24 * time.Hour)
	for _, c := range []struct {
		name string
		pki  *fineidtest.PKI
		leaf fineidtest.Leaf
		code string
	}{
		{"same names, other keys", foreign, fineidtest.Leaf{}, verify.CodeUntrustedIssuer},
		{"signature key", pki, fineidtest.Leaf{Purpose: fineid.Signature}, verify.CodeWrongPurpose},
		{"seal", pki, fineidtest.Leaf{KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment}, verify.CodeWrongPurpose},
		{"key agreement only", pki, fineidtest.Leaf{KeyUsage: x509.KeyUsageKeyAgreement}, verify.CodeWrongPurpose},
		{"web server", pki, fineidtest.Leaf{ExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}}}, verify.CodeWrongPurpose},
		{"expired", pki, fineidtest.Leaf{NotBefore: long, NotAfter: time.Now().Add(-time.Minute)}, verify.CodeExpired},
		{"not yet valid", pki, fineidtest.Leaf{NotBefore: time.Now().Add(time.Minute)}, verify.CodeNotYetValid},
		{"no SATU", pki, fineidtest.Leaf{SerialNumber: "99900335X"}, verify.CodeBadIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf := issue(t, c.pki, c.pki.CitizenEC, c.leaf)
			id, report, err := v.Verify(t.Context(), of(leaf.Certificate, c.pki.CitizenEC.Certificate, c.pki.Root.Certificate))
			if codeOf(err) != c.code || id.Verified() || id.Leaf != nil {
				t.Fatalf("error %v, want %q; verified %v", err, c.code, id.Verified())
			}
			checkRefusalReport(t, report, c.code)
			for _, private := range []string{leaf.Certificate.Subject.CommonName, leaf.Certificate.Subject.SerialNumber} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("the error names the holder: %v", err)
				}
			}
		})
	}
}

// checkRefusalReport: one step per check, exactly one failed, and none after it
// was asked.
func checkRefusalReport(t *testing.T, r verify.Report, code string) {
	t.Helper()
	if r.Decision != verify.Refused || r.Code != code || len(r.Steps) != 10 {
		t.Errorf("report %+v", r)
	}
	failed := false
	seen := map[string]bool{}
	for _, s := range r.Steps {
		if seen[s.Check] || s.Detail == "" {
			t.Errorf("step %+v", s)
		}
		seen[s.Check] = true
		if failed && s.Result != verify.ResultNotAsked {
			t.Errorf("after the failure: %+v", s)
		}
		failed = failed || s.Result == verify.ResultFailed
	}
	if !failed {
		t.Error("no step has failed")
	}
}

func TestNoOrBrokenCertificate(t *testing.T) {
	pki := newPKI(t)
	v := newVerifier(t, config(pki))
	for der, code := range map[string]string{
		"": verify.CodeNoCertificate, "x": verify.CodeBadCertificate,
		string(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate.Raw) + "x": verify.CodeBadCertificate,
		string(pki.CitizenEC.Certificate.Raw):                                         verify.CodeWrongPurpose,
		string(pki.Root.Certificate.Raw):                                              verify.CodeWrongPurpose,
	} {
		_, report, err := v.Verify(t.Context(), evidence.Evidence{Leaf: []byte(der)})
		if codeOf(err) != code {
			t.Errorf("%d bytes: error %v, want %q", len(der), err, code)
		}
		checkRefusalReport(t, report, code)
	}
}

// Names that a proxy says in place of a certificate verify nothing.
func TestLegacyNameIsNoCertificate(t *testing.T) {
	v := newVerifier(t, config(newPKI(t)))
	name := []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: "99912345V"}}
	id, report, err := v.Verify(t.Context(), evidence.Evidence{LegacyName: name, Source: evidence.InsecureLegacyDN})
	if codeOf(err) != verify.CodeNoCertificate || id.Verified() {
		t.Errorf("verified %v, %v", id.Verified(), err)
	}
	checkRefusalReport(t, report, verify.CodeNoCertificate)
}

// What the client sends behind its leaf may complete a chain and nothing more.
func TestHints(t *testing.T) {
	pki, foreign := newPKI(t), newPKI(t)
	c := config(pki)
	c.Issuing = nil
	v := newVerifier(t, c)
	leaf, stranger := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}), issue(t, foreign, foreign.CitizenEC, fineidtest.Leaf{})
	if _, _, err := v.Verify(t.Context(), of(leaf.Certificate)); codeOf(err) != verify.CodeUntrustedIssuer {
		t.Errorf("without the issuing CA: %v", err)
	}
	if _, _, err := v.Verify(t.Context(), of(stranger.Certificate, foreign.CitizenEC.Certificate, foreign.Root.Certificate)); codeOf(err) != verify.CodeUntrustedIssuer {
		t.Errorf("a stranger who brings his own root: %v", err)
	}
	ev := of(leaf.Certificate, pki.CitizenEC.Certificate)
	ev.Chain = append([][]byte{[]byte("nonsense")}, ev.Chain...)
	if _, _, err := v.Verify(t.Context(), ev); err != nil {
		t.Errorf("with the issuing CA as a hint: %v", err)
	}
	// A person's certificate behind another leaf is nobody's proof.
	if _, _, err := v.Verify(t.Context(), of(stranger.Certificate, leaf.Certificate, pki.CitizenEC.Certificate)); codeOf(err) != verify.CodeUntrustedIssuer {
		t.Errorf("a person's certificate as a hint: %v", err)
	}
}

func TestPoliciesAndClasses(t *testing.T) {
	pki := newPKI(t)
	citizen, worker := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}), issue(t, pki, pki.OrganisationEC, fineidtest.Leaf{})
	for name, change := range map[string]func(*verify.Config){
		"policies":                  func(c *verify.Config) { c.Policies = []string{"1.2.3.4", "1.2.246.517.99.10.352.1"} },
		"classes":                   func(c *verify.Config) { c.Classes = []fineid.Class{fineid.Citizen} },
		"an issuer without a place": func(c *verify.Config) { c.Issuers = fineid.DVV().With(citizensOnly(pki)...) },
	} {
		c := config(pki)
		change(&c)
		v := newVerifier(t, c)
		if _, _, err := v.Verify(t.Context(), of(citizen.Certificate)); err != nil {
			t.Errorf("%s: citizen: %v", name, err)
		}
		if _, _, err := v.Verify(t.Context(), of(worker.Certificate)); codeOf(err) != verify.CodePolicy {
			t.Errorf("%s: organisation: %v", name, err)
		}
	}
}

// citizensOnly are the rows of the table that place the issuers of citizens.
func citizensOnly(pki *fineidtest.PKI) []fineid.Issuer {
	return slices.DeleteFunc(pki.Issuers(), func(i fineid.Issuer) bool { return i.Class != fineid.Citizen })
}

// What strangers write into certificates is neither kept at length nor, where
// it is a person's own name, at all.
func TestReportOfStrangers(t *testing.T) {
	pki := newPKI(t)
	v := newVerifier(t, config(pki))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(1), 10000), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		Subject: pkix.Name{CommonName: "MEIKÄLÄINEN MAIJA 99912345V"},
	}
	other := self
	other.Subject.CommonName = strings.Repeat("Ä", 4000)
	for _, parent := range []*x509.Certificate{&self, &other} {
		der, err := x509.CreateCertificate(rand.Reader, &self, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		_, report, err := v.Verify(t.Context(), evidence.Evidence{Leaf: der})
		if codeOf(err) != verify.CodeUntrustedIssuer {
			t.Fatalf("error %v", err)
		}
		for _, step := range report.Steps {
			if strings.Contains(step.Detail, "99912345V") || len(step.Detail) > 600 || !utf8.ValidString(step.Detail) {
				t.Errorf("%s: %d bytes: %s", step.Check, len(step.Detail), step.Detail)
			}
		}
	}
}

// A holder of an issuer that no table knows needs a serialNumber, too: without
// one all such holders would share a key.
func TestIdentityNeedsASerialNumber(t *testing.T) {
	pki := newPKI(t)
	c := config(pki)
	c.Issuers, c.Classes = fineid.DVV(), []fineid.Class{fineid.Unknown}
	v := newVerifier(t, c)
	subject := []byte{0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, 'A'} // CN=A
	leaf := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{RawSubject: subject})
	if _, _, err := v.Verify(t.Context(), of(leaf.Certificate)); codeOf(err) != verify.CodeBadIdentity {
		t.Errorf("error %v", err)
	}
	id, _, err := v.Verify(t.Context(), of(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate))
	if err != nil || !strings.HasPrefix(id.Key, "x509-") {
		t.Errorf("key %q, error %v", id.Key, err)
	}
}

func TestRevocationIsAskedEveryTime(t *testing.T) {
	pki := newPKI(t)
	c := config(pki)
	asked := goodChecker()
	c.Revocation = asked
	v := newVerifier(t, c)
	ev := of(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate)
	for range 3 {
		if _, _, err := v.Verify(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.calls.Load(); n != 6 {
		t.Errorf("asked %d times for three requests, each about the leaf and its issuing CA", n)
	}
	down := errors.New("responder down")
	for _, c := range []struct {
		answer verify.Answer
		err    error
		code   string
	}{
		{verify.Answer{Status: verify.Revoked, Detail: "revoked"}, nil, verify.CodeRevoked},
		{verify.Answer{}, down, verify.CodeRevocationUnknown},
		{verify.Answer{}, nil, verify.CodeRevocationUnknown},
		{verify.Answer{Status: verify.NotAsked, Detail: "open: rehearsal"}, nil, ""},
	} {
		asked.answer, asked.err = c.answer, c.err
		id, report, err := v.Verify(t.Context(), ev)
		if codeOf(err) != c.code || id.Verified() != (c.code == "") || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%+v, %v: error %v, want %q", c.answer, c.err, err, c.code)
		}
		if len(report.Steps) != 10 {
			t.Errorf("report %+v", report)
		}
	}
	// A certificate whose issuer is not trusted never makes a question: its
	// URLs are a stranger's.
	before := asked.calls.Load()
	foreign := newPKI(t)
	if _, _, err := v.Verify(t.Context(), of(issue(t, foreign, foreign.CitizenEC, fineidtest.Leaf{}).Certificate)); codeOf(err) != verify.CodeUntrustedIssuer {
		t.Errorf("error %v", err)
	}
	if asked.calls.Load() != before {
		t.Error("revocation was asked about an unverified certificate")
	}
}

func TestValidityIsLookedUpEveryTime(t *testing.T) {
	pki := newPKI(t)
	var ahead atomic.Int64
	c := config(pki)
	c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	v := newVerifier(t, c)
	ev := of(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{NotAfter: time.Now().Add(time.Hour)}).Certificate)
	if _, _, err := v.Verify(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(time.Hour + time.Minute))
	if _, _, err := v.Verify(t.Context(), ev); codeOf(err) != verify.CodeExpired {
		t.Errorf("error %v", err)
	}
	// The issuing CA ends before a certificate made in its last days.
	long := of(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour)}).Certificate)
	if _, _, err := v.Verify(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(50 * 365 * 24 * time.Hour))
	if _, _, err := v.Verify(t.Context(), long); codeOf(err) != verify.CodeUntrustedIssuer {
		t.Errorf("after the CA's end: error %v", err)
	}
}

func TestReload(t *testing.T) {
	pki, foreign := newPKI(t), newPKI(t)
	v := newVerifier(t, config(pki))
	ev := of(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate)
	if _, _, err := v.Verify(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	old := v.Epoch()
	if err := v.Reload(verify.Config{Revocation: goodChecker()}); err == nil || v.Epoch() != old {
		t.Errorf("an empty configuration: error %v", err)
	}
	if _, _, err := v.Verify(t.Context(), ev); err != nil {
		t.Errorf("after a failed reload: %v", err)
	}
	if err := v.Reload(config(foreign)); err != nil || v.Epoch() == old {
		t.Fatalf("error %v, epoch %s", err, v.Epoch())
	}
	if _, _, err := v.Verify(t.Context(), ev); codeOf(err) != verify.CodeUntrustedIssuer {
		t.Errorf("a verdict has outlived its trust: %v", err)
	}
}

func TestEpochIsOfContent(t *testing.T) {
	pki := newPKI(t)
	base := newVerifier(t, config(pki)).Epoch()
	shuffled := config(pki)
	shuffled.Roots[0], shuffled.Roots[1] = shuffled.Roots[1], shuffled.Roots[0]
	if newVerifier(t, shuffled).Epoch() != base {
		t.Error("the order of the files changes the epoch")
	}
	for name, change := range map[string]func(*verify.Config){
		"fewer roots":   func(c *verify.Config) { c.Roots = c.Roots[:1] },
		"fewer issuing": func(c *verify.Config) { c.Issuing = c.Issuing[:1] },
		"policies":      func(c *verify.Config) { c.Policies = []string{"1.2.3"} },
		"classes":       func(c *verify.Config) { c.Classes = []fineid.Class{fineid.Citizen} },
	} {
		c := config(pki)
		change(&c)
		if newVerifier(t, c).Epoch() == base {
			t.Errorf("%s: the same epoch", name)
		}
	}
}

func TestConfig(t *testing.T) {
	pki := newPKI(t)
	leaf := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	for name, c := range map[string]struct {
		change func(*verify.Config)
		want   string
	}{
		"no anchors":       {func(c *verify.Config) { c.Roots = nil }, "no trust anchors"},
		"pins of no CA":    {func(c *verify.Config) { c.Roots, c.Pins = nil, true }, "no trust anchors"},
		"a leaf as root":   {func(c *verify.Config) { c.Roots = append(c.Roots, leaf) }, "not a CA certificate"},
		"a leaf as issuer": {func(c *verify.Config) { c.Issuing = append(c.Issuing, leaf) }, "not a CA certificate"},
		"nil root":         {func(c *verify.Config) { c.Roots = append(c.Roots, nil) }, "is missing"},
		"signature":        {func(c *verify.Config) { c.Purpose = fineid.Signature }, "cannot be used to log in"},
		"policy":           {func(c *verify.Config) { c.Policies = []string{"citizen"} }, "not an object identifier"},
		"no revocation":    {func(c *verify.Config) { c.Revocation = nil }, "no revocation checker"},
	} {
		config := config(pki)
		c.change(&config)
		if _, err := verify.New(config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	if _, err := verify.InsecureSkipRevocation(""); err == nil {
		t.Error("revocation is skipped without a reason")
	}
}

func TestIssuingCAAsAnchor(t *testing.T) {
	pki := newPKI(t)
	leaf := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	for _, c := range []struct {
		name   string
		roots  []*x509.Certificate
		length int
		result verify.Result
		want   string
	}{
		{"issuing CA alone", []*x509.Certificate{pki.CitizenEC.Certificate}, 2, verify.ResultNotAsked, "the anchor is an issuing CA"},
		{"and its root", []*x509.Certificate{pki.CitizenEC.Certificate, pki.Root.Certificate}, 3, verify.ResultOK, "asked"},
	} {
		config := config(pki)
		config.Roots = c.roots
		id, report, err := newVerifier(t, config).Verify(t.Context(), of(leaf))
		if err != nil {
			t.Fatal(err)
		}
		last := report.Steps[len(report.Steps)-1]
		if len(id.Chain) != c.length || last.Check != verify.CheckIssuerRevocation || last.Result != c.result || !strings.HasPrefix(last.Detail, c.want) {
			t.Errorf("%s: chain of %d, step %+v", c.name, len(id.Chain), last)
		}
	}
}

// What the root says of the issuing CA decides as what the CA says of the leaf.
func TestIssuingCARevocation(t *testing.T) {
	pki := newPKI(t)
	ev := of(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate)
	soon := time.Now().Add(time.Minute)
	for _, test := range []struct {
		answer verify.Answer
		err    error
		code   string
		result verify.Result
	}{
		{verify.Answer{Status: verify.Good, Until: soon, Detail: "list"}, nil, "", verify.ResultOK},
		{verify.Answer{Status: verify.NotAsked, Detail: "names none"}, nil, "", verify.ResultNotAsked},
		{verify.Answer{Status: verify.Revoked, Detail: "withdrawn"}, nil, verify.CodeRevoked, verify.ResultFailed},
		{verify.Answer{}, errors.New("no list"), verify.CodeRevocationUnknown, verify.ResultFailed},
		{verify.Answer{}, nil, verify.CodeRevocationUnknown, verify.ResultFailed},
	} {
		c := config(pki)
		checker := goodChecker()
		checker.ca, checker.caErr = &test.answer, test.err
		c.Revocation = checker
		id, report, err := newVerifier(t, c).Verify(t.Context(), ev)
		last := report.Steps[len(report.Steps)-1]
		if codeOf(err) != test.code || id.Verified() != (test.code == "") || last.Check != verify.CheckIssuerRevocation || last.Result != test.result {
			t.Errorf("%+v: %v, step %+v", test.answer, err, last)
		}
		if test.answer.Status == verify.Good && !report.RevocationUntil.Equal(soon) {
			t.Errorf("until %v, want the earlier one of both answers", report.RevocationUntil)
		}
	}
}

func TestIdentityCannotBeMade(t *testing.T) {
	if (verify.Identity{Key: "dvv-citizen/999003351"}).Verified() {
		t.Error("an Identity that Verify has not made says that it is verified")
	}
}

func TestTextsInThreeLanguages(t *testing.T) {
	general := verify.Text("no such code", "en")
	for _, code := range []string{
		verify.CodeNoCertificate, verify.CodeBadCertificate, verify.CodeNotYetValid, verify.CodeExpired, verify.CodeWrongPurpose, verify.CodeUntrustedIssuer,
		verify.CodeWeakKey, verify.CodePolicy, verify.CodeBadIdentity, verify.CodeRevoked, verify.CodeRevocationUnknown,
	} {
		fi, sv, en := verify.Text(code, "fi"), verify.Text(code, "sv"), verify.Text(code, "en")
		if fi == "" || sv == "" || en == "" || en == general || fi == en || sv == en || fi == sv {
			t.Errorf("%s: %q, %q, %q", code, fi, sv, en)
		}
		if verify.Text(code, "de") != en {
			t.Errorf("%s: another language gets %q", code, verify.Text(code, "de"))
		}
	}
}
