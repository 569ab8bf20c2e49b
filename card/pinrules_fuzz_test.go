package card

import (
	"errors"
	"testing"
)

// FuzzPINMemory has a card in memory and people who enter PINs in any order, by
// the rules alone: two bytes for each entry. No process is at work, so that it
// sees very many sequences.
func FuzzPINMemory(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add([]byte{0, 1, 0, 2, 0, 3, 64, 3, 128, 0, 0, 1}, false)
	f.Add([]byte{0, 5, 0, 5, 64, 6, 192, 0, 0, 0, 0, 1}, true)
	f.Fuzz(func(t *testing.T, entries []byte, tells bool) {
		const most = 3
		memory, certs := newPINMemory(roleUser), []Certificate{{Fingerprint: Fingerprint{1}}}
		pin, left := byte(0), most
		refused := map[byte]bool{}
		state := func() PINState { // what the token says
			s := PINState{Initialized: true, Min: 1, Max: 1}
			if tells {
				s.CountLow, s.FinalTry, s.Locked = left < most, left == 1, left == 0
			}
			return memory.complete(certs, s)
		}
		for len(entries) >= 2 {
			what, given := entries[0], NewPIN([]byte{entries[1]})
			value := entries[1]
			entries = entries[2:]
			confirmed := what&64 != 0
			if what&128 != 0 { // unblocked, by the PUK
				pin, left, refused = value, most, map[byte]bool{}
				memory.noteChanged(certs)
				continue
			}
			err := memory.check(certs[0].Fingerprint, given, state(), confirmed)
			switch {
			case refused[value] && err == nil:
				t.Fatalf("PIN %d was refused and is tried again", value)
			case left == 1 && err == nil && !confirmed:
				t.Fatal("the final try was not confirmed")
			case left == 0 && err == nil && tells:
				t.Fatal("a locked card is asked")
			case value == pin && errors.Is(err, ErrPINRefusedBefore):
				t.Fatal("the right PIN counts as refused")
			case err != nil:
				continue
			}
			switch { // the card
			case left == 0:
				memory.noteLocked(certs)
			case value == pin:
				left = most
				memory.noteAccepted(certs)
			default:
				left--
				refused[value] = true
				memory.noteRefused(certs, given)
			}
		}
	})
}
