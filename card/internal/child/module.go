package child

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/miekg/pkcs11"
)

// module is an initialised PKCS#11 module.
type module struct {
	*pkcs11.Ctx
	library *library
	private bool // it has a configuration of our own
}

// load makes the library at path ready, which if it is OpenSC reads its
// configuration from the text given, and returns its own description.
func load(path string, configuration []byte) (*module, string, error) {
	done, err := useConfiguration(configuration)
	if err != nil {
		return nil, "", err
	}
	defer done()
	lib, err := open(path)
	if err != nil {
		return nil, "", err
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, "", &wire.Fault{Kind: wire.NoModule, Text: "the dynamic linker refused it"}
	}
	if err := ctx.Initialize(); err != nil {
		return nil, "", failed("C_Initialize", err)
	}
	info, err := ctx.GetInfo()
	if err != nil {
		return nil, "", failed("C_GetInfo", err)
	}
	description := fmt.Sprintf("%s (%s) %d.%d", trim(info.LibraryDescription), trim(info.ManufacturerID),
		info.LibraryVersion.Major, info.LibraryVersion.Minor)
	return &module{Ctx: ctx, library: lib, private: len(configuration) > 0}, description, nil
}

// finalize lets the module clean up; the process ends right after it.
func (m *module) finalize() { _ = m.Finalize() }

// slots lists all slots with the names of the tokens in them.
func (m *module) slots() ([]wire.SlotInfo, error) {
	ids, err := m.slotList()
	if err != nil {
		return nil, failed("C_GetSlotList", err)
	}
	slots := make([]wire.SlotInfo, 0, len(ids))
	for _, id := range ids {
		info, err := m.GetSlotInfo(id)
		if err != nil {
			continue // it went away in between
		}
		slot := wire.SlotInfo{ID: id, Description: trim(info.SlotDescription), Present: info.Flags&pkcs11.CKF_TOKEN_PRESENT != 0}
		if slot.Present {
			m.nameToken(&slot)
		}
		slots = append(slots, slot)
	}
	return slots, nil
}

// nameToken fills in the slot's token. One that left, or that the module does
// not know, counts as absent; any other error may pass, as SoftHSM's does while
// another process writes to the token.
func (m *module) nameToken(slot *wire.SlotInfo) {
	token, err := m.GetTokenInfo(slot.ID)
	switch {
	case err == nil:
		slot.Token = tokenInfo(token)
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT)), errors.Is(err, pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)),
		errors.Is(err, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_RECOGNIZED)):
		slot.Present = false
	default:
		slot.Unread = fault(failed("C_GetTokenInfo", err))
	}
}

// tokenInfo is CK_TOKEN_INFO without padding.
func tokenInfo(info pkcs11.TokenInfo) wire.TokenInfo {
	return wire.TokenInfo{
		Label: trim(info.Label), Manufacturer: trim(info.ManufacturerID), Model: trim(info.Model), Serial: trim(info.SerialNumber),
		Flags: info.Flags, MinPIN: info.MinPinLen, MaxPIN: info.MaxPinLen,
	}
}

// readToken reads CK_TOKEN_INFO.
func (m *module) readToken(slot uint) (*wire.TokenInfo, error) {
	info, err := m.GetTokenInfo(slot)
	if err != nil {
		return nil, failed("C_GetTokenInfo", err)
	}
	token := tokenInfo(info)
	return &token, nil
}

// How long and how often findToken looks.
const (
	settleTime = 500 * time.Millisecond
	settleStep = 20 * time.Millisecond
)

// findToken finds the slot of a card that was there a moment ago, and reads its
// token. A module may take the card, or its reader, for gone or for one that it
// does not know, and find it again at the next look (OpenSC 0.27, when pcsc-lite
// 2.5 answers on a busy machine that it knows no such reader), and the person has
// entered the PIN already. To look again shows the card no PIN.
func (m *module) findToken(reader string, ordinal int) (slot uint, token *wire.TokenInfo, err error) {
	for end := time.Now().Add(settleTime); ; time.Sleep(settleStep) {
		if slot, err = m.slotOf(reader, ordinal); err == nil {
			token, err = m.readToken(slot)
		}
		var f *wire.Fault
		gone := errors.As(err, &f) && (f.Kind == wire.Gone || f.Code == pkcs11.CKR_TOKEN_NOT_PRESENT || f.Code == pkcs11.CKR_TOKEN_NOT_RECOGNIZED)
		if !gone || time.Now().After(end) {
			return slot, token, err
		}
	}
}

