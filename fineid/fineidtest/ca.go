package fineidtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"github.com/kortti-id/kortti/fineid"
)

// organization is the O of all test CAs.
const organization = "Kortti TEST CA"

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// CA is a certification authority of the test PKI with its OCSP responder.
type CA struct {
	// Name is its short name, as in URLs: "citizen-ec".
	Name string
	// Certificate is the CA's certificate, Key its key.
	Certificate *x509.Certificate
	Key         crypto.Signer
	// Parent issued the certificate; nil for a root.
	Parent *CA

	profile      profile
	responder    *x509.Certificate
	responderKey crypto.Signer
}

// profile is what distinguishes the CAs from each other.
type profile struct {
	cn    string
	units []string
	rsa   bool
	// policy stands in the CA's certificate, leafPolicy in those it issues.
	policy, leafPolicy string
	class              fineid.Class
	family             string
}

// rootUnits: the real roots have two OUs in their subject, which breaks
// programs that compare names as maps.
var rootUnits = []string{"Certification Authority Services", "Varmennepalvelut"}

var (
	rootEC     = profile{cn: "Kortti TEST Root CA - G1 ECC", units: rootUnits}
	rootRSA    = profile{cn: "Kortti TEST Root CA - G1 RSA", units: rootUnits, rsa: true}
	webEC      = profile{cn: "Kortti TEST Web CA", units: rootUnits[:1]}
	citizenEC  = profile{cn: "Kortti TEST Citizen Certificates - G1E", units: []string{"Testikansalaisvarmenteet"}, policy: "1.2.246.517.99.10.351.1", leafPolicy: "1.2.246.517.99.10.352.1", class: fineid.Citizen, family: "kortti-test-citizen"}
	citizenRSA = profile{cn: "Kortti TEST Citizen Certificates - G1R", units: []string{"Testikansalaisvarmenteet"}, rsa: true, policy: "1.2.246.517.99.10.301.1", leafPolicy: "1.2.246.517.99.10.32.1", class: fineid.Citizen, family: "kortti-test-citizen"}
	// The leaf policy of real organisation cards is not known.
	organisationEC = profile{cn: "Kortti TEST Organisational Certificates - G1E", units: []string{"Testiorganisaatiovarmenteet"}, policy: "1.2.246.517.99.10.351.2", leafPolicy: "1.2.246.517.99.10.352.2", class: fineid.Organisation, family: "kortti-test-organisation"}
)

// name gives the CA's subject: C as PrintableString, the rest UTF8String.
func (p profile) name() ([]byte, error) {
	attributes := []attribute{
		printable(oidCountry, "FI"),
		utf8String(oidOrganization, organization),
	}
	for _, unit := range p.units {
		attributes = append(attributes, utf8String(oidOrganizationalUnit, unit))
	}
	return encodeName(append(attributes, utf8String(oidCommonName, p.cn)))
}

func (ca *CA) makeKeys() error {
	var err error
	if ca.Key, err = makeKey(ca.profile.rsa); err != nil {
		return err
	}
	ca.responderKey, err = makeKey(false)
	return err
}

// makeKey makes a P-384 key, or one of RSA with 2048 bits.
func makeKey(useRSA bool) (crypto.Signer, error) {
	if useRSA {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
}

// certifyCA makes the certificates of a CA and of its responder from the keys
// that it has.
func (p *PKI) certifyCA(ca *CA) error {
	subject, err := ca.profile.name()
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(ca.Key.Public())
	if err != nil {
		return err
	}
	issuer, issuerName := ca, subject
	if ca.Parent != nil {
		issuer, issuerName = ca.Parent, ca.Parent.Certificate.RawSubject
	}
	t := tbs{
		serial: newSerial(16), issuer: issuerName, subject: subject, publicKey: spki,
		notBefore: p.now().Add(-year), notAfter: p.now().Add(15 * year),
	}
	t.extensions, err = p.caExtensions(ca, spki)
	if err != nil {
		return err
	}
	if ca.Certificate, err = t.sign(issuer.Key); err != nil {
		return err
	}
	if ca.Parent != nil {
		if err := p.ledger.add(entry{CA: ca.Parent.Name, Serial: t.serial.Text(16)}); err != nil {
			return err
		}
	}
	ca.responder, err = p.certifyResponder(ca, ca.responderKey.Public(), p.now().Add(-day), p.now().Add(year))
	return err
}

// caExtensions has the order of the real certificates.
func (p *PKI) caExtensions(ca *CA, spki []byte) ([]pkix.Extension, error) {
	id, err := keyID(spki)
	if err != nil {
		return nil, err
	}
	usage := keyUsage(x509.KeyUsageCertSign | x509.KeyUsageCRLSign)
	if ca.Parent == nil {
		return []pkix.Extension{subjectKeyID(id), usage, basicConstraintsRoot}, nil
	}
	policies, err := certificatePolicies([]string{ca.profile.policy})
	if err != nil {
		return nil, err
	}
	extensions := []pkix.Extension{
		authorityKeyID(ca.Parent.Certificate.SubjectKeyId), subjectKeyID(id), usage, policies, basicConstraintsIssuing,
	}
	if p.baseURL != "" {
		extensions = append(extensions, crlDistribution(p.crlURL(ca.Parent)),
			authorityInfo(p.caURL(ca.Parent), p.ocspURL(ca.Parent)))
	}
	return extensions, nil
}

// certifyResponder makes a delegated OCSP responder's certificate
// (RFC 6960 4.2.2.2, with id-pkix-ocsp-nocheck).
func (p *PKI) certifyResponder(ca *CA, key crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	subject, err := encodeName([]attribute{
		printable(oidCountry, "FI"),
		utf8String(oidOrganization, organization),
		utf8String(oidCommonName, "Kortti TEST OCSP Responder "+ca.Name),
	})
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	id, err := keyID(spki)
	if err != nil {
		return nil, err
	}
	return tbs{
		serial: newSerial(8), issuer: ca.Certificate.RawSubject, subject: subject, publicKey: spki,
		notBefore: notBefore, notAfter: notAfter,
		extensions: []pkix.Extension{
			authorityKeyID(ca.Certificate.SubjectKeyId), subjectKeyID(id),
			keyUsage(x509.KeyUsageDigitalSignature),
			extKeyUsage([]asn1.ObjectIdentifier{oidOCSPSigning}),
			{Id: oidOCSPNoCheck, Value: asn1.NullBytes},
			basicConstraintsLeaf,
		},
	}.sign(ca.Key)
}

func (p *PKI) ocspURL(ca *CA) string { return p.baseURL + "/ocsp/" + ca.Name }
func (p *PKI) crlURL(ca *CA) string  { return p.baseURL + "/crl/" + ca.Name + ".crl" }
func (p *PKI) caURL(ca *CA) string   { return p.baseURL + "/ca/" + ca.Name + ".crt" }

// newSerial makes a random positive certificate serial number of the given
// length in bytes; DVV's holders' certificates have four.
func newSerial(length int) *big.Int {
	raw := make([]byte, length)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	raw[0] = raw[0]&0x7f | 0x01
	return new(big.Int).SetBytes(raw)
}
