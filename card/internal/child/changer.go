package child

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/miekg/pkcs11"
)

// Flags of CK_TOKEN_INFO for the security officer's PIN (PKCS#11 §3.2).
const (
	soPINFinalTry = 0x200000
	soPINLocked   = 0x400000
)

// change gives the card in a slot a new PIN, if it is still the card with the
// given certificate: no PIN must reach another that has taken its place. The
// old PIN or the PUK is shown to it once.
func (m *module) change(r wire.Request, body []byte) (wire.Answer, error) {
	var answer wire.Answer
	given, fresh, err := split(r, body)
	if err != nil {
		return answer, err
	}
	slot, token, err := m.findToken(r.Reader, r.Ordinal)
	if err != nil {
		return answer, err
	}
	answer.Token = token
	if err := mayChange(answer.Token.Flags, r); err != nil {
		return answer, err
	}
	show, err := m.changer(r.Op)
	if err != nil {
		return answer, err
	}
	session, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return answer, failed("C_OpenSession", err)
	}
	defer m.CloseSession(session)
	certificates, err := m.certificates(session, false)
	if err != nil {
		return answer, err
	}
	if !slices.ContainsFunc(certificates, func(c wire.Certificate) bool { return hasSum(c.DER, r.Certificate) }) {
		return answer, &wire.Fault{Kind: wire.OtherCard, Text: "another card is in the reader"}
	}
	answer.Tried = true
	err = show(session, given, fresh)
	if after, err := m.readToken(slot); err == nil {
		answer.Token = after
	}
	return answer, err
}

func hasSum(der, want []byte) bool {
	sum := sha256.Sum256(der)
	return bytes.Equal(sum[:], want)
}

// split takes the body apart: the old PIN or PUK, then the new PIN. Both are nil
// where they are typed on the PIN pad.
func split(r wire.Request, body []byte) (given, fresh []byte, err error) {
	switch {
	case r.PinPad && r.Split == 0 && len(body) == 0:
		return nil, nil, nil
	case !r.PinPad && 0 < r.Split && r.Split < len(body):
		return body[:r.Split], body[r.Split:], nil
	}
	return nil, nil, &wire.Fault{Kind: wire.Protocol, Text: "two PINs are needed unless the reader has a PIN pad"}
}

// mayChange applies the PIN rules to the token's flags of this moment.
func mayChange(flags uint, r wire.Request) error {
	locked, final := uint(pkcs11.CKF_USER_PIN_LOCKED), uint(pkcs11.CKF_USER_PIN_FINAL_TRY)
	if r.Op == wire.InitPIN {
		locked, final = soPINLocked, soPINFinalTry
	}
	switch {
	case flags&locked != 0:
		return &wire.Fault{Kind: wire.PINLocked, Text: "the token says that it is locked"}
	case flags&final != 0 && !r.ConfirmFinal:
		return &wire.Fault{Kind: wire.FinalTry, Text: "the token says that this is the final try"}
	case r.PinPad && flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH == 0:
		return &wire.Fault{Kind: wire.Protocol, Text: "the reader has no PIN pad"}
	}
	return nil
}

// changer returns how this module changes or unblocks a PIN. By the standard the
// security officer, whose PIN a PUK is to PKCS#11, sets a new one (§5.5). OpenSC
// lets a PUK unblock the PIN in a way that its configuration names; in the one
// that shows the PUK to the card just once and as nothing else it stands for the
// old PIN in C_SetPIN. In that way C_SetPIN changes no PIN, so each of the two
// needs a configuration of its own; with another, the old PIN could be shown to
// the card as the PUK.
func (m *module) changer(op wire.Op) (func(session pkcs11.SessionHandle, given, fresh []byte) error, error) {
	info, err := m.GetInfo()
	if err != nil {
		return nil, failed("C_GetInfo", err)
	}
	opensc := strings.Contains(info.ManufacturerID, "OpenSC")
	switch {
	case opensc && !m.private:
		return nil, &wire.Fault{Kind: wire.NoChange, Text: "it is OpenSC under another name"}
	case opensc, op == wire.SetPIN:
		return m.setPIN, nil
	}
	return m.initPIN, nil
}

func (m *module) setPIN(session pkcs11.SessionHandle, given, fresh []byte) error {
	if err := m.library.setPIN(session, given, fresh); err != nil {
		return failed("C_SetPIN", err)
	}
	return nil
}

func (m *module) initPIN(session pkcs11.SessionHandle, puk, fresh []byte) error {
	if err := m.library.login(session, pkcs11.CKU_SO, puk); err != nil {
		return failed("C_Login", err)
	}
	err := m.library.initPIN(session, fresh)
	_ = m.Logout(session)
	if err == nil {
		return nil
	}
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)) {
		err = pkcs11.Error(pkcs11.CKR_PIN_INVALID) // the PUK was right
	}
	return failed("C_InitPIN", err)
}
