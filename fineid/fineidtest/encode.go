package fineidtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"math/bits"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// x509.CreateCertificate cannot make the shapes of real cards (the NULL in an
// ECDSA AlgorithmIdentifier, the order of extensions, the string types), so
// certificates are encoded here.

var (
	oidCommonName         = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSurname            = asn1.ObjectIdentifier{2, 5, 4, 4}
	oidSerialNumber       = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidCountry            = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidOrganization       = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOrganizationalUnit = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidTitle              = asn1.ObjectIdentifier{2, 5, 4, 12}
	oidGivenName          = asn1.ObjectIdentifier{2, 5, 4, 42}
	oidPseudonym          = asn1.ObjectIdentifier{2, 5, 4, 65}

	oidSubjectKeyID      = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage          = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName    = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints  = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLDistribution   = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidPolicies          = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidAuthorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidAuthorityInfo     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidQCStatements      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}
	oidPolicyCPS         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 1}
	oidPolicyNotice      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 2}
	oidOCSPSigning       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
	oidAccessOCSP        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidOCSPBasic         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidOCSPNonce         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidOCSPNoCheck       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidAccessCAIssuers   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
	oidUPN               = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	oidSHA256WithRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidECDSAWithSHA384   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidQCCompliance      = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 1}
	oidQCSSCD            = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 4}
	oidQCType            = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 6}
	oidQCTypeESignature  = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 6, 1}
	tagVisibleString     = cryptobyte_asn1.Tag(26)
	tagURI               = cryptobyte_asn1.Tag(6).ContextSpecific()
	tagRFC822Name        = cryptobyte_asn1.Tag(1).ContextSpecific()
	tagConstructed0      = cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	tagPrimitive0        = cryptobyte_asn1.Tag(0).ContextSpecific()
	basicConstraintsRoot = pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}
	// pathlen 0
	basicConstraintsIssuing = pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 6, 1, 1, 0xff, 2, 1, 0}}
	// The real ones write the default FALSE out, against DER.
	basicConstraintsLeaf = pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 3, 1, 1, 0}}
)

// tbs is a certificate to be signed; names and key are DER.
type tbs struct {
	serial                     *big.Int
	issuer, subject, publicKey []byte
	notBefore, notAfter        time.Time
	extensions                 []pkix.Extension
	// ecdsaNull puts a NULL parameter behind ecdsa-with-SHA384, as in DVV's
	// test cards and against RFC 5758 3.2.
	ecdsaNull bool
}

type tbsCertificate struct {
	Version            int `asn1:"explicit,tag:0"`
	SerialNumber       *big.Int
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Issuer             asn1.RawValue
	Validity           struct{ NotBefore, NotAfter time.Time }
	Subject            asn1.RawValue
	PublicKey          asn1.RawValue
	Extensions         []pkix.Extension `asn1:"explicit,tag:3"`
}

type certificate struct {
	TBS                asn1.RawValue
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Signature          asn1.BitString
}

// sign makes the certificate with the issuer's key.
func (t tbs) sign(key crypto.Signer) (*x509.Certificate, error) {
	algorithm := algorithmFor(key, t.ecdsaNull)
	body := tbsCertificate{
		Version: 2, SerialNumber: t.serial, SignatureAlgorithm: algorithm,
		Issuer: asn1.RawValue{FullBytes: t.issuer}, Subject: asn1.RawValue{FullBytes: t.subject},
		PublicKey: asn1.RawValue{FullBytes: t.publicKey}, Extensions: t.extensions,
	}
	body.Validity.NotBefore = t.notBefore.UTC().Truncate(time.Second)
	body.Validity.NotAfter = t.notAfter.UTC().Truncate(time.Second)
	raw, err := asn1.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	signature, err := signBytes(key, raw)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	der, err := asn1.Marshal(certificate{
		TBS: asn1.RawValue{FullBytes: raw}, SignatureAlgorithm: algorithm,
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// algorithmFor gives the signature algorithm of a key: SHA-384 with P-384
// keys, SHA-256 with RSA ones (as in the test cards seen).
func algorithmFor(key crypto.Signer, ecdsaNull bool) pkix.AlgorithmIdentifier {
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		return pkix.AlgorithmIdentifier{Algorithm: oidSHA256WithRSA, Parameters: asn1.NullRawValue}
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: oidECDSAWithSHA384}
	if ecdsaNull {
		algorithm.Parameters = asn1.NullRawValue
	}
	return algorithm
}

// signBytes signs with the algorithm of algorithmFor.
func signBytes(key crypto.Signer, message []byte) ([]byte, error) {
	hash := crypto.SHA256
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		hash = crypto.SHA384
	}
	digest := hash.New()
	digest.Write(message)
	return key.Sign(rand.Reader, digest.Sum(nil), hash)
}

// attribute is one attribute of a name; its value's tag is its string type.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeSET is a relative distinguished name; encoding/asn1 makes a SET of
// a type with such a name.
type attributeSET []attribute

func printable(oid asn1.ObjectIdentifier, value string) attribute {
	return attribute{oid, asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: []byte(value)}}
}

func utf8String(oid asn1.ObjectIdentifier, value string) attribute {
	return attribute{oid, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(value)}}
}

// encodeName puts each attribute into an RDN of its own, in the order given.
func encodeName(attributes []attribute) ([]byte, error) {
	sequence := make([]attributeSET, len(attributes))
	for i, a := range attributes {
		sequence[i] = attributeSET{a}
	}
	return asn1.Marshal(sequence)
}

// keyID makes a key identifier from a SubjectPublicKeyInfo by RFC 7093
// method 1.
func keyID(spki []byte) ([]byte, error) {
	key, err := publicKeyBits(spki)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(key)
	return sum[:20], nil
}

