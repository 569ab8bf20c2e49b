package virtualcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// complete makes what is missing of an identity: its key, and a self-signed
// certificate with the key usage of the PIN's role (FINEID S2). It refuses a
// key that the card cannot hold and a certificate of another key.
func complete(id Identity, a algorithm, role PINRef) (Identity, error) {
	var err error
	if id.Key == nil {
		if id.Certificate != nil {
			return id, errors.New("a certificate needs its key")
		}
		if id.Key, err = newKey(a); err != nil {
			return id, err
		}
	}
	if !fits(id.Key, a) {
		return id, fmt.Errorf("the card cannot hold a key of type %T or of that size", id.Key)
	}
	if id.Certificate == nil {
		id.Certificate, err = selfSigned(id.Key, role)
		return id, err
	}
	cert, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return id, fmt.Errorf("read the certificate: %w", err)
	}
	public, ok := id.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return id, errors.New("the certificate is of another key")
	}
	return id, nil
}

func newKey(a algorithm) (crypto.Signer, error) {
	if a == p384 {
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

func fits(k crypto.Signer, a algorithm) bool {
	switch k := k.(type) {
	case *rsa.PrivateKey:
		return a == rsa2048 && k.N.BitLen() == 2048
	case *ecdsa.PrivateKey:
		return a == p384 && k.Curve == elliptic.P384()
	}
	return false
}

// keyUsage is the usage that FINEID certificates have: authentication keys
// sign and agree on or encipher keys, signature keys are for nothing but
// signatures that bind their maker.
func keyUsage(k crypto.Signer, role PINRef) x509.KeyUsage {
	switch {
	case role == PIN2:
		return x509.KeyUsageContentCommitment
	case fits(k, rsa2048):
		return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
}

// holder is an invented person; SATUs from 999 are not given to people.
var holder = struct{ surname, givenName, satu string }{"TESTINEN", "ÄILI", "99912345V"}

// selfSigned makes a certificate whose subject is of FINEID's shape.
func selfSigned(k crypto.Signer, role PINRef) ([]byte, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	name := pkix.Name{
		Country: []string{"FI"}, SerialNumber: holder.satu,
		CommonName: holder.surname + " " + holder.givenName + " " + holder.satu,
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 4}, Value: holder.surname},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 42}, Value: holder.givenName},
		},
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: name,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0),
		KeyUsage: keyUsage(k, role),
	}
	return x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
}
