package card

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
)

// role says what a PIN is for. The roles of one card have memories of their own.
type role string

const (
	roleUser role = "user" // the PIN of CKU_USER, the one that logs in
	rolePUK  role = "puk"  // the PUK, which unblocks it
)

// finalAfter is how many PINs a card may refuse before we take the next try for
// the last, where the token itself says nothing. Cards allow three to five.
const finalAfter = 2

// pinMemory remembers what cards said to PINs, so that software never uses up a
// try that no person meant to use. It is kept for the life of the process: a
// refused PIN stays wrong until the card's PIN is changed or unblocked. PINs
// themselves are not kept: only their HMAC under a key that exists here alone.
type pinMemory struct {
	role role

	mu       sync.Mutex // guards all below
	mac      hash.Hash
	refused  map[Fingerprint]map[[sha256.Size]byte]bool
	refusals map[Fingerprint]int // since the card last took one
	locked   map[Fingerprint]bool
}

func newPINMemory(r role) *pinMemory {
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails (crypto/rand)
	return &pinMemory{
		role:     r,
		mac:      hmac.New(sha256.New, key),
		refused:  map[Fingerprint]map[[sha256.Size]byte]bool{},
		refusals: map[Fingerprint]int{},
		locked:   map[Fingerprint]bool{},
	}
}

// check says whether a PIN may be shown to the card now; a nil PIN is the PIN
// pad's.
func (m *pinMemory) check(cert Fingerprint, pin *PIN, state PINState, confirmFinal bool) error {
	if state.Locked {
		return ErrPINLocked
	}
	if pin == nil {
		if !state.PinPad {
			return fmt.Errorf("%w: none was given, and the reader has no PIN pad", ErrPINLength)
		}
	} else if err := checkLength(pin, state); err != nil {
		return err
	} else if m.wasRefused(cert, pin) {
		return ErrPINRefusedBefore
	}
	if state.FinalTry && !confirmFinal {
		return ErrFinalTry
	}
	return nil
}

// checkLength keeps a PIN from the card that it cannot have.
func checkLength(pin *PIN, state PINState) error {
	switch n := len(pin.bytes); {
	case n == 0:
		return fmt.Errorf("%w: it is empty", ErrPINLength)
	case n < state.Min || state.Max > 0 && n > state.Max:
		return fmt.Errorf("%w: it must have %d to %d characters", ErrPINLength, state.Min, state.Max)
	}
	return nil
}

// complete adds what we know ourselves to what a token says of its PIN. A token
// that says CKF_USER_PIN_COUNT_LOW counts for itself.
func (m *pinMemory) complete(certs []Certificate, state PINState) PINState {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range certs {
		state.Locked = state.Locked || m.locked[c.Fingerprint]
		state.FinalTry = state.FinalTry || m.refusals[c.Fingerprint] >= finalAfter && !state.CountLow
	}
	return state
}

// noteRefused remembers a PIN that the card refused; nil came from a PIN pad.
func (m *pinMemory) noteRefused(certs []Certificate, pin *PIN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range certs {
		m.refusals[c.Fingerprint]++
		if pin == nil {
			continue
		}
		if m.refused[c.Fingerprint] == nil {
			m.refused[c.Fingerprint] = map[[sha256.Size]byte]bool{}
		}
		m.refused[c.Fingerprint][m.fingerprint(c.Fingerprint, pin)] = true
	}
}

// noteUnknown counts a PIN of which nobody knows what became of it: the module
// ended over it. It may have cost a try.
func (m *pinMemory) noteUnknown(certs []Certificate) { m.noteRefused(certs, nil) }

// noteChanged forgets all: the card has another PIN now.
func (m *pinMemory) noteChanged(certs []Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range certs {
		delete(m.refused, c.Fingerprint)
		delete(m.refusals, c.Fingerprint)
		delete(m.locked, c.Fingerprint)
	}
}

// noteLocked remembers that the card said that its PIN is locked.
func (m *pinMemory) noteLocked(certs []Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range certs {
		m.locked[c.Fingerprint] = true
	}
}

// noteAccepted starts the count anew.
func (m *pinMemory) noteAccepted(certs []Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range certs {
		delete(m.refusals, c.Fingerprint)
	}
}

// noteInserted lets a card speak for itself again: its PIN may have been
// unblocked elsewhere, and a login to a locked PIN uses up no try.
func (m *pinMemory) noteInserted(certs []Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range certs {
		delete(m.locked, c.Fingerprint)
	}
}

func (m *pinMemory) wasRefused(cert Fingerprint, pin *PIN) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused[cert][m.fingerprint(cert, pin)]
}

// fingerprint is HMAC(certificate ‖ role ‖ PIN); mu must be held.
func (m *pinMemory) fingerprint(cert Fingerprint, pin *PIN) (sum [sha256.Size]byte) {
	m.mac.Reset()
	m.mac.Write(cert[:])
	m.mac.Write([]byte(m.role))
	m.mac.Write(pin.bytes)
	m.mac.Sum(sum[:0])
	m.mac.Reset()
	m.mac.Write(make([]byte, sha256.BlockSize)) // over the PIN in the hash's own buffer
	return sum
}
