package fineidtest

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/fineid"
)

// Leaf describes a holder's certificate. The zero value gives an
// authentication certificate of an invented person, valid for five years less
// a day, in the shape of the issuing CA's real model.
type Leaf struct {
	// PublicKey is the key to certify, for instance one on a card; nil makes
	// a key: RSA-2048 below an RSA CA, else P-384.
	PublicKey crypto.PublicKey
	// GivenName and Surname are written as given; real cards have capitals.
	GivenName, Surname string
	// SerialNumber is the subject's serialNumber: by default a SATU in the
	// 999 range for citizens, else eleven digits.
	SerialNumber string
	// CommonName is by default "SURNAME GIVEN SERIAL".
	CommonName string
	// Organization, Units, Title and Pseudonym are left out when empty.
	Organization     string
	Units            []string
	Title, Pseudonym string
	// Email and UPN go into the subjectAltName.
	Email, UPN string
	// CriticalSAN marks the subjectAltName critical.
	CriticalSAN bool
	// Purpose is Authentication (also when zero) or Signature.
	Purpose fineid.Purpose
	// KeyUsage overrides what follows from Purpose and key.
	KeyUsage x509.KeyUsage
	// ExtKeyUsage is absent by default, as on real cards.
	ExtKeyUsage []asn1.ObjectIdentifier
	// Policies overrides the CA's leaf policy (dotted OIDs).
	Policies []string
	// NotBefore and NotAfter are by default yesterday and five years later.
	NotBefore, NotAfter time.Time
	// NoAIA and NoCRL leave the addresses of the services out.
	NoAIA, NoCRL bool
	// RawSubject is the subject's DER and overrides all name fields.
	RawSubject []byte
	// ExtraExtensions are appended.
	ExtraExtensions []pkix.Extension
}

// Issued is a holder's certificate and, where it was made here, its key.
type Issued struct {
	Certificate *x509.Certificate
	// Key is nil where the Leaf named a PublicKey.
	Key crypto.Signer
	CA  *CA
}

// SATU gives the invented SATU 999nnnnn, with its check character; n is taken
// modulo 100,000.
func SATU(n int) fineid.SATU {
	digits := fmt.Sprintf("999%05d", ((n%100000)+100000)%100000)
	for _, check := range "0123456789ABCDEFHJKLMNPRSTUVWXY" {
		if satu, err := fineid.ParseSATU(digits + string(check)); err == nil {
			return satu
		}
	}
	return fineid.SATU{}
}

// Issue makes a certificate below one of the PKI's issuing CAs and records it,
// so that the OCSP responder knows it.
func (p *PKI) Issue(ca *CA, leaf Leaf) (*Issued, error) {
	if ca == nil || !slices.Contains(p.issuing(), ca) {
		return nil, errors.New("issue test certificate: not an issuing CA of this test PKI")
	}
	issued, err := p.issue(ca, leaf)
	if err != nil {
		return nil, fmt.Errorf("issue test certificate: %w", err)
	}
	return issued, nil
}

