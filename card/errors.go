package card

import (
	"errors"
	"fmt"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// What can go wrong, for errors.Is. Each has a hint for the person: see [Hint].
var (
	ErrNoReader         = errors.New("no card reader")
	ErrNoCard           = errors.New("no card with this certificate")
	ErrRemoved          = errors.New("the card was removed")
	ErrWrongPIN         = errors.New("wrong PIN")
	ErrFinalTry         = errors.New("the next wrong PIN may lock the card")
	ErrPINLocked        = errors.New("the PIN is locked")
	ErrPINCancelled     = errors.New("the PIN entry was cancelled")
	ErrPINRefusedBefore = errors.New("the card has refused this PIN before")
	ErrPINLength        = errors.New("the PIN is too short or too long")
	ErrWrongPUK         = errors.New("wrong PUK")
	ErrPUKLocked        = errors.New("the PUK is locked")
	ErrNewPIN           = errors.New("the new PIN cannot be used")
	ErrNoChange         = errors.New("the PIN cannot be changed through this PKCS#11 module")
	ErrPINUnusable      = errors.New("the PIN cannot be used as it is")
	ErrModule           = errors.New("the PKCS#11 module cannot be used")
	ErrModuleFailed     = errors.New("the PKCS#11 module failed")
	ErrModuleCrashed    = errors.New("the PKCS#11 module crashed")
	ErrModuleHung       = errors.New("the PKCS#11 module did not answer")
	ErrMechanism        = errors.New("the card cannot make this kind of signature")
	ErrNotForLogin      = errors.New("this certificate is not for login")
	ErrNotAProof        = errors.New("refused to sign: not a TLS client's proof for this host")
	ErrLocked           = errors.New("the card is locked")
	ErrLockNotConfirmed = errors.New("the card could not be reset: its lock is not confirmed")
	ErrClosed           = errors.New("the card manager is closed")
)

// hints say what the person can do, one sentence each.
var hints = []struct {
	err  error
	text string
}{
	{ErrWrongPUK, "Check the PUK on the letter that came with the card and enter it again; too many wrong PUKs make the card useless."},
	{ErrPUKLocked, "Order a new card: nobody can unblock this one any more."},
	{ErrNewPIN, "Choose another new PIN, of the length that the card expects."},
	{ErrNoChange, "Use the card issuer's program, or another PKCS#11 module."},
	{ErrNoReader, "Connect a card reader and check that the smart card service (pcscd) runs."},
	{ErrNoCard, "Insert the card that holds this certificate."},
	{ErrRemoved, "Insert the card again and enter its PIN."},
	{ErrWrongPIN, "Check the PIN and enter it again; too many wrong PINs lock the card."},
	{ErrFinalTry, "Make sure that the PIN is right, then confirm that you want to use what may be the last try."},
	{ErrPINLocked, "Unblock the PIN with the card's PUK: kortti pin unblock."},
	{ErrPINCancelled, "Start again when you want to use the card."},
	{ErrPINRefusedBefore, "Enter another PIN: this one is wrong, and trying it again would only bring the card nearer to locking."},
	{ErrPINLength, "Enter a PIN of the length that the card expects."},
	{ErrPINUnusable, "Activate the card or change its PIN first: kortti pin change, or the card issuer's program."},
	{ErrModule, "Install a PKCS#11 module for the card, or correct its path in the configuration."},
	{ErrModuleFailed, "Try again; if it happens again, take the card out and put it back."},
	{ErrModuleCrashed, "Try again; if it happens again, update the card's PKCS#11 module or use another."},
	{ErrModuleHung, "Try again; if it happens again, take the card out and put it back."},
	{ErrMechanism, "Use another card or another PKCS#11 module: this pair cannot make the signature that is needed."},
	{ErrNotForLogin, "Choose the card's authentication certificate."},
	{ErrNotAProof, "Close the program that asked: it wanted a signature for something else than this login."},
	{ErrLocked, "Unlock the card with its PIN."},
	{ErrLockNotConfirmed, "Pull the card out of the reader: another program is holding it."},
	{ErrClosed, "Start the program again."},
}

// Error is a failure of a card operation. Err is, or wraps, one of the
// sentinels of this package, for errors.Is.
type Error struct {
	Op       string // what was tried, as in "unlock the card"
	Function string // the PKCS#11 function that failed, "" if none
	Code     uint   // its CK_RV
	Err      error
	Hint     string // "" means the hint of the sentinel in Err
}

// Error says what was tried, why it failed and what the module answered.
func (e *Error) Error() string {
	if e.Function == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %v (%s answered 0x%X)", e.Op, e.Err, e.Function, e.Code)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns one English sentence that says what the person can do about
// err, or "" when there is nothing special to do.
func Hint(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Hint != "" {
		return e.Hint
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	return ""
}

// codes says what the return values of PKCS#11 functions mean here (PKCS#11
// v2.40 §5.1). Those that are missing are ErrModuleFailed.
var codes = map[uint]error{
	0x01:  ErrPINCancelled, // CKR_CANCEL
	0x20:  ErrMechanism,    // CKR_DATA_INVALID
	0x21:  ErrMechanism,    // CKR_DATA_LEN_RANGE
	0x32:  ErrRemoved,      // CKR_DEVICE_REMOVED
	0x50:  ErrPINCancelled, // CKR_FUNCTION_CANCELED
	0x62:  ErrMechanism,    // CKR_KEY_SIZE_RANGE
	0x63:  ErrMechanism,    // CKR_KEY_TYPE_INCONSISTENT
	0x68:  ErrMechanism,    // CKR_KEY_FUNCTION_NOT_PERMITTED
	0x70:  ErrMechanism,    // CKR_MECHANISM_INVALID
	0x71:  ErrMechanism,    // CKR_MECHANISM_PARAM_INVALID
	0x82:  ErrRemoved,      // CKR_OBJECT_HANDLE_INVALID: handles die with the card
	0xA0:  ErrWrongPIN,     // CKR_PIN_INCORRECT
	0xA1:  ErrWrongPIN,     // CKR_PIN_INVALID
	0xA2:  ErrPINLength,    // CKR_PIN_LEN_RANGE
	0xA3:  ErrPINUnusable,  // CKR_PIN_EXPIRED
	0xA4:  ErrPINLocked,    // CKR_PIN_LOCKED
	0xB0:  ErrRemoved,      // CKR_SESSION_CLOSED
	0xB3:  ErrRemoved,      // CKR_SESSION_HANDLE_INVALID
	0xE0:  ErrRemoved,      // CKR_TOKEN_NOT_PRESENT
	0x101: ErrLocked,       // CKR_USER_NOT_LOGGED_IN: another program reset the card
	0x102: ErrPINUnusable,  // CKR_USER_PIN_NOT_INITIALIZED
	0x200: ErrPINCancelled, // CKR_FUNCTION_REJECTED
}

// failure turns what a child answered, or why it ended, into an *Error.
func failure(op string, err error) error {
	var f *wire.Fault
	if !errors.As(err, &f) {
		return &Error{Op: op, Err: err}
	}
	switch f.Kind {
	case wire.PKCS11:
		sentinel, ok := codes[f.Code]
		if !ok {
			sentinel = ErrModuleFailed
		}
		return &Error{Op: op, Function: f.Function, Code: f.Code, Err: sentinel}
	case wire.NoModule:
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrModule, f)}
	case wire.OtherCard:
		return &Error{Op: op, Err: ErrRemoved, Hint: "Another card is in the reader: insert the one you want to use."}
	case wire.Gone:
		return &Error{Op: op, Err: ErrRemoved}
	case wire.FinalTry:
		return &Error{Op: op, Err: ErrFinalTry}
	case wire.PINLocked:
		return &Error{Op: op, Err: ErrPINLocked}
	case wire.NoChange:
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrNoChange, f)}
	case wire.NotProof:
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrNotAProof, f)}
	case wire.NoKey:
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrMechanism, f)}
	}
	return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrModuleFailed, f)}
}
