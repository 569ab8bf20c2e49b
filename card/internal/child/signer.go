package child

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"

	"github.com/kortti-id/kortti/card/internal/proof"
	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/miekg/pkcs11"
)

// signer is an unlocked token.
type signer struct {
	*module
	slot         uint
	session      pkcs11.SessionHandle
	mechanisms   []uint
	certificates []wire.Certificate
}

// login makes the one C_Login of this process, if the token in the slot is
// still the one with the given certificate: the PIN of a card must never reach
// another that has taken its place. (Should it be swapped between reading the
// certificate and C_Login, the session is dead.)
func (m *module) login(r wire.Request, pin []byte) (*signer, wire.Answer, error) {
	var answer wire.Answer
	slot, token, err := m.findToken(r.Reader, r.Ordinal)
	if err != nil {
		return nil, answer, err
	}
	answer.Token = token
	if err := mayLogin(token.Flags, r, pin); err != nil {
		return nil, answer, err
	}
	s := &signer{module: m, slot: slot}
	if s.mechanisms, err = m.mechanisms(slot); err != nil {
		return nil, answer, err
	}
	if s.session, err = m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		return nil, answer, failed("C_OpenSession", err)
	}
	if s.certificates, err = m.certificates(s.session, false); err != nil {
		return nil, answer, err
	}
	if s.certificate(r.Certificate) == nil {
		return nil, answer, &wire.Fault{Kind: wire.OtherCard, Text: "another card is in the reader"}
	}
	answer.Tried = true
	loginErr := m.library.login(s.session, pkcs11.CKU_USER, pin)
	if after, err := m.readToken(slot); err == nil {
		answer.Token = after
	}
	if loginErr != nil {
		return nil, answer, failed("C_Login", loginErr)
	}
	return s, answer, nil
}

// mayLogin applies the PIN rules to the token's flags of this moment.
func mayLogin(flags uint, r wire.Request, pin []byte) error {
	switch {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return &wire.Fault{Kind: wire.PINLocked, Text: "the token says that its PIN is locked"}
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0 && !r.ConfirmFinal:
		return &wire.Fault{Kind: wire.FinalTry, Text: "the token says that this is the final try"}
	case r.PinPad != (len(pin) == 0), r.PinPad && flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH == 0:
		return &wire.Fault{Kind: wire.Protocol, Text: "a PIN is needed unless the reader has a PIN pad"}
	}
	return nil
}

// logout ends the login as the standard has it; locking is the parent's work.
func (s *signer) logout() {
	_ = s.Logout(s.session)
	_ = s.CloseSession(s.session)
}

// present says whether the card that was logged in to is still there. The
// session tells of a card that was pulled and put back between two looks.
func (s *signer) present() (bool, error) {
	info, err := s.GetSlotInfo(s.slot)
	if err != nil {
		return false, failed("C_GetSlotInfo", err)
	}
	if info.Flags&pkcs11.CKF_TOKEN_PRESENT == 0 {
		return false, nil
	}
	if _, err := s.GetSessionInfo(s.session); err != nil {
		return false, failed("C_GetSessionInfo", err)
	}
	return true, nil
}

// sign signs a TLS client's proof and nothing else.
func (s *signer) sign(r wire.Request, message []byte) ([]byte, error) {
	object := s.certificate(r.Certificate)
	if object == nil {
		return nil, noKey("the card has no such certificate")
	}
	leaf, err := x509.ParseCertificate(object.DER)
	if err != nil {
		return nil, noKey("the certificate cannot be read")
	}
	want := proof.Wanted{Leaf: leaf, Host: r.Host, Hash: crypto.Hash(r.Hash), PSS: r.PSS}
	if err := proof.Check(message, want); err != nil {
		return nil, &wire.Fault{Kind: wire.NotProof, Text: err.Error()}
	}
	key, err := s.privateKey(leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	h := want.Hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	switch public := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return s.signRSA(key, public, want, digest)
	case *ecdsa.PublicKey:
		return s.signECDSA(key, public, digest)
	}
	return nil, noKey("the type of key is unknown")
}

