package virtualcard

import "bytes"

// PINRef names one of a card's PINs by its role.
type PINRef int

// The PINs of every profile.
const (
	PIN1 PINRef = iota // authentication
	PIN2               // signature: one operation for each entry
	PUK                // unblocks PIN1 and PIN2
)

// pin is a reference datum with its counter and its part of the security
// state. The card's lock guards it.
type pin struct {
	role     PINRef
	value    []byte // without padding
	left     int    // tries
	max      int    // tries after a right entry
	shortest int    // bytes
	longest  int
	oneShot  bool // a verification is good for one use of a key
	verified bool
	changed  bool // by its holder, since the card was made
}

// status is the answer to an empty VERIFY: whether the PIN is verified, else
// how many tries are left (ISO 7816-4 11.5.6).
func (p *pin) status() uint16 {
	if p.verified {
		return swOK
	}
	return p.refused()
}

// refused says how many tries are left, or that there are none.
func (p *pin) refused() uint16 {
	if p.left == 0 {
		return swBlocked
	}
	return swWarningTries | uint16(p.left)
}

// check compares a presented value and keeps the counter; it changes no
// security state but that a wrong value ends a verification.
func (p *pin) check(value []byte) uint16 {
	if p.left == 0 {
		p.verified = false
		return swBlocked
	}
	if !bytes.Equal(value, p.value) {
		p.left--
		p.verified = false
		return p.refused()
	}
	p.left = p.max
	return swOK
}

// accepts tells whether a new value may be set.
func (p *pin) accepts(value []byte) bool {
	return len(value) >= p.shortest && len(value) <= p.longest
}

// present checks a value that the reader sent and counts it.
func (c *Card) present(p *pin, value []byte) uint16 {
	if p.role == PIN1 {
		c.counts.Verifies++
	}
	sw := p.check(value)
	if sw != swOK {
		c.counts.Refused++
	}
	return sw
}

// verify presents a PIN. Values are unpadded here and below.
func (c *Card) verify(p *pin, value []byte) uint16 {
	sw := c.present(p, value)
	if sw == swOK {
		p.verified = true
	}
	return sw
}

// change replaces a PIN, which its old value allows. The PIN is verified
// afterwards, as its old value was right.
func (c *Card) change(p *pin, old, value []byte) uint16 {
	if !p.accepts(value) {
		return swWrongData
	}
	if sw := c.present(p, old); sw != swOK {
		return sw
	}
	p.value, p.changed, p.verified = bytes.Clone(value), true, true
	return swOK
}

// unblock sets a new value and full tries, which the right value of the PUK
// allows. The PIN is not verified afterwards.
func (c *Card) unblock(p *pin, puk, value []byte) uint16 {
	if !p.accepts(value) {
		return swWrongData
	}
	if sw := c.present(c.pin(PUK), puk); sw != swOK {
		return sw
	}
	p.value, p.left, p.changed, p.verified = bytes.Clone(value), p.max, true, false
	return swOK
}

// unpad removes the padding that a terminal adds to a PIN.
func unpad(value []byte, padding byte) []byte {
	n := len(value)
	for n > 0 && value[n-1] == padding {
		n--
	}
	return value[:n]
}