// publicKeyBits gives the BIT STRING within a SubjectPublicKeyInfo.
func publicKeyBits(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return info.Key.Bytes, nil
}

// build runs a cryptobyte builder that cannot fail: all lengths and OIDs are
// ours. What a test hands in is checked before.
func build(f func(b *cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, f)
	return b.BytesOrPanic()
}

func addText(b *cryptobyte.Builder, tag cryptobyte_asn1.Tag, text string) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}

func addSequence(b *cryptobyte.Builder, f func(b *cryptobyte.Builder)) {
	b.AddASN1(cryptobyte_asn1.SEQUENCE, f)
}

func authorityKeyID(id []byte) pkix.Extension {
	return pkix.Extension{Id: oidAuthorityKeyID, Value: build(func(b *cryptobyte.Builder) {
		addText(b, tagPrimitive0, string(id))
	})}
}

func subjectKeyID(id []byte) pkix.Extension {
	return pkix.Extension{Id: oidSubjectKeyID, Value: append([]byte{asn1.TagOctetString, byte(len(id))}, id...)}
}

// keyUsage encodes the usage: bit 0 of x509.KeyUsage is the first bit of the
// BIT STRING, trailing zero bits are left out (DER).
func keyUsage(usage x509.KeyUsage) pkix.Extension {
	raw := []byte{bits.Reverse8(byte(usage)), bits.Reverse8(byte(usage >> 8))}
	length := bits.Len16(uint16(usage))
	value := []byte{asn1.TagBitString, 0, 0}
	size := (length + 7) / 8
	value[1], value[2] = byte(size+1), byte(size*8-length)
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: append(value, raw[:size]...)}
}

func extKeyUsage(usages []asn1.ObjectIdentifier) pkix.Extension {
	return pkix.Extension{Id: oidExtKeyUsage, Value: build(func(b *cryptobyte.Builder) {
		for _, usage := range usages {
			b.AddASN1ObjectIdentifier(usage)
		}
	})}
}

// certificatePolicies encodes dotted policy OIDs with the qualifiers of DVV:
// a CPS address and a notice in three languages as VisibleString.
func certificatePolicies(policies []string) (pkix.Extension, error) {
	oids := make([]asn1.ObjectIdentifier, len(policies))
	for i, policy := range policies {
		parsed, err := parseOID(policy)
		if err != nil {
			return pkix.Extension{}, err
		}
		oids[i] = parsed
	}
	return pkix.Extension{Id: oidPolicies, Value: build(func(b *cryptobyte.Builder) {
		for _, oid := range oids {
			addSequence(b, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid)
				addSequence(b, addPolicyQualifiers)
			})
		}
	})}, nil
}

func addPolicyQualifiers(b *cryptobyte.Builder) {
	addSequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidPolicyCPS)
		addText(b, cryptobyte_asn1.IA5String, "http://cps.invalid/kortti-test/")
	})
	addSequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidPolicyNotice)
		addSequence(b, func(b *cryptobyte.Builder) {
			addText(b, tagVisibleString, "Testivarmenne - Testcertifikat - Test certificate http://cps.invalid/kortti-test")
		})
	})
}

func crlDistribution(url string) pkix.Extension {
	return pkix.Extension{Id: oidCRLDistribution, Value: build(func(b *cryptobyte.Builder) {
		addSequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1(tagConstructed0, func(b *cryptobyte.Builder) {
				b.AddASN1(tagConstructed0, func(b *cryptobyte.Builder) { addText(b, tagURI, url) })
			})
		})
	})}
}

func authorityInfo(caIssuers, ocsp string) pkix.Extension {
	return pkix.Extension{Id: oidAuthorityInfo, Value: build(func(b *cryptobyte.Builder) {
		addSequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidAccessCAIssuers)
			addText(b, tagURI, caIssuers)
		})
		addSequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidAccessOCSP)
			addText(b, tagURI, ocsp)
		})
	})}
}

// alternativeNames gives the subjectAltName for what is not empty.
func alternativeNames(email, upn string, critical bool) pkix.Extension {
	return pkix.Extension{Id: oidSubjectAltName, Critical: critical, Value: build(func(b *cryptobyte.Builder) {
		if upn != "" {
			b.AddASN1(tagConstructed0, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidUPN)
				b.AddASN1(tagConstructed0, func(b *cryptobyte.Builder) { addText(b, cryptobyte_asn1.UTF8String, upn) })
			})
		}
		if email != "" {
			addText(b, tagRFC822Name, email)
		}
	})}
}

// qcStatements are those of a signature certificate (ETSI EN 319 412-5).
func qcStatements() pkix.Extension {
	return pkix.Extension{Id: oidQCStatements, Value: build(func(b *cryptobyte.Builder) {
		addSequence(b, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidQCCompliance) })
		addSequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidQCType)
			addSequence(b, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidQCTypeESignature) })
		})
		addSequence(b, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidQCSSCD) })
	})}
}

// parseOID reads a dotted OID with the reader of crypto/x509.
func parseOID(dotted string) (asn1.ObjectIdentifier, error) {
	oid, err := x509.ParseOID(dotted)
	if err != nil {
		return nil, fmt.Errorf("policy %q is not an OID: %w", dotted, err)
	}
	der, err := oid.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", dotted, err)
	}
	s := cryptobyte.String(append([]byte{asn1.TagOID, byte(len(der))}, der...))
	var out asn1.ObjectIdentifier
	if len(der) > 127 || !s.ReadASN1ObjectIdentifier(&out) {
		return nil, fmt.Errorf("policy %q is too large", dotted)
	}
	return out, nil
}
