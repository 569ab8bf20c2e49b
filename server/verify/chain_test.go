package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// Of the issuing CAs only those that are pinned become anchors, and only if
// that is asked for. The published CAs are not at hand in a test, so it pins
// one of its own.
func TestPinnedIssuingCA(t *testing.T) {
	pki, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	issuing := []*x509.Certificate{pki.CitizenEC.Certificate, pki.OrganisationEC.Certificate}
	citizen := func(c *x509.Certificate) bool { return c.Equal(pki.CitizenEC.Certificate) }
	if _, err := newAnchors(nil, issuing, func(*x509.Certificate) bool { return false }); err == nil {
		t.Error("unpinned issuing CAs are anchors")
	}
	a, err := newAnchors(nil, issuing, citizen)
	if err != nil {
		t.Fatal(err)
	}
	for ca, accepted := range map[*fineidtest.CA]bool{pki.CitizenEC: true, pki.OrganisationEC: false} {
		leaf, err := pki.Issue(ca, fineidtest.Leaf{})
		if err != nil {
			t.Fatal(err)
		}
		r := newRun(&state{anchors: a, now: time.Now})
		chain, err := r.checkChain(leaf.Certificate, nil)
		if (err == nil) != accepted || accepted && len(chain) != 2 {
			t.Errorf("%s: chain of %d, error %v", ca.Name, len(chain), err)
		}
	}
	if pins(true)(pki.CitizenEC.Certificate) {
		t.Error("a test CA is pinned")
	}
}

// selfSigned makes a CA certificate with the given key.
func selfSigned(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weak"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWeakKeys(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sound, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := selfSigned(t, sound)
	sha1 := *good
	sha1.SignatureAlgorithm = x509.ECDSAWithSHA1
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		want  string
	}{
		{"sound", []*x509.Certificate{good, good}, ""},
		{"RSA-1024 leaf", []*x509.Certificate{selfSigned(t, short), good}, "1024 bits"},
		{"RSA-1024 anchor", []*x509.Certificate{good, selfSigned(t, short)}, "1024 bits"},
		{"P-224", []*x509.Certificate{selfSigned(t, curve), good}, "224 bits"},
		{"SHA-1", []*x509.Certificate{&sha1, good}, "ECDSA-SHA1"},
		{"SHA-1 on the anchor itself", []*x509.Certificate{good, &sha1}, ""},
		{"no known key", []*x509.Certificate{{}, good}, "unknown kind"},
	} {
		if err := strong(c.chain); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// certify makes a certificate below a CA.
func certify(t *testing.T, template, parent *x509.Certificate, key crypto.Signer, by crypto.Signer) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(2), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A root may have issuing CAs for other uses than logging in, and one that
// signs by itself is still no person.
func TestCertificatesForOtherUses(t *testing.T) {
	pki, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		use      x509.ExtKeyUsage
		accepted bool
	}{{x509.ExtKeyUsageServerAuth, false}, {x509.ExtKeyUsageClientAuth, true}} {
		issuing := certify(t, &x509.Certificate{
			Subject: pkix.Name{CommonName: "issuing"}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{c.use},
		}, pki.Root.Certificate, key, pki.Root.Key)
		leaf := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, KeyUsage: x509.KeyUsageDigitalSignature}, issuing, key, key)
		a, err := newAnchors([]*x509.Certificate{pki.Root.Certificate}, nil, pins(false))
		if err != nil {
			t.Fatal(err)
		}
		r := newRun(&state{anchors: a, now: time.Now})
		if _, err := r.checkChain(leaf, [][]byte{issuing.Raw}); (err == nil) != c.accepted {
			t.Errorf("below a CA for use %v: %v", c.use, err)
		}
		if err := r.checkUsage(issuing); err == nil {
			t.Error("a CA that may sign is taken for a person")
		}
	}
}

// Whoever runs another trusted root cannot take the name of DVV's issuing CA.
func TestImpostorOfAPublishedCA(t *testing.T) {
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAnchors([]*x509.Certificate{pki.Root.Certificate}, nil, pins(false))
	if err != nil {
		t.Fatal(err)
	}
	for name, accepted := range map[string]bool{"DVV Citizen Certificates - G4E": false, "DVV Citizen Certificates - G99": true} {
		issuing := certify(t, &x509.Certificate{
			Subject: pkix.Name{CommonName: name, Organization: []string{"Digi- ja vaestotietovirasto CA"}},
			IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}, pki.Root.Certificate, key, pki.Root.Key)
		leaf := certify(t, &x509.Certificate{Subject: pkix.Name{SerialNumber: "99912345V"}, KeyUsage: x509.KeyUsageDigitalSignature}, issuing, key, key)
		r := newRun(&state{anchors: a, now: time.Now})
		if _, err := r.checkChain(leaf, [][]byte{issuing.Raw}); (err == nil) != accepted {
			t.Errorf("below %s: %v", name, err)
		}
	}
}
