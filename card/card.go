// Package card serves a person's smart cards through PKCS#11 and keeps every
// PKCS#11 module out of the process that uses it.
//
// A [Manager] lives in the parent, which may listen on sockets; the modules,
// other people's C code, run in children: the same binary started again. That
// is why [RunIfChild] is the first line of a main function, and of TestMain:
//
//	func main() {
//		card.RunIfChild()
//		cards, err := card.NewManager(card.Config{Modules: []string{"auto"}})
//		...
//		defer cards.Close()
//		err = cards.Unlock(ctx, certificate, card.NewPIN(pin), card.UnlockOptions{})
//		signer, err := cards.Signer(certificate, "asiointi.example.fi")
//		// signer goes into tls.Certificate.PrivateKey
//	}
//
// What it never does: load a module in the parent, keep a PIN after the one
// C_Login for which a person entered it, try a PIN a second time, offer the
// signature key (nonRepudiation, PIN2), select anything by label, or sign
// anything that is not a TLS client's proof of possession.
//
// A [Manager] and all that it hands out are safe for concurrent use.
package card

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"
)

// Config says which modules a [Manager] reads and how.
type Config struct {
	// Modules are paths of PKCS#11 libraries; "auto" stands for those that
	// [Discover] finds. A library named twice is loaded once.
	Modules []string

	// IdleLock locks a card that has signed nothing for this long. 0 is off.
	IdleLock time.Duration

	// Poll is the time between two looks at slots that have no PC/SC reader,
	// and at the slot of an unlocked card. 0 means one second.
	Poll time.Duration

	// Log takes warnings and what the children say. nil discards it.
	Log *slog.Logger

	// Executable is started for the children; its main function must begin
	// with RunIfChild. "" means the running program.
	Executable string
}

// Fingerprint is the SHA-256 of a certificate's DER.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate's DER.
func FingerprintOf(der []byte) Fingerprint { return sha256.Sum256(der) }

// ParseFingerprint reads the form that String writes, in either case.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	if len(s) != hex.EncodedLen(len(f)) {
		return f, fmt.Errorf("a certificate's SHA-256 has 64 hexadecimal digits, not %d characters", len(s))
	}
	if _, err := hex.Decode(f[:], []byte(s)); err != nil {
		return Fingerprint{}, fmt.Errorf("read a certificate's SHA-256: %w", err)
	}
	return f, nil
}

// String writes the fingerprint in lower-case hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText writes the fingerprint as String does.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (f *Fingerprint) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFingerprint(string(text))
	return err
}

// Snapshot is what the manager knew at one moment. It is shared and must not
// be changed.
type Snapshot struct {
	Modules []ModuleInfo
	Readers []Reader
	Epoch   uint64 // raised with every change of any card's epoch
	PCSC    string // why PC/SC readers are not watched; "" when they are or none is needed
	NoPCSC  error  // which of ErrNoPCSC, ErrNoService and ErrServiceRefused that is; nil otherwise

	PCSCReaders  []PCSCReader   // as PC/SC sees them, without any module
	Unrecognized []Unrecognized // of these, the ones with a card that no module shows
}

// Card returns the card with this ID.
func (s Snapshot) Card(id string) (*Card, bool) {
	for _, r := range s.Readers {
		if r.Card != nil && r.Card.ID == id {
			return r.Card, true
		}
	}
	return nil, false
}

// Find returns the certificate with this fingerprint and its card. Where two
// modules read one card, the copy that can be used for login comes first.
func (s Snapshot) Find(f Fingerprint) (*Card, *Certificate, bool) {
	var card *Card
	var cert *Certificate
	for _, r := range s.Readers {
		if r.Card == nil {
			continue
		}
		for i := range r.Card.Certificates {
			c := &r.Card.Certificates[i]
			if c.Fingerprint == f && (cert == nil || c.Login && !cert.Login) {
				card, cert = r.Card, c
			}
		}
	}
	return card, cert, cert != nil
}

