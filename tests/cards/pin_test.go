package cards

import (
	"errors"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

const (
	newPIN   = "567890"
	rightPUK = "12345678"
	wrongPUK = "87654321"
)

func (c *testCard) changePIN(t testing.TB, m *card.Manager, old, new string) error {
	t.Helper()
	return m.ChangePIN(within(t), c.auth, card.NewPIN([]byte(old)), card.NewPIN([]byte(new)), card.UnlockOptions{})
}

func (c *testCard) unblockPIN(t testing.TB, m *card.Manager, puk, new string) error {
	t.Helper()
	return m.UnblockPIN(within(t), c.auth, card.NewPIN([]byte(puk)), card.NewPIN([]byte(new)), card.UnlockOptions{})
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("err = %v, want one that is %q", err, want)
	}
}

// wantTries checks what the card itself counts.
func (c *testCard) wantTries(t testing.TB, ref virtualcard.PINRef, want int) {
	t.Helper()
	if left := c.TriesLeft(ref); left != want {
		t.Fatalf("%v has %d tries left, want %d", ref, left, want)
	}
}

// A PIN is changed while the card is unlocked, whatever the system's settings
// have C_SetPIN mean; a wrong old PIN costs one try of the PIN and none of the
// PUK.
func TestChangePIN(t *testing.T) {
	for name, settings := range map[string]string{"standard": "", "unblocks": "pkcs11 { user_pin_unblock_style = set_pin_in_unlogged_session; }"} {
		t.Run(name, func(t *testing.T) {
			eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
				systemSettings(t, settings)
				pcscd.Start(t)
				c := newCard(t, virtualcard.Spec{Profile: p})
				m := start(t, card.Config{})
				c.insert(t, pcscd.Address0)
				c.ready(t, m)
				tries, pukTries := c.TriesLeft(virtualcard.PIN1), c.TriesLeft(virtualcard.PUK)

				wantError(t, c.changePIN(t, m, wrongPIN, newPIN), card.ErrWrongPIN)
				wantError(t, c.changePIN(t, m, wrongPIN, newPIN), card.ErrPINRefusedBefore)
				wantError(t, c.unlock(t, m, wrongPIN), card.ErrPINRefusedBefore)
				c.wantTries(t, virtualcard.PIN1, tries-1)
				c.mustUnlock(t, m)
				check(t, c.changePIN(t, m, rightPIN, newPIN))
				if state, _ := c.state(m); state != card.Locked || c.Verified() {
					t.Fatalf("after the change: %v, verified on the card: %v", state, c.Verified())
				}
				wantError(t, c.unlock(t, m, rightPIN), card.ErrWrongPIN)
				check(t, c.unlock(t, m, newPIN))
				check(t, c.sign(m))
				c.wantTries(t, virtualcard.PIN1, tries)
				c.wantTries(t, virtualcard.PUK, pukTries)
			})
		})
	}
}

// A locked PIN gets a new one by the PUK, of which a wrong one costs one try.
func TestUnblockPIN(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		systemSettings(t, "")
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p, Tries: 2})
		m := start(t, card.Config{})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		pukTries := c.TriesLeft(virtualcard.PUK)

		wantError(t, c.unlock(t, m, wrongPIN), card.ErrWrongPIN)
		final := card.UnlockOptions{ConfirmFinal: true}
		wantError(t, m.Unlock(within(t), c.auth, card.NewPIN([]byte("1111")), final), card.ErrPINLocked)
		c.wantTries(t, virtualcard.PIN1, 0)
		if err := c.unblockPIN(t, m, "1", newPIN); err == nil {
			t.Fatal("a PUK of one digit unblocked the card")
		}
		c.wantTries(t, virtualcard.PUK, pukTries)
		wantError(t, c.unblockPIN(t, m, wrongPUK, newPIN), card.ErrWrongPUK)
		wantError(t, c.unblockPIN(t, m, wrongPUK, newPIN), card.ErrPINRefusedBefore)
		c.wantTries(t, virtualcard.PUK, pukTries-1)
		check(t, c.unblockPIN(t, m, rightPUK, newPIN))
		if shown := c.ready(t, m); shown.PIN.Locked || shown.PIN.FinalTry || shown.State != card.Locked || c.Verified() {
			t.Fatalf("after unblocking: %+v, %v, verified on the card: %v", shown.PIN, shown.State, c.Verified())
		}
		check(t, c.unlock(t, m, newPIN))
		check(t, c.sign(m))
	})
}

// A card that nobody has activated says so, and a first change activates it.
func TestActivation(t *testing.T) {
	for _, p := range profiles() {
		if p != virtualcard.FINEID40 && p != virtualcard.FINEID41 {
			continue // the others have no way to say it
		}
		t.Run(string(p), func(t *testing.T) {
			systemSettings(t, "")
			pcscd.Start(t)
			c := newCard(t, virtualcard.Spec{Profile: p, NotActivated: true})
			m := start(t, card.Config{})
			c.insert(t, pcscd.Address0)
			if !c.ready(t, m).PIN.ToBeChanged {
				t.Fatal("the card is not shown as one to be activated")
			}
			err := c.unlock(t, m, wrongPIN)
			wantError(t, err, card.ErrWrongPIN)
			if hint := card.Hint(err); !strings.Contains(hint, "not been activated") {
				t.Errorf("hint %q says nothing of activation", hint)
			}
			check(t, c.changePIN(t, m, rightPIN, newPIN))
			if c.ready(t, m).PIN.ToBeChanged {
				t.Error("the card is still shown as one to be activated")
			}
			check(t, c.unlock(t, m, newPIN))
		})
	}
}