func (p *PKI) issue(ca *CA, leaf Leaf) (*Issued, error) {
	issued := &Issued{CA: ca}
	public := leaf.PublicKey
	if public == nil {
		key, err := makeKey(ca.profile.rsa)
		if err != nil {
			return nil, err
		}
		issued.Key, public = key, key.Public()
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	subject := leaf.RawSubject
	if subject == nil {
		if subject, err = leaf.subject(ca); err != nil {
			return nil, err
		}
	}
	t := tbs{
		serial: newSerial(4), issuer: ca.Certificate.RawSubject, subject: subject, publicKey: spki,
		notBefore: leaf.NotBefore, notAfter: leaf.NotAfter, ecdsaNull: true,
	}
	if t.notBefore.IsZero() {
		t.notBefore = p.now().Add(-day)
	}
	if t.notAfter.IsZero() {
		t.notAfter = t.notBefore.Add(5*year - day)
	}
	if t.extensions, err = p.leafExtensions(ca, leaf, public, spki); err != nil {
		return nil, err
	}
	if issued.Certificate, err = t.sign(ca.Key); err != nil {
		return nil, err
	}
	return issued, p.ledger.add(entry{CA: ca.Name, Serial: t.serial.Text(16)})
}

// subject has the order of real cards: C, serialNumber, givenName, surname,
// commonName. Cards of RSA CAs use PrintableString wherever it is possible,
// those of P-384 CAs UTF8String except for C and serialNumber.
func (leaf Leaf) subject(ca *CA) ([]byte, error) {
	given, surname, serial := leaf.GivenName, leaf.Surname, leaf.SerialNumber
	if given == "" {
		given = "LIISA-MAIJA ÅKE"
	}
	if surname == "" {
		surname = "SPECIMEN-MÄKELÄ"
	}
	if serial == "" {
		n, err := rand.Int(rand.Reader, big.NewInt(100_000))
		if err != nil {
			return nil, err
		}
		serial = fmt.Sprintf("999%08d", n)
		if ca.profile.class == fineid.Citizen {
			serial = SATU(int(n.Int64())).String()
		}
	}
	cn := leaf.CommonName
	if cn == "" {
		cn = surname + " " + given + " " + serial
	}
	name := utf8String
	if ca.profile.rsa {
		name = printableIfPossible
	}
	attributes := []attribute{printable(oidCountry, "FI")}
	if leaf.Organization != "" {
		attributes = append(attributes, name(oidOrganization, leaf.Organization))
	}
	for _, unit := range leaf.Units {
		attributes = append(attributes, name(oidOrganizationalUnit, unit))
	}
	attributes = append(attributes, printable(oidSerialNumber, serial),
		name(oidGivenName, given), name(oidSurname, surname))
	if leaf.Title != "" {
		attributes = append(attributes, name(oidTitle, leaf.Title))
	}
	if leaf.Pseudonym != "" {
		attributes = append(attributes, name(oidPseudonym, leaf.Pseudonym))
	}
	return encodeName(append(attributes, name(oidCommonName, cn)))
}

func printableIfPossible(oid asn1.ObjectIdentifier, value string) attribute {
	for _, r := range value {
		if !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune(" '()+,-./:=?", r)) {
			return utf8String(oid, value)
		}
	}
	return printable(oid, value)
}

// leafExtensions has the order of the real certificates.
func (p *PKI) leafExtensions(ca *CA, leaf Leaf, public crypto.PublicKey, spki []byte) ([]pkix.Extension, error) {
	id, err := keyID(spki)
	if err != nil {
		return nil, err
	}
	usage := leaf.KeyUsage
	if usage == 0 {
		usage = usageFor(leaf.Purpose, public)
	}
	policies := leaf.Policies
	if policies == nil {
		policies = []string{ca.profile.leafPolicy}
	}
	policyExtension, err := certificatePolicies(policies)
	if err != nil {
		return nil, err
	}
	extensions := []pkix.Extension{
		authorityKeyID(ca.Certificate.SubjectKeyId), subjectKeyID(id), keyUsage(usage), policyExtension,
	}
	if len(leaf.ExtKeyUsage) > 0 {
		extensions = append(extensions, extKeyUsage(leaf.ExtKeyUsage))
	}
	if leaf.Email != "" || leaf.UPN != "" {
		extensions = append(extensions, alternativeNames(leaf.Email, leaf.UPN, leaf.CriticalSAN))
	}
	extensions = append(extensions, basicConstraintsLeaf)
	if p.baseURL != "" && !leaf.NoCRL {
		extensions = append(extensions, crlDistribution(p.crlURL(ca)))
	}
	if p.baseURL != "" && !leaf.NoAIA {
		extensions = append(extensions, authorityInfo(p.caURL(ca), p.ocspURL(ca)))
	}
	if leaf.Purpose == fineid.Signature {
		extensions = append(extensions, qcStatements())
	}
	return append(extensions, leaf.ExtraExtensions...), nil
}

// usageFor gives the keyUsage of real cards.
func usageFor(purpose fineid.Purpose, public crypto.PublicKey) x509.KeyUsage {
	if purpose == fineid.Signature {
		return x509.KeyUsageContentCommitment
	}
	if isRSA(public) {
		return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	}
	return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
}

// TLS gives the certificate followed by its issuing CA's, with the key. Real
// middleware often sends the leaf alone: cut Certificate to its first element
// for that.
func (i *Issued) TLS() tls.Certificate {
	return tls.Certificate{
		Certificate: [][]byte{i.Certificate.Raw, i.CA.Certificate.Raw},
		PrivateKey:  i.Key,
		Leaf:        i.Certificate,
	}
}

// PEM gives the certificate alone.
func (i *Issued) PEM() []byte { return certificatePEM(i.Certificate) }

// ChainPEM gives the certificate followed by its issuing CA's.
func (i *Issued) ChainPEM() []byte { return append(i.PEM(), certificatePEM(i.CA.Certificate)...) }

// KeyPEM gives the key as PKCS#8.
func (i *Issued) KeyPEM() ([]byte, error) { return keyPEM(i.Key) }

func keyPEM(key crypto.Signer) ([]byte, error) {
	if key == nil {
		return nil, errors.New("write key: there is none, the certificate was made for a given public key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
