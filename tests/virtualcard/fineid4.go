package virtualcard

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// fineID4 is the profile of the current Finnish citizen cards (Thales MultiApp
// v5.0, FINEID S4-1 v4.0 and v4.1), as OpenSC's driver "esteid2025" uses them
// from version 0.27. The two differ in the chip's version in the ATR only.
func fineID4(chip [3]byte) profile {
	atr := []byte{0x3B, 0x7F, 0x96, 0x00, 0x00, 0x80, 0x31, 0xB8, 0x65, 0xB0, 0x85}
	atr = append(atr, chip[:]...)
	return profile{
		atr:       append(atr, 0x12, 0x24, 0x60, 0x82, 0x90, 0x00),
		algorithm: p384, tries: 5, pukTries: 5, longestPIN: 12, shortestPIN2: 6,
		build: buildFINEID4,
	}
}

// Versions of the chip, as the ATR names them.
var (
	fineID40Chip = [3]byte{0x05, 0x00, 0x11}
	fineID41Chip = [3]byte{0x05, 0x10, 0x24}
)

// buildFINEID4 writes the files that middleware reads by their known places:
// the MF is the PKCS #15 application itself. There are no directory files, for
// nobody asks a card for them whose places are known by its ATR.
func buildFINEID4(c *Card, spec Spec) (applet, error) {
	mf := c.files.mf
	mf.name = pkcs15AID
	mf.addEF(fileTokenInfo, fineID4TokenInfo(c.serial))
	mf.addEF(0x4331, c.authentication.Certificate)
	mf.addDF(0x5016, nil).addEF(0x4332, c.signature.Certificate)
	if err := addFINEID4CAs(mf, spec.CAs); err != nil {
		return nil, err
	}
	return &fineID4Applet{
		iso: pki{
			padding: 0x00, padded: 12,
			refs: map[byte]*pin{0x11: c.pins[PIN1], 0x82: c.pins[PIN2], 0x83: c.pins[PUK]},
		},
		keys: map[byte]*key{0x01: c.authKey, 0x02: c.signKey},
	}, nil
}

// addFINEID4CAs puts the root and the issuing CA into the one place that the
// card has for each.
func addFINEID4CAs(mf *file, cas [][]byte) error {
	const root, issuing = 0x4334, 0x4336
	for i, der := range cas {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("read CA certificate %d: %w", i+1, err)
		}
		var id uint16 = issuing
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			id = root
		}
		if mf.child(id) != nil {
			return errors.New("the card has room for one root and one issuing CA")
		}
		mf.addEF(id, der)
	}
	return nil
}

// fineID4TokenInfo is a TokenInfo (PKCS #15 v1.1, 6.9). OpenSC begins to read
// at its fifth byte and finds the serial number only if the sequence is longer
// than 127 bytes, as the list of algorithms makes it; and the serial number
// must be of letters and digits.
func fineID4TokenInfo(serial []byte) []byte {
	const algorithms = 0xA2 // supportedAlgorithms [2]
	var list [][]byte
	for i, one := range []struct {
		mechanism int    // of PKCS #11
		operation int    // bit of Operations
		oid       string // DER, in hexadecimal
		reference byte   // for MANAGE SECURITY ENVIRONMENT
	}{
		{0x1043, operationSign, "06082a8648ce3d040301", 0x34},
		{0x1044, operationSign, "06082a8648ce3d040302", 0x44},
		{0x1045, operationSign, "06082a8648ce3d040303", 0x54},
		{0x1050, operationKeyAgreement, "06062b81040112", 0x0B},
	} {
		oid, _ := hex.DecodeString(one.oid) // a constant
		list = append(list, tlv(0x30, integer(i+1), integer(one.mechanism), tlv(0x05),
			bits(one.operation), oid, integer(int(one.reference))))
	}
	return tlv(0x30, integer(0), tlv(0x04, []byte(strings.ToUpper(hex.EncodeToString(serial)))),
		tlv(0x0C, []byte("VRK-FINEID")), tlv(0x80, []byte("HENKILOKORTTI")),
		bits(0, 1, 3), // readonly, loginRequired, eidCompliant
		tlv(algorithms, list...))
}

// Bits of Operations (PKCS #15 v1.1, 6.9).
const (
	operationSign         = 1
	operationKeyAgreement = 9 // of ISO 7816-15
)

// fineID4Applet does the commands of FINEID S4-1 v4: those of ISO 7816-4 for
// files and PINs, key references instead of key files, and a signature in two
// steps (the digest, then the signature).
type fineID4Applet struct {
	iso  pki
	keys map[byte]*key // by key reference

	env  environment
	size int    // of the digest that env.algorithm signs, in bytes
	hash []byte // set for the next signature
}

func (a *fineID4Applet) reset() {
	a.iso.reset()
	a.env, a.size, a.hash = environment{}, 0, nil
}

