package revoke

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidSHA1  = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
)

// nonceSize is what RFC 9654 recommends.
const nonceSize = 32

// certID names a certificate as OCSP does (RFC 6960 section 4.1.1). The hash is
// SHA-1 because that is what responders index by (RFC 5019); nothing rests on
// its strength, as the answer is signed by the issuer that is named.
type certID struct {
	nameHash, keyHash []byte
	serial            *big.Int
}

func (id certID) equal(other certID) bool {
	return bytes.Equal(id.nameHash, other.nameHash) && bytes.Equal(id.keyHash, other.keyHash) &&
		id.serial.Cmp(other.serial) == 0
}

// question is a request and what its answer must repeat.
type question struct {
	id      certID
	nonce   []byte
	request []byte // DER
}

func newQuestion(leaf, issuer *x509.Certificate) (question, error) {
	keyHash, err := keyHashOf(issuer)
	if err != nil {
		return question{}, err
	}
	nameHash := sha1.Sum(issuer.RawSubject)
	q := question{id: certID{nameHash[:], keyHash, leaf.SerialNumber}, nonce: make([]byte, nonceSize)}
	rand.Read(q.nonce)
	q.request, err = q.marshal()
	return q, err
}

// keyHashOf is the SHA-1 of the public key's bits, without their ASN.1 wrapping.
func keyHashOf(c *x509.Certificate) ([]byte, error) {
	spki := cryptobyte.String(c.RawSubjectPublicKeyInfo)
	var inner cryptobyte.String
	var bits []byte
	if !spki.ReadASN1(&inner, cryptobyte_asn1.SEQUENCE) || !inner.SkipASN1(cryptobyte_asn1.SEQUENCE) ||
		!inner.ReadASN1BitStringAsBytes(&bits) {
		return nil, errors.New("the issuing CA's public key cannot be read")
	}
	sum := sha1.Sum(bits)
	return sum[:], nil
}

// marshal writes an OCSPRequest for one certificate. The nonce's OCTET STRING
// stands inside of the extension's own (RFC 8954 section 2.1).
func (q question) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	sequence := func(b *cryptobyte.Builder, f func(b *cryptobyte.Builder)) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, f)
	}
	sequence(&b, func(b *cryptobyte.Builder) { // OCSPRequest
		sequence(b, func(b *cryptobyte.Builder) { // TBSRequest
			sequence(b, func(b *cryptobyte.Builder) { // requestList
				sequence(b, func(b *cryptobyte.Builder) { // Request
					sequence(b, func(b *cryptobyte.Builder) { // CertID
						sequence(b, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(oidSHA1)
							b.AddASN1NULL()
						})
						b.AddASN1OctetString(q.id.nameHash)
						b.AddASN1OctetString(q.id.keyHash)
						b.AddASN1BigInt(q.id.serial)
					})
				})
			})
			b.AddASN1(explicit(2), func(b *cryptobyte.Builder) {
				sequence(b, func(b *cryptobyte.Builder) { // requestExtensions
					sequence(b, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidNonce)
						b.AddASN1(cryptobyte_asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
							b.AddASN1OctetString(q.nonce)
						})
					})
				})
			})
		})
	})
	return b.Bytes()
}

func explicit(n uint8) cryptobyte_asn1.Tag {
	return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed()
}
