package virtualcard

import (
	"bytes"
	"crypto/rand"
)

// pki is the applet of PKCS #15 cards whose commands are those of ISO 7816-4
// and -8: MyEID and FINEID on SetCOS.
type pki struct {
	padding byte // of PINs, to paddedTo bytes
	padded  int
	refs    map[byte]*pin     // by P2 of VERIFY
	keys    map[uint16]*key   // by key file
	fci     []byte            // what the profile adds to file control information
	data    map[uint16][]byte // GET DATA, by P1 and P2

	env  environment
	half []byte // of a cryptogram that comes in two commands
}

// environment is what MANAGE SECURITY ENVIRONMENT set.
type environment struct {
	template  byte // B6: signature, B8: confidentiality, A4: key agreement
	algorithm byte // of these cards: see the constants
	key       *key
}

const (
	templateSignature       = 0xB6
	templateConfidentiality = 0xB8
	templateAgreement       = 0xA4

	algorithmRaw   = 0x00 // RSA without padding
	algorithmPKCS1 = 0x02 // RSA, the card pads
	algorithmEC    = 0x04
	algorithmSHA1  = 0x10 // with PKCS1: the card makes the DigestInfo
)

// digestInfoSHA1 comes before a SHA-1 digest (RFC 8017, 9.2 note 1).
var digestInfoSHA1 = []byte{0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14}

func (a *pki) reset() { a.env, a.half = environment{}, nil }

func (a *pki) process(c *Card, cmd command) ([]byte, uint16) {
	if cmd.CLA != 0 {
		return nil, swUnknownCLA
	}
	if cmd.INS != insPSO {
		a.half = nil
	}
	switch cmd.INS {
	case insSelect:
		return a.selectFile(c, cmd)
	case insReadBinary:
		return c.files.readBinary(cmd)
	case insVerify:
		return nil, a.verify(c, cmd)
	case insChangeReference:
		return nil, a.replace(cmd, c.change)
	case insResetRetry:
		return nil, a.replace(cmd, c.unblock)
	case insDeauthenticate:
		return nil, a.deauthenticate(cmd)
	case insMSE:
		return nil, a.setEnvironment(cmd)
	case insPSO:
		return a.operate(c, cmd)
	case insGeneralAuth:
		return a.agree(c, cmd)
	case insGetChallenge:
		if cmd.Le == noLe || cmd.Le > 256 {
			return nil, swWrongLength
		}
		out := make([]byte, cmd.Le)
		rand.Read(out)
		return out, swOK
	case insGetData:
		if data, ok := a.data[cmd.p1p2()]; ok {
			return data, swOK
		}
		return nil, swReferenceNotFound
	}
	return nil, swUnknownINS
}

func (a *pki) selectFile(c *Card, cmd command) ([]byte, uint16) {
	if cmd.P2&^0x0C != 0 {
		return nil, swWrongP1P2
	}
	found, sw := c.files.sel(cmd)
	if sw != swOK || cmd.P2 == 0x0C { // no file control information wanted
		return nil, sw
	}
	return found.fci(a.fci...), swOK
}

// verify does VERIFY; without data it asks for the tries left.
func (a *pki) verify(c *Card, cmd command) uint16 {
	p := a.refs[cmd.P2]
	switch {
	case cmd.P1 != 0:
		return swWrongP1P2
	case p == nil:
		return swReferenceNotFound
	case len(cmd.Data) == 0:
		return p.status()
	case len(cmd.Data) != a.padded:
		return swWrongLength
	}
	return c.verify(p, unpad(cmd.Data, a.padding))
}

// replace does CHANGE REFERENCE DATA and RESET RETRY COUNTER, whose data are
// an old PIN or the PUK and the new PIN, each padded.
func (a *pki) replace(cmd command, do func(p *pin, authority, value []byte) uint16) uint16 {
	p := a.refs[cmd.P2]
	switch {
	case cmd.P1 != 0:
		return swWrongP1P2
	case p == nil || p.role == PUK && cmd.INS == insResetRetry:
		return swReferenceNotFound
	case len(cmd.Data) != 2*a.padded:
		return swWrongLength
	}
	return do(p, unpad(cmd.Data[:a.padded], a.padding), unpad(cmd.Data[a.padded:], a.padding))
}