// ModuleInfo describes a configured PKCS#11 module.
type ModuleInfo struct {
	Path        string
	Description string // the library's own words, with its version
	Err         error  // why it cannot be used at present; nil when it can
}

// Reader is a PKCS#11 slot: a card reader, or one PIN of the card in it.
type Reader struct {
	Name    string
	Module  string // path of the module that shows it
	Ordinal int    // which of the reader's slots, from 0, where the module has several
	Card    *Card  // nil when empty
}

// State says whether a card can sign.
type State int

// The states of a card.
const (
	Locked           State = iota // a PIN is needed
	Unlocked                      // its signer process lives
	LockNotConfirmed              // the signer is dead but the card's own PIN state could not be reset: pull the card
)

// String returns "locked", "unlocked" or "lock-not-confirmed".
func (s State) String() string {
	switch s {
	case Locked:
		return "locked"
	case Unlocked:
		return "unlocked"
	case LockNotConfirmed:
		return "lock-not-confirmed"
	}
	return fmt.Sprintf("state %d", int(s))
}

// Card is a token in a reader.
type Card struct {
	ID           string // the same while the card stays in its reader
	Label        string // for people; nothing is ever selected by it
	Serial       string // the token's, not unique: use certificates as identities
	Manufacturer string
	Model        string
	PIN          PINState
	State        State
	Epoch        uint64 // raised at unlock, lock and removal
	Certificates []Certificate
}

// PINState is what the token, or our own count of refusals, says of its PIN.
type PINState struct {
	Initialized bool
	PinPad      bool // the PIN is typed on the reader: Unlock takes a nil PIN
	CountLow    bool // a wrong PIN was given since the last good login
	FinalTry    bool // the next wrong PIN may lock the card: Unlock needs ConfirmFinal
	Locked      bool
	ToBeChanged bool // nobody has chosen it yet: the card wants to be activated
	Min, Max    int  // length in bytes; Max 0 means unknown
	PUKFinalTry bool // the next wrong PUK may lock the PUK: UnblockPIN needs ConfirmFinal
	PUKLocked   bool // nobody can unblock the PIN any more
}

// Certificate is an end-entity certificate on a card.
type Certificate struct {
	Fingerprint Fingerprint
	DER         []byte
	X509        *x509.Certificate
	Chain       []*x509.Certificate // CA certificates found on the token, the leaf's issuer first
	KeyID       []byte              // CKA_ID
	KeyType     string              // "RSA-2048", "P-384", …
	Schemes     []tls.SignatureScheme
	MaxVersion  uint16 // tls.VersionTLS12 where the token cannot make TLS 1.3's signatures
	Login       bool   // may be used for a TLS login
	WhyNot      string // the reason when Login is false
}

// EventKind says what an [Event] is about.
type EventKind string

// The kinds of events.
const (
	Inserted      EventKind = "inserted"
	Removed       EventKind = "removed"
	WasUnlocked   EventKind = "unlocked"
	WasLocked     EventKind = "locked"
	PINRefused    EventKind = "pin-refused"
	PINChanged    EventKind = "pin-changed"
	ModuleFailed  EventKind = "module-error"
	SignatureMade EventKind = "signature"
)

// Event says that something changed; the state itself is in [Manager.Snapshot].
type Event struct {
	Kind        EventKind
	Card        string      // the card's ID; "" for a module's event
	Fingerprint Fingerprint // the certificate, where one was used
	Reason      string      // for people: why it was locked, what the module did
	Epoch       uint64      // the card's epoch after the change
}

// UnlockOptions say what the person agreed to.
type UnlockOptions struct {
	// ConfirmFinal says that the person knows that a wrong PIN may lock the
	// card now. Without it Unlock answers ErrFinalTry and touches nothing.
	ConfirmFinal bool
}

// Counters count since the manager's start.
type Counters struct {
	Signatures    uint64 // client proofs signed
	Logins        uint64 // C_Login calls made
	LoginsRefused uint64 // of these, PINs refused by the card
	KeptFromCard  uint64 // PINs refused here, without touching the card
	Locks         uint64 // ends of an unlocked state
	Children      uint64 // processes started
}