func (s *signer) signECDSA(key pkcs11.ObjectHandle, public *ecdsa.PublicKey, digest []byte) ([]byte, error) {
	input := proof.FitDigest(digest, public.Curve.Params().BitSize)
	raw, err := s.signRaw(key, pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil), input)
	if err != nil {
		return nil, err
	}
	signature, err := proof.ECDSASignature(raw)
	if err != nil || !ecdsa.VerifyASN1(public, digest, signature) {
		return nil, errWrongSignature
	}
	return signature, nil
}

func (s *signer) signRSA(key pkcs11.ObjectHandle, public *rsa.PublicKey, want proof.Wanted, digest []byte) ([]byte, error) {
	input, mechanism, err := s.prepareRSA(public, want, digest)
	if err != nil {
		return nil, err
	}
	signature, err := s.signRaw(key, mechanism, input)
	if err != nil {
		return nil, err
	}
	if want.PSS {
		err = rsa.VerifyPSS(public, want.Hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		err = rsa.VerifyPKCS1v15(public, want.Hash, digest, signature)
	}
	if err != nil {
		return nil, errWrongSignature
	}
	return signature, nil
}

// prepareRSA returns what the token is to sign and how: PSS by the token, else
// PSS padded here for raw RSA, or PKCS #1 v1.5.
func (s *signer) prepareRSA(public *rsa.PublicKey, want proof.Wanted, digest []byte) ([]byte, *pkcs11.Mechanism, error) {
	switch {
	case !want.PSS:
		input, err := proof.DigestInfo(want.Hash, digest)
		return input, pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil), err
	case slices.Contains(s.mechanisms, pkcs11.CKM_RSA_PKCS_PSS):
		p := pssParameters[want.Hash]
		params := pkcs11.NewPSSParams(p.hash, p.mgf, uint(want.Hash.Size()))
		return digest, pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, params), nil
	case slices.Contains(s.mechanisms, pkcs11.CKM_RSA_X_509):
		input, err := proof.PSS(rand.Reader, want.Hash, digest, public.N.BitLen())
		return input, pkcs11.NewMechanism(pkcs11.CKM_RSA_X_509, nil), err
	}
	return nil, nil, noKey("the token knows neither RSA-PSS nor raw RSA")
}

