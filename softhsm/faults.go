package softhsm

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Action is what goes wrong in a call; see [Fault].
type Action uint64

// The actions. shim/state.h has the same list.
const (
	_          Action = iota
	Segfault          // the process ends by SIGSEGV
	Abort             // the process ends by SIGABRT
	Exit              // the process ends by _exit(Value)
	Hang              // the call does not return before [Card.ClearFaults]
	Delay             // the call takes Value milliseconds longer
	Answer            // the call answers the CK_RV Value and does nothing
	Forget            // sessions and logins of all processes are dead, as if the card had been out for a moment
	Print             // the call prints Value lines to stdout and to stderr
	Announce          // where only a length is asked for, the answer is Value
	Deliver           // the answer itself is told to be Value long, whatever was written
	Scramble          // every byte of the structure answered is Value
	lastAction = Scramble
)

// Fault is something that goes wrong in a card's module, in whichever process
// uses it. Announce and Deliver are for C_GetSlotList, C_GetMechanismList,
// C_FindObjects (Deliver only), C_GetAttributeValue and C_Sign; Scramble is for
// C_GetInfo, C_GetSlotInfo and C_GetTokenInfo.
type Fault struct {
	Function string // the PKCS#11 function, "C_Sign"; not C_GetFunctionList, which no card's state is known to
	Action   Action
	Value    uint64
	First    int // the first call that goes wrong, counted from now; 0 means 1
	Times    int // how many calls from there on go wrong; 0 means all
}

// fault is struct fault of shim/state.h.
type fault struct {
	function    [24]byte
	action      atomic.Uint64
	value       atomic.Uint64
	first, last atomic.Uint64
	calls       atomic.Uint64
}

// Fault adds a fault to those that the card has, of which there can be 16.
func (c *Card) Fault(f Fault) error {
	if f.Action < 1 || f.Action > lastAction || f.First < 0 || f.Times < 0 {
		return fmt.Errorf("test card %s: %+v is no fault", c.Name(), f)
	}
	var result error
	err := c.withState(func(s *state) { result = s.add(f) })
	if err = errors.Join(err, result); err != nil {
		return fmt.Errorf("test card %s: %w", c.Name(), err)
	}
	return nil
}

func (s *state) add(f Fault) error {
	if !s.counts(f.Function) {
		return fmt.Errorf("%q is no function whose faults can be set", f.Function)
	}
	for i := range s.faults {
		free := &s.faults[i]
		if free.action.Load() != 0 {
			continue
		}
		first := max(uint64(f.First), 1)
		last := uint64(0)
		if f.Times > 0 {
			last = first + uint64(f.Times) - 1
		}
		free.function = [24]byte{}
		copy(free.function[:], f.Function)
		free.value.Store(f.Value)
		free.first.Store(first)
		free.last.Store(last)
		free.calls.Store(0)
		free.action.Store(uint64(f.Action)) // last: from here on the shim sees it
		return nil
	}
	return fmt.Errorf("a card has room for %d faults", len(s.faults))
}

// counts says whether the shim has a counter of this name, for which it must
// have been loaded once, as it was when the card was made.
func (s *state) counts(name string) bool {
	for i := range s.counters {
		if n := string(bytes.TrimRight(s.counters[i].name[:], "\x00")); n != "" && n == name {
			return len(name) < len(fault{}.function)
		}
	}
	return false
}

// ClearFaults takes all faults away; calls that hang go on.
func (c *Card) ClearFaults() error {
	return c.withState(func(s *state) {
		for i := range s.faults {
			s.faults[i].action.Store(0)
		}
	})
}

// Quirks are ways of real modules and cards that are no faults. They can be
// combined; shim/state.h has the same list.
type Quirks uint64

// The quirks.
const (
	NoPSS          Quirks = 1 << iota // no CKM_RSA_PKCS_PSS
	NoRawRSA                          // no CKM_RSA_X_509
	NoPKCS1                           // no CKM_RSA_PKCS
	PINPad                            // the PIN is typed on the reader: see [Card.SetPad]
	WriteProtected                    // no read-write sessions
	NoLabelSearch                     // a search with CKA_LABEL answers CKR_ATTRIBUTE_VALUE_INVALID
	WholeDigests                      // CKM_ECDSA takes no digest shorter than P-384
	NULPadding                        // texts are padded with NUL instead of spaces
)

// SetQuirks gives the card these quirks and no others.
func (c *Card) SetQuirks(q Quirks) error {
	return c.withState(func(s *state) { s.quirks.Store(uint64(q)) })
}

// PadAnswer is what the person at the PIN pad does.
type PadAnswer uint64

// The answers at the PIN pad; shim/state.h has the same list.
const (
	PadRight     PadAnswer = iota // types the PIN of the card
	PadWrong                      // types another
	PadCancelled                  // presses the cancel key
)

// SetPad says what the person at the PIN pad will do from now on, and how long
// they take, in whole milliseconds. It matters to a card with [PINPad], whose
// C_Login and C_SetPIN take no PIN but NULL; "logins_pad" of [Counts] says how
// often the pad asked. As their new PIN the person types the old one backwards.
func (c *Card) SetPad(answer PadAnswer, takes time.Duration) error {
	return c.withState(func(s *state) {
		s.padDelayMS.Store(uint64(max(takes, 0).Milliseconds()))
		s.padAnswer.Store(uint64(answer))
	})
}