func (a *fineID4Applet) process(c *Card, cmd command) ([]byte, uint16) {
	if cmd.CLA != 0 {
		return nil, swUnknownCLA
	}
	switch cmd.INS {
	case insSelect:
		return a.selectFile(c, cmd)
	case insReadBinary, insVerify, insChangeReference, insResetRetry, insGetChallenge:
		return a.iso.process(c, cmd)
	case insGetDataOdd:
		return a.pinInfo(cmd)
	case insMSE:
		return nil, a.setEnvironment(cmd)
	case insPSO:
		return a.operate(c, cmd)
	}
	return nil, swUnknownINS
}

// selectFile does SELECT. To select the application, which OpenSC does at
// C_Logout, ends the verification of the PIN that is local to it; PIN1 is
// global, so only a reset ends it (ISO 7816-4 5.4.1: security status).
func (a *fineID4Applet) selectFile(c *Card, cmd command) ([]byte, uint16) {
	out, sw := a.iso.process(c, cmd)
	if sw == swOK && cmd.P1 == 0x04 {
		c.pins[PIN2].verified = false
	}
	return out, sw
}

// pinInfo does GET DATA of a PIN's control information (A0 { 83 reference }).
// The answer is the one of a real card but for the reference, the first byte
// of DF21, which is the tries left, and DF2F, which is 00 until the PIN has
// been changed for the first time. DF28 is the padded length.
func (a *fineID4Applet) pinInfo(cmd command) ([]byte, uint16) {
	if cmd.p1p2() != 0x00FF {
		return nil, swReferenceNotFound
	}
	tag, body, _, ok := readTLV(cmd.Data)
	if !ok || tag != 0xA0 {
		return nil, swWrongData
	}
	tag, ref, _, ok := readTLV(body)
	if !ok || tag != 0x83 || len(ref) != 1 {
		return nil, swWrongData
	}
	p := a.iso.refs[ref[0]]
	if p == nil {
		return nil, swReferenceNotFound
	}
	var changed byte
	if p.changed {
		changed = 1
	}
	return tlv(0xA0, tlv(0x83, ref),
		tlv(0x8C, []byte{0xF0, 0, 0, 0}), tlv(0x9C, []byte{0xF0, 0, 0, 0}),
		tlv(0xDF21, []byte{byte(p.left), 0xFF, 0xA5, 0x03}), tlv(0xDF27, []byte{0xFF, 0xFF}),
		tlv(0xDF28, []byte{byte(a.iso.padded)}), tlv(0xDF2F, []byte{changed})), swOK
}

// digestSizes are of the hash functions by the algorithm reference for ECDSA
// with them; what is longer than the curve's field is not signed here.
var digestSizes = map[byte]int{0x34: 28, 0x44: 32, 0x54: 48}

// setEnvironment does MSE SET of a key reference (84), for signatures with an
// algorithm reference (80).
func (a *fineID4Applet) setEnvironment(cmd command) uint16 {
	if cmd.P1 != 0x41 || cmd.P2 != templateSignature && cmd.P2 != templateConfidentiality {
		return swNotSupported
	}
	env, size := environment{template: cmd.P2}, 0
	for rest := cmd.Data; len(rest) > 0; {
		tag, value, more, ok := readTLV(rest)
		if !ok || len(value) != 1 {
			return swWrongData
		}
		switch tag {
		case 0x80:
			env.algorithm, size = value[0], digestSizes[value[0]]
		case 0x84:
			env.key = a.keys[value[0]]
		default:
			return swWrongData
		}
		rest = more
	}
	switch {
	case env.key == nil:
		return swReferenceNotFound
	case env.template == templateSignature && size == 0:
		return swNotSupported
	}
	a.env, a.size, a.hash = env, size, nil
	return swOK
}

// operate does PERFORM SECURITY OPERATION: HASH takes a digest (90), COMPUTE
// DIGITAL SIGNATURE answers r and s of it; DECIPHER with a point after a
// padding indicator of 00 is ECDH, for the authentication key only.
func (a *fineID4Applet) operate(c *Card, cmd command) ([]byte, uint16) {
	k, signs := a.env.key, a.env.template == templateSignature
	if k == nil {
		return nil, swConditions
	}
	switch {
	case cmd.p1p2() == 0x90A0 && signs:
		tag, digest, rest, ok := readTLV(cmd.Data)
		if !ok || tag != 0x90 || len(rest) != 0 || len(digest) != a.size {
			return nil, swWrongData
		}
		a.hash = bytes.Clone(digest)
		return nil, swOK
	case cmd.p1p2() == 0x9E9A && signs && a.hash != nil:
		digest := a.hash
		a.hash = nil
		return c.ecdsaRaw(k, digest)
	case cmd.p1p2() == 0x8086 && !signs && k == c.authKey:
		if len(cmd.Data) < 2 || cmd.Data[0] != 0 {
			return nil, swWrongData
		}
		return c.ecdh(k, cmd.Data[1:])
	}
	return nil, swConditions
}
