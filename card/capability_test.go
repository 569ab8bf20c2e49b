package card

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// makeCert makes a certificate for public, issued by parent (itself if nil).
func makeCert(t *testing.T, template *x509.Certificate, public crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert
}

func newKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	check(t, err)
	return key
}

func TestWhichCertificatesAreForLogin(t *testing.T) {
	ec, ca := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	now := time.Now()
	all := []uint{mechanismRSAPKCS, mechanismRSAPSS, mechanismECDSA}
	auth := x509.KeyUsageDigitalSignature
	for name, test := range map[string]struct {
		template   x509.Certificate
		public     crypto.PublicKey
		mechanisms []uint
		why        string
	}{
		"P-384":              {x509.Certificate{KeyUsage: auth | x509.KeyUsageKeyAgreement}, ec.Public(), all, ""},
		"signature":          {x509.Certificate{KeyUsage: x509.KeyUsageContentCommitment}, ec.Public(), all, "nonRepudiation"},
		"both usages":        {x509.Certificate{KeyUsage: auth | x509.KeyUsageContentCommitment}, ec.Public(), all, "nonRepudiation"},
		"no usage":           {x509.Certificate{}, ec.Public(), all, "digitalSignature"},
		"expired":            {x509.Certificate{KeyUsage: auth, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, ec.Public(), all, "expired"},
		"not yet":            {x509.Certificate{KeyUsage: auth, NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}, ec.Public(), all, "not valid yet"},
		"RSA-1024":           {x509.Certificate{KeyUsage: auth}, short.Public(), all, "RSA-1024"},
		"P-521":              {x509.Certificate{KeyUsage: auth}, newKey(t, elliptic.P521()).Public(), all, "P-521"},
		"no ECDSA mechanism": {x509.Certificate{KeyUsage: auth}, ec.Public(), []uint{mechanismRSAPKCS}, "no mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := makeCert(t, &test.template, test.public, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}}, ca)
			got := readCertificates([]wire.Certificate{{DER: cert.Raw}, {DER: cert.Raw}, {DER: []byte("broken")}}, test.mechanisms, now)
			if len(got) != 1 {
				t.Fatalf("%d certificates, want 1", len(got))
			}
			if got[0].Login != (test.why == "") || !strings.Contains(got[0].WhyNot, test.why) {
				t.Errorf("login %v, why not %q; want %q", got[0].Login, got[0].WhyNot, test.why)
			}
		})
	}
}

func TestSchemesFollowTheMechanisms(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	pss := []tls.SignatureScheme{tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512}
	pkcs1 := []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}
	p256, p384 := newKey(t, elliptic.P256()), newKey(t, elliptic.P384())
	for name, test := range map[string]struct {
		public     crypto.PublicKey
		mechanisms []uint
		schemes    []tls.SignatureScheme
		version    uint16
	}{
		"RSA all":      {key.Public(), []uint{mechanismRSAPKCS, mechanismRSAPSS}, slices.Concat(pss, pkcs1), tls.VersionTLS13},
		"RSA raw":      {key.Public(), []uint{mechanismRSARaw}, pss, tls.VersionTLS13},
		"RSA PKCS1":    {key.Public(), []uint{mechanismRSAPKCS}, pkcs1, tls.VersionTLS12},
		"RSA nothing":  {key.Public(), []uint{mechanismECDSA}, nil, tls.VersionTLS12},
		"P-256":        {p256.Public(), []uint{mechanismECDSA}, []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, tls.VersionTLS13},
		"P-384":        {p384.Public(), []uint{mechanismECDSA}, []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}, tls.VersionTLS13},
		"another kind": {"key", []uint{mechanismECDSA}, nil, 0},
	} {
		if _, schemes, version := keyCapability(test.public, test.mechanisms); !slices.Equal(schemes, test.schemes) || version != test.version {
			t.Errorf("%s: %v up to %x, want %v up to %x", name, schemes, version, test.schemes, test.version)
		}
	}
}

func TestChainIsFoundAmongTheTokensAuthorities(t *testing.T) {
	rootKey, issuingKey, leafKey := newKey(t, elliptic.P384()), newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	root := makeCert(t, authority("root"), rootKey.Public(), nil, rootKey)
	issuing := makeCert(t, authority("issuing"), issuingKey.Public(), root, rootKey)
	impostor := makeCert(t, authority("issuing"), leafKey.Public(), nil, leafKey) // same name, other key
	leaf := makeCert(t, &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature}, leafKey.Public(), issuing, issuingKey)
	got := readCertificates([]wire.Certificate{{DER: impostor.Raw}, {DER: root.Raw}, {DER: leaf.Raw}, {DER: issuing.Raw}},
		[]uint{mechanismECDSA}, time.Now())
	if len(got) != 1 || len(got[0].Chain) != 2 || !got[0].Chain[0].Equal(issuing) || !got[0].Chain[1].Equal(root) {
		t.Fatalf("certificates = %+v", got)
	}
}