// pssParameters are CK_RSA_PKCS_PSS_PARAMS (PKCS#11 mechanisms §2.1.9) by hash.
var pssParameters = map[crypto.Hash]struct{ hash, mgf uint }{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

// errWrongSignature: a fault in the card, or the wrong key; a bad signature is
// never sent out, as with RSA it can give the key away.
var errWrongSignature = noKey("the signature does not belong to the certificate")

func (s *signer) signRaw(key pkcs11.ObjectHandle, mechanism *pkcs11.Mechanism, input []byte) ([]byte, error) {
	if err := s.SignInit(s.session, []*pkcs11.Mechanism{mechanism}, key); err != nil {
		return nil, failed("C_SignInit", err)
	}
	signature, err := s.Sign(s.session, input)
	if err != nil {
		return nil, failed("C_Sign", err)
	}
	return signature, nil
}

// certificate returns the certificate with this SHA-256, or nil.
func (s *signer) certificate(fingerprint []byte) *wire.Certificate {
	for i, c := range s.certificates {
		if sum := sha256.Sum256(c.DER); bytes.Equal(sum[:], fingerprint) {
			return &s.certificates[i]
		}
	}
	return nil
}

// privateKey finds the private key of a certificate. Where a token shows neither
// ids nor public parts, the only key that can be meant is taken: a wrong one
// would make a signature that is not sent out.
func (s *signer) privateKey(public crypto.PublicKey) (pkcs11.ObjectHandle, error) {
	keys, err := s.find(s.session, pkcs11.CKO_PRIVATE_KEY)
	if err != nil {
		return 0, err
	}
	var certain, possible []pkcs11.ObjectHandle
	for _, key := range keys {
		switch s.match(key, public) {
		case yes:
			certain = append(certain, key)
		case perhaps:
			possible = append(possible, key)
		}
	}
	if len(certain) == 0 && len(possible) == 1 {
		certain = possible
	}
	if len(certain) == 0 {
		return 0, noKey("the card has no private key for this certificate")
	}
	if flag := s.attribute(s.session, certain[0], pkcs11.CKA_ALWAYS_AUTHENTICATE); len(flag) == 1 && flag[0] != 0 {
		return 0, noKey("the key wants a PIN for every signature, as signature keys do")
	}
	return certain[0], nil
}

// match says whether a key belongs to a certificate.
type match int

const (
	no match = iota
	perhaps
	yes
)

// match decides by the key's own public part where the token shows it, else by
// the certificates that have its CKA_ID; a key with none of these may be any.
func (s *signer) match(key pkcs11.ObjectHandle, public crypto.PublicKey) match {
	keyID := s.attribute(s.session, key, pkcs11.CKA_ID)
	kind := s.number(key, pkcs11.CKA_KEY_TYPE)
	same := func(equal bool) match {
		if equal {
			return yes
		}
		return no
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if kind != pkcs11.CKK_RSA {
			return no
		}
		if modulus := s.attribute(s.session, key, pkcs11.CKA_MODULUS); len(modulus) > 0 {
			return same(new(big.Int).SetBytes(modulus).Cmp(public.N) == 0)
		}
	case *ecdsa.PublicKey:
		if kind != pkcs11.CKK_EC {
			return no
		}
		point := s.attribute(s.session, key, pkcs11.CKA_EC_POINT)
		if len(point) == 0 {
			point = s.publicPoint(keyID)
		}
		if len(point) > 0 {
			return same(samePoint(point, public))
		}
	default:
		return no
	}
	result := perhaps
	for _, c := range s.certificates {
		if len(keyID) == 0 || !bytes.Equal(c.ID, keyID) {
			continue
		}
		if leaf, err := x509.ParseCertificate(c.DER); err == nil && samePublicKey(leaf.PublicKey, public) {
			return yes
		}
		result = no
	}
	return result
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// publicPoint returns the CKA_EC_POINT of the public key object with this
// CKA_ID, or nil.
func (s *signer) publicPoint(id []byte) []byte {
	keys, err := s.find(s.session, pkcs11.CKO_PUBLIC_KEY)
	if err != nil || len(id) == 0 {
		return nil
	}
	for _, key := range keys {
		if bytes.Equal(s.attribute(s.session, key, pkcs11.CKA_ID), id) {
			return s.attribute(s.session, key, pkcs11.CKA_EC_POINT)
		}
	}
	return nil
}

// samePoint compares a CKA_EC_POINT (a DER OCTET STRING by PKCS#11 §6.3.3, the
// bare point by some modules) with a public key.
func samePoint(point []byte, public *ecdsa.PublicKey) bool {
	want, err := public.Bytes()
	if err != nil {
		return false
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	return bytes.Equal(point, want)
}

// number reads a CK_ULONG attribute; the largest value if it is not there.
func (s *signer) number(object pkcs11.ObjectHandle, kind uint) uint {
	value := s.attribute(s.session, object, kind)
	if len(value) == 0 || len(value) > 8 {
		return ^uint(0)
	}
	var n uint
	for i := len(value) - 1; i >= 0; i-- { // CK_ULONG in the machine's order: little-endian on all we build for
		n = n<<8 | uint(value[i])
	}
	return n
}

func noKey(text string) error { return &wire.Fault{Kind: wire.NoKey, Text: text} }
