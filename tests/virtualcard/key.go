package virtualcard

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"math/big"
)

// key is a private key on the card and the PIN that its use needs.
type key struct {
	signer crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
	pin    *pin
}

// use runs one private-key operation if the key's PIN is verified, uses up a
// verification that is good for one operation, and counts the signature. The
// card's answer is then late by the sign delay.
func (c *Card) use(k *key, operation func() ([]byte, uint16)) ([]byte, uint16) {
	if !k.pin.verified {
		return nil, swSecurityStatus
	}
	out, sw := operation()
	if sw != swOK {
		return nil, sw
	}
	if k.pin.oneShot {
		k.pin.verified = false
	}
	c.counts.Signatures++
	c.late = c.signDelay
	return out, swOK
}

// rsaRaw raises a block as long as the modulus to the private exponent.
func (c *Card) rsaRaw(k *key, block []byte) ([]byte, uint16) {
	private, ok := k.signer.(*rsa.PrivateKey)
	if !ok {
		return nil, swConditions
	}
	return c.use(k, func() ([]byte, uint16) {
		m := new(big.Int).SetBytes(block)
		if len(block) != private.Size() || m.Cmp(private.N) >= 0 {
			return nil, swWrongData
		}
		return m.Exp(m, private.D, private.N).FillBytes(make([]byte, private.Size())), swOK
	})
}

// rsaPKCS1 pads what is given, normally a DigestInfo, by PKCS #1 v1.5 block
// type 1 and signs it.
func (c *Card) rsaPKCS1(k *key, input []byte) ([]byte, uint16) {
	private, ok := k.signer.(*rsa.PrivateKey)
	if !ok {
		return nil, swConditions
	}
	return c.use(k, func() ([]byte, uint16) {
		if len(input) > private.Size()-11 {
			return nil, swWrongData
		}
		out, err := rsa.SignPKCS1v15(nil, private, crypto.Hash(0), input)
		if err != nil {
			return nil, swInternal
		}
		return out, swOK
	})
}

// rsaDecrypt is rsaRaw with the padding of PKCS #1 v1.5, block type 2, taken
// off the answer (RFC 8017, 7.2.2).
func (c *Card) rsaDecrypt(k *key, block []byte) ([]byte, uint16) {
	padded, sw := c.rsaRaw(k, block)
	if sw != swOK {
		return nil, sw
	}
	const shortest = 2 + 8
	if padded[0] != 0 || padded[1] != 2 {
		return nil, swWrongData
	}
	end := bytes.IndexByte(padded[2:], 0) + 2
	if end < shortest {
		return nil, swWrongData
	}
	return padded[end+1:], swOK
}

// ecdsaDER signs a digest as long as the curve's field at most and answers
// the DER of ECDSA-Sig-Value (RFC 3279 section 2.2.3).
func (c *Card) ecdsaDER(k *key, digest []byte) ([]byte, uint16) {
	private, ok := k.signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, swConditions
	}
	return c.use(k, func() ([]byte, uint16) {
		if len(digest) == 0 || len(digest) > fieldSize(private) {
			return nil, swWrongLength
		}
		out, err := ecdsa.SignASN1(rand.Reader, private, digest)
		if err != nil {
			return nil, swInternal
		}
		return out, swOK
	})
}

// ecdsaRaw is ecdsaDER with the answer as r and s of the field's length.
func (c *Card) ecdsaRaw(k *key, digest []byte) ([]byte, uint16) {
	der, sw := c.ecdsaDER(k, digest)
	if sw != swOK {
		return nil, sw
	}
	var value struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &value); err != nil {
		return nil, swInternal
	}
	size := fieldSize(k.signer.(*ecdsa.PrivateKey))
	return append(value.R.FillBytes(make([]byte, size)), value.S.FillBytes(make([]byte, size))...), swOK
}

// ecdh answers the x coordinate of the private key times a point of the same
// curve, uncompressed (04 x y).
func (c *Card) ecdh(k *key, point []byte) ([]byte, uint16) {
	private, ok := k.signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, swConditions
	}
	own, err := private.ECDH()
	if err != nil {
		return nil, swInternal
	}
	return c.use(k, func() ([]byte, uint16) {
		peer, err := own.Curve().NewPublicKey(point)
		if err != nil {
			return nil, swWrongData
		}
		secret, err := own.ECDH(peer)
		if err != nil {
			return nil, swWrongData
		}
		return secret, swOK
	})
}

// fieldSize returns the length of a coordinate in bytes.
func fieldSize(k *ecdsa.PrivateKey) int { return (k.Curve.Params().BitSize + 7) / 8 }
