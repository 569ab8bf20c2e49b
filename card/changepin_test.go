package card

import (
	"errors"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/softhsm"
)

const (
	newPIN = "567890"
	puk    = "12345678" // the SO PIN of a test card
)

func change(t *testing.T, m *Manager, c *testCard, old, new string, opts UnlockOptions) error {
	t.Helper()
	return m.ChangePIN(within(t), c.auth, NewPIN([]byte(old)), NewPIN([]byte(new)), opts)
}

func unblock(t *testing.T, m *Manager, c *testCard, puk, new string, opts UnlockOptions) error {
	t.Helper()
	return m.UnblockPIN(within(t), c.auth, NewPIN([]byte(puk)), NewPIN([]byte(new)), opts)
}

func triesLeft(t *testing.T, c *testCard) int {
	t.Helper()
	left, err := c.TriesLeft()
	check(t, err)
	return left
}

func TestChangePIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	events, done := m.Subscribe()
	defer done()
	wantError(t, unlock(t, m, c, newPIN, UnlockOptions{}), ErrWrongPIN)
	mustUnlock(t, m, c)
	epoch := onlyCard(t, m).Epoch

	old, fresh := []byte(rightPIN), []byte(newPIN)
	check(t, m.ChangePIN(within(t), c.auth, NewPIN(old), NewPIN(fresh), UnlockOptions{}))
	if strings.Trim(string(old)+string(fresh), "\x00") != "" {
		t.Error("PINs are not wiped")
	}
	next(t, events, WasLocked)
	next(t, events, PINChanged)
	if card := onlyCard(t, m); card.State != Locked || card.Epoch == epoch {
		t.Errorf("after the change the card is %v in epoch %d", card.State, card.Epoch)
	}
	wantError(t, sign(t, m, c), ErrLocked)
	if n := c.count(t, "C_SetPIN"); n != 1 {
		t.Errorf("C_SetPIN was called %d times", n)
	}
	wantError(t, unlock(t, m, c, rightPIN, UnlockOptions{}), ErrWrongPIN)
	check(t, unlock(t, m, c, newPIN, UnlockOptions{})) // refused before it was the PIN
	check(t, sign(t, m, c))
}

func TestChangePINKeepsTries(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{Tries: 3})
	m := start(t, Config{Modules: []string{c.Module()}})
	wantError(t, change(t, m, c, wrongPIN, newPIN, UnlockOptions{}), ErrWrongPIN)
	wantError(t, change(t, m, c, wrongPIN, newPIN, UnlockOptions{}), ErrPINRefusedBefore)
	wantError(t, unlock(t, m, c, wrongPIN, UnlockOptions{}), ErrPINRefusedBefore)
	for _, refused := range []struct{ old, new string }{
		{rightPIN, "123"}, {rightPIN, ""}, {rightPIN, strings.Repeat("1", 13)}, {rightPIN, rightPIN}, {rightPIN, "123\x004"},
	} {
		wantError(t, change(t, m, c, refused.old, refused.new, UnlockOptions{}), ErrNewPIN)
	}
	wantError(t, change(t, m, c, "123", newPIN, UnlockOptions{}), ErrPINLength)
	wantError(t, m.ChangePIN(within(t), c.auth, nil, nil, UnlockOptions{}), ErrPINLength)
	wantError(t, m.ChangePIN(within(t), c.signature, NewPIN([]byte(rightPIN)), NewPIN([]byte(newPIN)), UnlockOptions{}), ErrNotForLogin)
	if left := triesLeft(t, c); left != 2 {
		t.Fatalf("%d tries are left of 3, after one wrong PIN", left)
	}

	wantError(t, change(t, m, c, "1111", newPIN, UnlockOptions{}), ErrWrongPIN)
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{}), ErrFinalTry)
	wantError(t, change(t, m, c, "2222", newPIN, UnlockOptions{ConfirmFinal: true}), ErrPINLocked)
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{ConfirmFinal: true}), ErrPINLocked)
	if n := c.count(t, "C_SetPIN"); n != 3 {
		t.Errorf("C_SetPIN was called %d times", n)
	}
	if !onlyCard(t, m).PIN.Locked {
		t.Error("the PIN is not shown as locked")
	}

	check(t, unblock(t, m, c, puk, newPIN, UnlockOptions{}))
	if card := onlyCard(t, m); card.PIN.Locked || card.PIN.FinalTry || card.State != Locked {
		t.Errorf("after unblocking: %+v, %v", card.PIN, card.State)
	}
	check(t, unlock(t, m, c, newPIN, UnlockOptions{}))
}