// deauthenticate ends the verification of one PIN, or of all for P2 0.
func (a *pki) deauthenticate(cmd command) uint16 {
	if p := a.refs[cmd.P2]; p != nil {
		p.verified = false
		return swOK
	}
	if cmd.P2 != 0 {
		return swReferenceNotFound
	}
	for _, p := range a.refs {
		p.verified = false
	}
	return swOK
}

// setEnvironment does MSE SET for a computation: algorithm (80), key file
// (81) and key reference (84), which is not used.
func (a *pki) setEnvironment(cmd command) uint16 {
	if cmd.P1 != 0x41 && cmd.P1 != 0x81 {
		return swNotSupported
	}
	switch cmd.P2 {
	case templateSignature, templateConfidentiality, templateAgreement:
	default:
		return swNotSupported
	}
	env := environment{template: cmd.P2}
	for rest := cmd.Data; len(rest) > 0; {
		tag, value, more, ok := readTLV(rest)
		if !ok {
			return swWrongData
		}
		switch {
		case tag == 0x80 && len(value) == 1:
			env.algorithm = value[0]
		case tag == 0x81 && len(value) >= 2:
			env.key = a.keys[fileID(value[len(value)-2:])]
		case tag == 0x84:
		default:
			return swWrongData
		}
		rest = more
	}
	if env.key == nil {
		return swReferenceNotFound
	}
	a.env = env
	return swOK
}

// operate does PERFORM SECURITY OPERATION: COMPUTE DIGITAL SIGNATURE and
// DECIPHER.
func (a *pki) operate(c *Card, cmd command) ([]byte, uint16) {
	if a.env.key == nil {
		return nil, swConditions
	}
	switch {
	case cmd.p1p2() == 0x9E9A && a.env.template == templateSignature:
		return a.sign(c, cmd.Data)
	case cmd.p1p2() == 0x8086 && a.env.template == templateConfidentiality:
		return a.decipher(c, cmd.Data)
	}
	return nil, swConditions
}

func (a *pki) sign(c *Card, input []byte) ([]byte, uint16) {
	switch a.env.algorithm {
	case algorithmRaw:
		return c.rsaRaw(a.env.key, input)
	case algorithmPKCS1:
		return c.rsaPKCS1(a.env.key, input)
	case algorithmPKCS1 | algorithmSHA1:
		return c.rsaPKCS1(a.env.key, append(bytes.Clone(digestInfoSHA1), input...))
	case algorithmEC:
		return c.ecdsaDER(a.env.key, input)
	}
	return nil, swConditions
}

// decipher takes a cryptogram behind a byte that says what part it is: 00 the
// whole, 81 and 82 the halves of one of 2048 bits, which MyEID cards take in
// two commands.
func (a *pki) decipher(c *Card, input []byte) ([]byte, uint16) {
	if len(input) < 2 {
		return nil, swWrongLength
	}
	part, block := input[0], input[1:]
	switch {
	case part == 0x81:
		a.half = bytes.Clone(block)
		return nil, swOK
	case part == 0x82:
		block, a.half = append(a.half, block...), nil
	case part != 0:
		return nil, swWrongData
	}
	if a.env.algorithm == algorithmPKCS1 {
		return c.rsaDecrypt(a.env.key, block)
	}
	return c.rsaRaw(a.env.key, block)
}

// agree does GENERAL AUTHENTICATE with a point (7C { 85 }): ECDH.
func (a *pki) agree(c *Card, cmd command) ([]byte, uint16) {
	if a.env.key == nil || a.env.template != templateAgreement {
		return nil, swConditions
	}
	tag, body, _, ok := readTLV(cmd.Data)
	if !ok || tag != 0x7C {
		return nil, swWrongData
	}
	tag, point, _, ok := readTLV(body)
	if !ok || tag != 0x85 {
		return nil, swWrongData
	}
	return c.ecdh(a.env.key, point)
}
