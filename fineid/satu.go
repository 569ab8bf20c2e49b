package fineid

import (
	"errors"
	"fmt"
	"log/slog"
)

// ErrSATU tells that a text is no SATU: wrong length, wrong characters or a
// check character that does not fit. Errors never repeat the text itself,
// since it may be a person's identifier.
var ErrSATU = errors.New("not a SATU (eight digits and a check character)")

// satuAlphabet holds the 31 check characters, the same as in the Finnish
// personal identity code: no G, I, O, Q or Z.
const satuAlphabet = "0123456789ABCDEFHJKLMNPRSTUVWXY"

// SATU is a citizen's electronic client identifier (sähköinen asiointitunnus,
// FINUID): eight digits and a check character. It is comparable; the zero
// value means that there is none.
type SATU struct {
	text [9]byte
}

// ParseSATU reads a SATU in the form in which certificates hold it: exactly
// nine characters, the check character upper-case. The check character is the
// eight-digit number modulo 31 (no specification that we read says so; every
// published value agrees). Errors wrap ErrSATU.
func ParseSATU(s string) (SATU, error) {
	var satu SATU
	if len(s) != len(satu.text) {
		return SATU{}, fmt.Errorf("%w: %d characters instead of %d", ErrSATU, len(s), len(satu.text))
	}
	number := 0
	for _, c := range []byte(s[:8]) {
		if c < '0' || c > '9' {
			return SATU{}, fmt.Errorf("%w: something else than a digit among the first eight characters", ErrSATU)
		}
		number = number*10 + int(c-'0')
	}
	if s[8] != satuAlphabet[number%len(satuAlphabet)] {
		return SATU{}, fmt.Errorf("%w: the check character does not fit the number", ErrSATU)
	}
	copy(satu.text[:], s)
	return satu, nil
}

// String gives the nine characters, or "" for the zero value.
func (s SATU) String() string {
	if s.IsZero() {
		return ""
	}
	return string(s.text[:])
}

// IsZero tells whether there is no SATU.
func (s SATU) IsZero() bool { return s == SATU{} }

// MarshalText gives the same as String.
func (s SATU) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote; an empty text is the zero value.
func (s *SATU) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*s = SATU{}
		return nil
	}
	parsed, err := ParseSATU(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// LogValue keeps the identifier out of logs.
func (s SATU) LogValue() slog.Value {
	if s.IsZero() {
		return slog.StringValue("none")
	}
	return slog.StringValue("[SATU]")
}
