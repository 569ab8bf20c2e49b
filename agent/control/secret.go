package control

import "encoding/json"

// Secret holds a PIN on its way to the agent. It prints as "***" and is kept as
// bytes so that Wipe can clear it; it is written out by the client alone.
type Secret []byte

// String hides the secret from every fmt verb that asks for a string.
func (Secret) String() string { return "***" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "***" }

// MarshalJSON refuses to leak: only the client writes a PIN, by its own hand.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal("***") }

// Wipe overwrites the secret with zeros.
func (s Secret) Wipe() { clear(s) }
