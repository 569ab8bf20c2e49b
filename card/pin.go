package card

import (
	"crypto/subtle"
	"fmt"
)

// PIN holds a PIN as bytes that can be wiped. It never becomes a string: every
// way of printing or encoding one shows nothing of it.
type PIN struct{ bytes []byte }

// NewPIN takes b over; the caller must not use it again.
func NewPIN(b []byte) *PIN { return &PIN{bytes: b} }

// Wipe overwrites the PIN with zeros and empties it. A nil PIN is fine.
func (p *PIN) Wipe() {
	if p == nil {
		return
	}
	clear(p.bytes[:cap(p.bytes)])
	p.bytes = nil
}

// equal compares two PINs; a nil PIN is like no other.
func (p *PIN) equal(other *PIN) bool {
	return p != nil && other != nil && subtle.ConstantTimeCompare(p.bytes, other.bytes) == 1
}

// String shows nothing of the PIN.
func (*PIN) String() string { return "***" }

// Format shows nothing of the PIN, whatever the verb.
func (*PIN) Format(f fmt.State, _ rune) { fmt.Fprint(f, "***") }

// MarshalJSON shows nothing of the PIN.
func (*PIN) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// MarshalText shows nothing of the PIN.
func (*PIN) MarshalText() ([]byte, error) { return []byte("***"), nil }