func TestUnblockPINKeepsTries(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	wantError(t, unblock(t, m, c, "11111111", newPIN, UnlockOptions{}), ErrWrongPUK)
	err := unblock(t, m, c, "11111111", newPIN, UnlockOptions{ConfirmFinal: true})
	wantError(t, err, ErrPINRefusedBefore)
	wantError(t, err, ErrWrongPUK)
	wantError(t, unblock(t, m, c, "22222222", "123", UnlockOptions{}), ErrNewPIN)
	wantError(t, unblock(t, m, c, "", newPIN, UnlockOptions{}), ErrPINLength)
	wantError(t, unblock(t, m, c, "22222222", newPIN, UnlockOptions{}), ErrWrongPUK)
	if !onlyCard(t, m).PIN.PUKFinalTry {
		t.Error("the PUK's final try, by our own count, is not shown")
	}
	wantError(t, unblock(t, m, c, puk, newPIN, UnlockOptions{}), ErrFinalTry)
	if n := c.count(t, "C_InitPIN"); n != 0 {
		t.Errorf("C_InitPIN was called %d times with a wrong PUK", n)
	}
	check(t, unlock(t, m, c, rightPIN, UnlockOptions{})) // wrong PUKs say nothing of the PIN
	check(t, unblock(t, m, c, puk, newPIN, UnlockOptions{ConfirmFinal: true}))
	if card := onlyCard(t, m); card.PIN.PUKFinalTry || card.State != Locked {
		t.Errorf("after unblocking: %+v, %v", card.PIN, card.State)
	}
	check(t, unlock(t, m, c, newPIN, UnlockOptions{}))
}

func TestAChangerThatEndsOverAPIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	check(t, c.Fault(softhsm.Fault{Function: "C_SetPIN", Action: softhsm.Segfault}))
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{}), ErrModuleCrashed)
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{}), ErrModuleCrashed)
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{}), ErrFinalTry) // who knows what the card saw
	check(t, c.ClearFaults())
	check(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{ConfirmFinal: true}))
	check(t, unlock(t, m, c, newPIN, UnlockOptions{}))
}

func TestAModuleThatChangesNoPIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	check(t, c.Fault(softhsm.Fault{Function: "C_SetPIN", Action: softhsm.Answer, Value: 0x54}))
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{}), ErrNoChange)
	check(t, c.ClearFaults())
	check(t, c.Fault(softhsm.Fault{Function: "C_SetPIN", Action: softhsm.Answer, Value: 0xA2}))
	wantError(t, change(t, m, c, rightPIN, newPIN, UnlockOptions{}), ErrNewPIN)
}

func TestNoPINForAnotherCardThatIsToBeChanged(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	e, err := m.findForLogin(c.auth)
	check(t, err)
	stranger := FingerprintOf([]byte("another card's certificate"))
	shown, err := m.change(within(t), e, m.locksOf(e), stranger, pinChange{
		op: "change the PIN", request: "set-pin", role: roleUser, given: NewPIN([]byte(rightPIN)), new: NewPIN([]byte(newPIN)),
	}, UnlockOptions{})
	if shown || !errors.Is(failure("change", err), ErrRemoved) {
		t.Errorf("shown = %v, err = %v", shown, err)
	}
	if n := c.count(t, "C_SetPIN"); n != 0 {
		t.Errorf("C_SetPIN was called %d times", n)
	}
}

func TestChangePINOnThePad(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	check(t, c.SetQuirks(softhsm.PINPad))
	m := start(t, Config{Modules: []string{c.Module()}})
	check(t, c.SetPad(softhsm.PadWrong, 0))
	wantError(t, m.ChangePIN(within(t), c.auth, nil, nil, UnlockOptions{}), ErrWrongPIN)
	check(t, c.SetPad(softhsm.PadCancelled, 0))
	wantError(t, m.ChangePIN(within(t), c.auth, nil, nil, UnlockOptions{}), ErrPINCancelled)
	check(t, c.SetPad(softhsm.PadRight, 0))
	wantError(t, m.ChangePIN(within(t), c.auth, nil, NewPIN([]byte(newPIN)), UnlockOptions{}), ErrPINLength)
	if n := c.count(t, "C_SetPIN"); n != 2 {
		t.Errorf("C_SetPIN was called %d times", n)
	}
	check(t, m.ChangePIN(within(t), c.auth, nil, nil, UnlockOptions{}))
	check(t, c.SetQuirks(0))
	check(t, m.Refresh(within(t)))
	check(t, unlock(t, m, c, "4321", UnlockOptions{})) // 1234 backwards
}
