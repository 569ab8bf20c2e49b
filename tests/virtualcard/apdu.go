package virtualcard

import (
	"encoding/binary"
	"errors"
)

// Status words of ISO 7816-4 table 5 and 6 that the cards answer with.
const (
	swOK                  uint16 = 0x9000
	swMoreData            uint16 = 0x6100 // the low byte is how much more (00: 256 or more)
	swWarningTries        uint16 = 0x63C0 // the low digit is the tries left
	swWrongLength         uint16 = 0x6700
	swLogicalChannel      uint16 = 0x6881
	swSecureMessaging     uint16 = 0x6882
	swLastOfChainExpected uint16 = 0x6883
	swSecurityStatus      uint16 = 0x6982
	swBlocked             uint16 = 0x6983
	swConditions          uint16 = 0x6985
	swNoCurrentFile       uint16 = 0x6986
	swWrongData           uint16 = 0x6A80
	swNotSupported        uint16 = 0x6A81
	swFileNotFound        uint16 = 0x6A82
	swWrongP1P2           uint16 = 0x6A86
	swReferenceNotFound   uint16 = 0x6A88
	swOffset              uint16 = 0x6B00
	swLe                  uint16 = 0x6C00 // the low byte is the right Le
	swUnknownINS          uint16 = 0x6D00
	swUnknownCLA          uint16 = 0x6E00
	swInternal            uint16 = 0x6F00
)

// Instructions of ISO 7816-4 and -8.
const (
	insVerify          = 0x20
	insMSE             = 0x22 // MANAGE SECURITY ENVIRONMENT
	insChangeReference = 0x24
	insPSO             = 0x2A // PERFORM SECURITY OPERATION
	insResetRetry      = 0x2C
	insDeauthenticate  = 0x2E
	insGetChallenge    = 0x84
	insGeneralAuth     = 0x86
	insSelect          = 0xA4
	insReadBinary      = 0xB0
	insGetResponse     = 0xC0
	insGetData         = 0xCA
	insGetDataOdd      = 0xCB
)

// noLe is the Le of a command that expects no data.
const noLe = -1

// command is a command APDU.
type command struct {
	CLA, INS, P1, P2 byte
	Data             []byte
	Le               int // bytes expected, at most: 1 to 65536; noLe: none
}

// p1p2 returns both parameters as one number.
func (c command) p1p2() uint16 { return uint16(c.P1)<<8 | uint16(c.P2) }

var errAPDU = errors.New("the length of the command APDU does not fit its length fields")

// parseAPDU reads a command APDU of any of the cases of ISO 7816-3 12.1, with
// short or extended lengths.
func parseAPDU(raw []byte) (command, error) {
	if len(raw) < 4 {
		return command{}, errAPDU
	}
	c := command{CLA: raw[0], INS: raw[1], P1: raw[2], P2: raw[3], Le: noLe}
	data, le, ok := parseBody(raw[4:])
	if !ok {
		return command{}, errAPDU
	}
	c.Data, c.Le = data, le
	return c, nil
}

func parseBody(body []byte) (data []byte, le int, ok bool) {
	switch {
	case len(body) == 0: // case 1
		return nil, noLe, true
	case len(body) == 1: // case 2, short
		return nil, orMax(int(body[0]), 256), true
	case body[0] != 0: // case 3 or 4, short
		n := int(body[0])
		switch len(body) {
		case 1 + n:
			return body[1:], noLe, true
		case 2 + n:
			return body[1 : 1+n], orMax(int(body[1+n]), 256), true
		}
		return nil, 0, false
	case len(body) < 3:
		return nil, 0, false
	}
	n := int(binary.BigEndian.Uint16(body[1:]))
	if len(body) == 3 { // case 2, extended
		return nil, orMax(n, 65536), true
	}
	if n == 0 {
		return nil, 0, false
	}
	switch len(body) { // case 3 or 4, extended
	case 3 + n:
		return body[3:], noLe, true
	case 5 + n:
		return body[3 : 3+n], orMax(int(binary.BigEndian.Uint16(body[3+n:])), 65536), true
	}
	return nil, 0, false
}

func orMax(n, maximum int) int {
	if n == 0 {
		return maximum
	}
	return n
}

// masked returns a copy of a command for the log, in which the PINs of the
// three commands that carry some are 0xFF. What cannot be parsed is masked
// behind its header.
func masked(raw []byte) []byte {
	out := append([]byte(nil), raw...)
	if len(raw) < 4 {
		return out
	}
	if ins := raw[1]; ins != insVerify && ins != insChangeReference && ins != insResetRetry {
		return out
	}
	first, size := 4, len(raw)-4
	if c, err := parseAPDU(raw); err == nil {
		size = len(c.Data)
		first = 5
		if size > 0 && raw[4] == 0 {
			first = 7
		}
	}
	for i := first; i < first+size; i++ {
		out[i] = 0xFF
	}
	return out
}

// answerAPDU joins data and status word.
func answerAPDU(data []byte, sw uint16) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(nil), data...), sw)
}
