package card

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestPINShowsNothing(t *testing.T) {
	secret := []byte("1234567")
	pin := NewPIN(secret)
	encoded, err := json.Marshal(struct{ PIN *PIN }{pin})
	check(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if s := fmt.Sprintf(verb, pin) + string(encoded); strings.Contains(s, "234") || strings.Contains(s, "3132") || strings.Contains(s, "50") {
			t.Errorf("%s shows %s", verb, s)
		}
	}
	pin.Wipe()
	if string(secret) != strings.Repeat("\x00", len(secret)) {
		t.Errorf("Wipe left %q", secret)
	}
	pin.Wipe()
	(*PIN)(nil).Wipe()
}

func TestPINMemory(t *testing.T) {
	memory := newPINMemory(roleUser)
	here, there := Fingerprint{1}, Fingerprint{2}
	certs := []Certificate{{Fingerprint: here}}
	bare := PINState{Initialized: true, Min: 4, Max: 8} // a driver that reports nothing
	try := func(cert Fingerprint, pin string, confirm bool) error {
		return memory.check(cert, NewPIN([]byte(pin)), memory.complete(certs, bare), confirm)
	}
	wantIs := func(got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Fatalf("err = %v, want %v", got, want)
		}
	}

	wantIs(try(here, "1111", false), nil)
	memory.noteRefused(certs, NewPIN([]byte("1111")))
	wantIs(try(here, "1111", true), ErrPINRefusedBefore)
	wantIs(try(here, "11111", false), nil)
	wantIs(try(there, "1111", false), nil) // another card's PIN is another PIN
	memory.noteRefused(certs, NewPIN([]byte("2222")))
	wantIs(try(here, "3333", false), ErrFinalTry) // by our own count
	wantIs(try(here, "3333", true), nil)
	wantIs(try(here, "2222", true), ErrPINRefusedBefore)
	counting := bare
	counting.CountLow = true
	if memory.complete(certs, counting).FinalTry {
		t.Error("a token that counts for itself is not believed")
	}

	memory.noteAccepted(certs)
	wantIs(try(here, "3333", false), nil)
	wantIs(try(here, "1111", false), ErrPINRefusedBefore)

	memory.noteLocked(certs)
	wantIs(try(here, "3333", true), ErrPINLocked)
	memory.noteInserted(certs)
	wantIs(try(here, "3333", false), nil)

	wantIs(try(here, "123", false), ErrPINLength)
	wantIs(try(here, "123456789", false), ErrPINLength)
	wantIs(memory.check(here, nil, bare, false), ErrPINLength)
	pad := bare
	pad.PinPad = true
	wantIs(memory.check(here, nil, pad, false), nil)
	memory.noteRefused(certs, nil)
	memory.noteRefused(certs, nil)
	wantIs(memory.check(here, nil, memory.complete(certs, pad), false), ErrFinalTry)
}

func TestEverySentinelHasAHint(t *testing.T) {
	for _, h := range hints {
		if Hint(fmt.Errorf("wrapped: %w", h.err)) != h.text {
			t.Errorf("%v: its hint is not found", h.err)
		}
	}
	for code, err := range codes {
		if Hint(err) == "" {
			t.Errorf("code %#x: %v has no hint", code, err)
		}
	}
	own := &Error{Op: "test", Err: ErrLocked, Hint: "own"}
	if Hint(own) != "own" || Hint(errors.New("other")) != "" || Hint(nil) != "" {
		t.Error("hints of other errors are wrong")
	}
}

func TestFingerprintText(t *testing.T) {
	f := FingerprintOf([]byte("der"))
	again, err := ParseFingerprint(strings.ToUpper(f.String()))
	if err != nil || again != f {
		t.Errorf("ParseFingerprint(%q) = %v, %v", f, again, err)
	}
	for _, s := range []string{"", "00", strings.Repeat("g", 64), f.String() + "0"} {
		if _, err := ParseFingerprint(s); err == nil {
			t.Errorf("ParseFingerprint(%q) took it", s)
		}
	}
}
