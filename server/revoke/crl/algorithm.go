package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
)

// algorithm is how a list is signed. Hashes weaker than SHA-256 are not taken,
// nor Ed25519, which would need the whole list in memory.
type algorithm struct {
	hash  crypto.Hash
	ecdsa bool
	pss   bool
}

// plainAlgorithms are AlgorithmIdentifiers whole, with the parameters that their
// standards demand (RFC 4055 section 5, RFC 5758 section 3.2).
var plainAlgorithms = []struct {
	der string
	algorithm
}{
	{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00", algorithm{hash: crypto.SHA256}},
	{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00", algorithm{hash: crypto.SHA384}},
	{"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00", algorithm{hash: crypto.SHA512}},
	{"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", algorithm{hash: crypto.SHA256, ecdsa: true}},
	{"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", algorithm{hash: crypto.SHA384, ecdsa: true}},
	{"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", algorithm{hash: crypto.SHA512, ecdsa: true}},
}

// pssOID is id-RSASSA-PSS.
var pssOID = []byte("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a")

// pssHashes are the hashes' object identifiers as they stand in the parameters.
var pssHashes = map[crypto.Hash][]byte{
	crypto.SHA256: []byte("\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01"),
	crypto.SHA384: []byte("\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02"),
	crypto.SHA512: []byte("\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03"),
}

func parseAlgorithm(der []byte) (algorithm, error) {
	for _, known := range plainAlgorithms {
		if string(der) == known.der {
			return known.algorithm, nil
		}
	}
	// DVV's ECDSA certificates have been seen with NULL as parameters, which
	// says nothing.
	if without, ok := withoutNull(der); ok {
		for _, known := range plainAlgorithms {
			if known.ecdsa && string(without) == known.der {
				return known.algorithm, nil
			}
		}
	}
	if bytes.Contains(der, pssOID) {
		for h, oid := range pssHashes {
			// Once for the hash and once for that of MGF1.
			if bytes.Count(der, oid) == 2 {
				return algorithm{hash: h, pss: true}, nil
			}
		}
	}
	return algorithm{}, errors.New("it is signed in a way that is not known or too weak")
}

func withoutNull(der []byte) ([]byte, bool) {
	inner, ok := bytes.CutSuffix(der, []byte("\x05\x00"))
	if !ok || len(inner) < 2 || inner[1] < 2 || inner[1] >= 0x80 {
		return nil, false
	}
	inner = bytes.Clone(inner)
	inner[1] -= 2
	return inner, true
}

var errSignature = errors.New("the signature is not the issuer's")

func (a algorithm) verify(key crypto.PublicKey, digest, signature []byte) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if a.ecdsa && ecdsa.VerifyASN1(key, digest, signature) {
			return nil
		}
	case *rsa.PublicKey:
		switch {
		case a.ecdsa:
		case a.pss && rsa.VerifyPSS(key, a.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil:
			return nil
		case !a.pss && rsa.VerifyPKCS1v15(key, a.hash, digest, signature) == nil:
			return nil
		}
	}
	return errSignature
}
