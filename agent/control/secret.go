package control

import (
	"encoding/json"
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

// Secret holds a PIN on its way to the agent. It prints as "***" and is kept as
// bytes so that Wipe can clear it; it is written out by the client alone.
type Secret []byte

var errSecret = errors.New("a PIN must be a JSON string of UTF-8 text")

// String hides the secret from every fmt verb that asks for a string.
func (Secret) String() string { return "***" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "***" }

// MarshalJSON refuses to leak: only the client writes a PIN, by its own hand.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal("***") }

// UnmarshalJSON reads a JSON string into bytes of its own, without a Go string
// on the way (a string cannot be wiped).
func (s *Secret) UnmarshalJSON(raw []byte) error {
	s.Wipe() // the key may come twice
	if string(raw) == "null" {
		*s = nil
		return nil
	}
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return errSecret
	}
	raw = raw[1 : len(raw)-1]
	// No escape is shorter than what it stands for, so the bytes never move to
	// a larger array and leave a copy behind.
	out := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		r, n := secretRune(raw)
		if n == 0 {
			clear(out)
			return errSecret
		}
		out = utf8.AppendRune(out, r)
		raw = raw[n:]
	}
	*s = out
	return nil
}

// secretRune decodes one character of the inside of a JSON string (RFC 8259
// section 7) and tells how many bytes it took, 0 for what is not allowed there.
func secretRune(raw []byte) (rune, int) {
	if raw[0] != '\\' {
		r, n := utf8.DecodeRune(raw)
		if r < ' ' || r == '"' || (r == utf8.RuneError && n == 1) {
			return 0, 0
		}
		return r, n
	}
	if len(raw) < 2 {
		return 0, 0
	}
	switch raw[1] {
	case '"', '\\', '/':
		return rune(raw[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hexRune(raw)
		if !ok {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		low, ok := hexRune(raw[6:])
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, 0
		}
		return r, 12
	}
	return 0, 0
}

// hexRune reads the \uXXXX that raw starts with.
func hexRune(raw []byte) (rune, bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range raw[2:6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// appendJSON appends the secret as a JSON string; dst must have room for
// secretJSONLen bytes, so that no copy is left in a smaller array.
func (s Secret) appendJSON(dst []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// secretJSONLen is the most that appendJSON adds for a secret of n bytes.
func secretJSONLen(n int) int { return 6*n + 2 }

// Wipe overwrites the secret with zeros.
func (s Secret) Wipe() { clear(s) }