// slotOf finds a slot by its reader and its place among the reader's slots (one
// for each PIN with some modules). Slot ids are each process's own: a module
// counts anew when it is told to leave some readers alone.
func (m *module) slotOf(reader string, ordinal int) (uint, error) {
	ids, err := m.slotList()
	if err != nil {
		return 0, failed("C_GetSlotList", err)
	}
	for _, id := range ids {
		info, err := m.GetSlotInfo(id)
		if err != nil || trim(info.SlotDescription) != reader {
			continue
		}
		if ordinal == 0 {
			return id, nil
		}
		ordinal--
	}
	return 0, &wire.Fault{Kind: wire.Gone, Text: "the module does not show the card's reader any more"}
}

// token reads the token in a slot with its certificates, or with their ids
// alone if light, and its mechanisms. It needs no PIN.
func (m *module) token(slot uint, light bool) (*wire.TokenInfo, error) {
	token, err := m.readToken(slot)
	if err != nil {
		return nil, err
	}
	if token.Mechanisms, err = m.mechanisms(slot); err != nil {
		return nil, err
	}
	// A read-only session: some tokens are write-protected and refuse others.
	session, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, failed("C_OpenSession", err)
	}
	defer m.CloseSession(session)
	token.Certificates, err = m.certificates(session, light)
	return token, err
}

// mechanisms returns what a slot's token can do of the mechanisms we know.
func (m *module) mechanisms(slot uint) ([]uint, error) {
	list, err := m.mechanismTypes(slot)
	if err != nil {
		return nil, failed("C_GetMechanismList", err)
	}
	var known []uint
	for _, mechanism := range list {
		switch mechanism {
		case pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS, pkcs11.CKM_RSA_X_509, pkcs11.CKM_ECDSA:
			known = append(known, mechanism)
		}
	}
	return known, nil
}

// Bounds on what a token may make us read: a frame must hold it.
const (
	maxObjects          = 64
	maxCertificateBytes = 128 << 10
)

// certificates reads the token's X.509 certificates, or only their ids if light;
// ones that cannot be read are left out, unless none can be.
func (m *module) certificates(session pkcs11.SessionHandle, light bool) ([]wire.Certificate, error) {
	objects, err := m.find(session, pkcs11.CKO_CERTIFICATE)
	if err != nil {
		return nil, err
	}
	var certificates []wire.Certificate
	var unreadable error
	size := 0
	for _, object := range objects {
		if light {
			certificates = append(certificates, wire.Certificate{ID: m.attribute(session, object, pkcs11.CKA_ID)})
			continue
		}
		der, err := m.read(session, object, pkcs11.CKA_VALUE)
		if err != nil {
			unreadable = failed("C_GetAttributeValue", err)
		}
		if size += len(der); len(der) == 0 || size > maxCertificateBytes {
			continue
		}
		certificates = append(certificates, wire.Certificate{ID: m.attribute(session, object, pkcs11.CKA_ID), DER: der})
	}
	if len(certificates) == 0 {
		return nil, unreadable
	}
	return certificates, nil
}

// find lists a class's objects. It never searches by label: one official
// Finnish module answers that with CKR_ATTRIBUTE_VALUE_INVALID.
func (m *module) find(session pkcs11.SessionHandle, class uint) ([]pkcs11.ObjectHandle, error) {
	if err := m.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}); err != nil {
		return nil, failed("C_FindObjectsInit", err)
	}
	defer m.FindObjectsFinal(session)
	var found []pkcs11.ObjectHandle
	for len(found) < maxObjects {
		some, err := m.FindObjects(session, maxObjects-len(found))
		if err != nil {
			return nil, failed("C_FindObjects", err)
		}
		if len(some) == 0 {
			break
		}
		found = append(found, some...)
	}
	return found, nil
}

// attribute reads one attribute, alone, so that one which a module does not
// know spoils no other; nil if it is not there.
func (m *module) attribute(session pkcs11.SessionHandle, object pkcs11.ObjectHandle, kind uint) []byte {
	value, err := m.read(session, object, kind)
	if err != nil {
		return nil
	}
	return value
}

// failed says which function answered what.
func failed(function string, err error) error {
	var code pkcs11.Error
	if errors.As(err, &code) {
		return &wire.Fault{Kind: wire.PKCS11, Function: function, Code: uint(code)}
	}
	return fmt.Errorf("%s: %w", function, err)
}

// trim removes padding, spaces by the standard, NULs by some modules, and what
// would steer a terminal that it is shown on.
func trim(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}
