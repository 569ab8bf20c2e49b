package card

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// PKCS#11 mechanisms that decide what a key can do in TLS (PKCS#11 mechanisms
// §2.1, §2.3).
const (
	mechanismRSAPKCS = 0x1    // CKM_RSA_PKCS
	mechanismRSARaw  = 0x3    // CKM_RSA_X_509
	mechanismRSAPSS  = 0xD    // CKM_RSA_PKCS_PSS
	mechanismECDSA   = 0x1041 // CKM_ECDSA
)

// minRSABits is the shortest RSA key that TLS servers still take.
const minRSABits = 2048

// readCertificates turns a token's certificate objects into its end-entity
// certificates. What cannot be parsed is left out. Private keys are invisible
// before login, so what a key can do comes from the public key and the token's
// mechanisms.
func readCertificates(objects []wire.Certificate, mechanisms []uint, now time.Time) []Certificate {
	var leaves []Certificate
	var authorities []*x509.Certificate
	for _, o := range objects {
		parsed, err := x509.ParseCertificate(o.DER)
		switch {
		case err != nil:
		case parsed.IsCA:
			authorities = append(authorities, parsed)
		case !slices.ContainsFunc(leaves, func(c Certificate) bool { return bytes.Equal(c.DER, o.DER) }):
			leaves = append(leaves, Certificate{Fingerprint: FingerprintOf(o.DER), DER: o.DER, X509: parsed, KeyID: o.ID})
		}
	}
	for i := range leaves {
		leaves[i].Chain = chain(leaves[i].X509, authorities)
		leaves[i].describe(mechanisms, now)
	}
	return leaves
}

// chain returns leaf's issuer, the issuer's issuer and so on, as far as they
// are among authorities.
func chain(leaf *x509.Certificate, authorities []*x509.Certificate) []*x509.Certificate {
	var issuers []*x509.Certificate
	for at := leaf; len(issuers) < len(authorities); {
		i := slices.IndexFunc(authorities, func(ca *x509.Certificate) bool {
			return !slices.Contains(issuers, ca) && bytes.Equal(ca.RawSubject, at.RawIssuer) && at.CheckSignatureFrom(ca) == nil
		})
		if i < 0 {
			break
		}
		at = authorities[i]
		issuers = append(issuers, at)
	}
	return issuers
}

// describe fills in what the key can do and whether it is for login.
func (c *Certificate) describe(mechanisms []uint, now time.Time) {
	c.KeyType, c.Schemes, c.MaxVersion = keyCapability(c.X509.PublicKey, mechanisms)
	usage := c.X509.KeyUsage
	switch {
	case usage&x509.KeyUsageContentCommitment != 0:
		c.WhyNot = "signature key (nonRepudiation)"
	case usage&x509.KeyUsageDigitalSignature == 0:
		c.WhyNot = "not for authentication (no digitalSignature)"
	case now.After(c.X509.NotAfter):
		c.WhyNot = "expired"
	case now.Before(c.X509.NotBefore):
		c.WhyNot = "not valid yet"
	case c.MaxVersion == 0:
		c.WhyNot = "key type not supported (" + c.KeyType + ")"
	case len(c.Schemes) == 0:
		c.WhyNot = "the card or its module cannot sign with this key (no mechanism)"
	}
	c.Login = c.WhyNot == ""
}

// keyCapability names the key and says which signatures it can make for TLS,
// best first, and up to which version of TLS; version 0 is a type of key that
// is not used here.
func keyCapability(public any, mechanisms []uint) (name string, schemes []tls.SignatureScheme, version uint16) {
	has := func(m uint) bool { return slices.Contains(mechanisms, m) }
	switch key := public.(type) {
	case *rsa.PublicKey:
		name = fmt.Sprintf("RSA-%d", key.N.BitLen())
		if key.N.BitLen() < minRSABits {
			return name, nil, 0
		}
		version = tls.VersionTLS12
		if has(mechanismRSAPSS) || has(mechanismRSARaw) { // padded here where the token has raw RSA only
			version = tls.VersionTLS13
			schemes = append(schemes, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512)
		}
		if has(mechanismRSAPKCS) {
			schemes = append(schemes, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512)
		}
		return name, schemes, version
	case *ecdsa.PublicKey:
		name = key.Curve.Params().Name
		scheme, ok := curveSchemes[name]
		if !ok {
			return name, nil, 0
		}
		if has(mechanismECDSA) {
			schemes = []tls.SignatureScheme{scheme}
		}
		return name, schemes, tls.VersionTLS13
	case ed25519.PublicKey:
		return "Ed25519", nil, 0
	}
	return fmt.Sprintf("%T", public), nil, 0
}

// curveSchemes ties a curve to its hash in TLS 1.2 as well: some modules refuse
// a SHA-256 digest for P-384 (CKR_DATA_LEN_RANGE).
var curveSchemes = map[string]tls.SignatureScheme{
	"P-256": tls.ECDSAWithP256AndSHA256,
	"P-384": tls.ECDSAWithP384AndSHA384,
}
