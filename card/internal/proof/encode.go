package proof

import (
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// digestInfo are the DER prefixes of RFC 8017 §9.2, note 1.
var digestInfo = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// DigestInfo returns the DER that CKM_RSA_PKCS pads and signs (RFC 8017 §9.2).
func DigestInfo(hash crypto.Hash, digest []byte) ([]byte, error) {
	prefix, ok := digestInfo[hash]
	if !ok || len(digest) != hash.Size() {
		return nil, errors.New("no DigestInfo for this hash")
	}
	return append(prefix[:len(prefix):len(prefix)], digest...), nil
}

// PSS returns the number, as long as the modulus, that raw RSA (CKM_RSA_X_509)
// turns into an RSASSA-PSS signature: EMSA-PSS-ENCODE (RFC 8017 §9.1.1) with
// MGF1 and a salt as long as the hash, as TLS wants it. It is for cards that
// have raw RSA but not CKM_RSA_PKCS_PSS.
func PSS(random io.Reader, hash crypto.Hash, digest []byte, modulusBits int) ([]byte, error) {
	size := hash.Size()
	emBits := modulusBits - 1
	emLen := (emBits + 7) / 8
	if len(digest) != size || emLen < 2*size+2 {
		return nil, fmt.Errorf("an RSA key of %d bits is too short for PSS with this hash", modulusBits)
	}
	salt := make([]byte, size)
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, fmt.Errorf("make a PSS salt: %w", err)
	}
	h := hash.New()
	h.Write(make([]byte, 8))
	h.Write(digest)
	h.Write(salt)
	sum := h.Sum(nil)

	// em = maskedDB || H || 0xbc, in the low bytes of out: where emBits is a
	// multiple of eight, the modulus is one byte longer than em.
	out := make([]byte, (modulusBits+7)/8)
	em := out[len(out)-emLen:]
	db := em[:emLen-size-1]
	db[len(db)-size-1] = 0x01
	copy(db[len(db)-size:], salt)
	mgf1XOR(db, hash, sum)
	db[0] &= 0xff >> (8*emLen - emBits)
	copy(em[len(db):], sum)
	em[emLen-1] = 0xbc
	return out, nil
}

// mgf1XOR adds the mask of RFC 8017 §B.2.1 to data.
func mgf1XOR(data []byte, hash crypto.Hash, seed []byte) {
	for counter := 0; len(data) > 0; counter++ {
		h := hash.New()
		h.Write(seed)
		h.Write([]byte{byte(counter >> 24), byte(counter >> 16), byte(counter >> 8), byte(counter)})
		mask := h.Sum(nil)
		n := min(len(mask), len(data))
		for i := range n {
			data[i] ^= mask[i]
		}
		data = data[n:]
	}
}

// ECDSASignature turns r‖s, as PKCS#11 tokens give it (PKCS#11 §6.3.1), into
// the DER that TLS sends (RFC 3279 §2.2.3).
func ECDSASignature(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("an ECDSA signature of %d bytes", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(raw[:half]),
		new(big.Int).SetBytes(raw[half:]),
	})
}

// FitDigest returns the digest as long as a curve's order in bytes: with zeros
// before it, which as a number it is the same with, or its leftmost bytes, which
// ECDSA uses alone (FIPS 186-5 §6.4.1). Some modules refuse any other length.
func FitDigest(digest []byte, bits int) []byte {
	size := (bits + 7) / 8
	if len(digest) >= size {
		return digest[:size]
	}
	return append(make([]byte, size-len(digest)), digest...)
}
