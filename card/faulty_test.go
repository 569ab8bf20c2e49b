package card

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kortti-id/kortti/softhsm"
)

// A module is other people's C code: whatever it does, the manager goes on, says
// what happened, and the next PIN entry works. Each table has a good card beside
// the bad one, which must not notice anything.

// pair is a manager with a card whose module goes wrong and a good one.
type pair struct {
	*Manager
	bad, good *testCard
}

// hangs is the time-out for the kind of call that hangs in a test, and so the
// price of the test; all others keep theirs, as the machine may be slow.
const hangs = time.Second

func newPair(t *testing.T) *pair {
	t.Helper()
	return &pair{bad: newTestCard(t, softhsm.Spec{Label: "bad"}), good: newTestCard(t, softhsm.Spec{Label: "good"})}
}

func (p *pair) start(t *testing.T, poll time.Duration, limits limits) {
	t.Helper()
	p.Manager = startWith(t, Config{Modules: []string{p.bad.Module(), p.good.Module()}, Poll: poll}, limits)
	mustUnlock(t, p.Manager, p.good)
}

func (p *pair) fault(t *testing.T, faults ...softhsm.Fault) {
	t.Helper()
	for _, f := range faults {
		check(t, p.bad.Fault(f))
	}
}

// recovers takes the faults away and wants the bad card to be unlocked and to
// sign within a time, after one C_Login, and the good card to sign.
func (p *pair) recovers(t *testing.T, limit time.Duration) {
	t.Helper()
	check(t, p.bad.ClearFaults())
	began := time.Now()
	waitFor(t, "the card to be shown again", func() bool {
		_, _, ok := p.Snapshot().Find(p.bad.auth)
		return ok
	})
	before := p.bad.count(t, "C_Login")
	check(t, p.Unlock(within(t), p.bad.auth, NewPIN([]byte(rightPIN)), UnlockOptions{ConfirmFinal: true}))
	if took := time.Since(began); took > limit {
		t.Errorf("the next PIN entry worked after %v, want %v", took, limit)
	}
	if n := p.bad.count(t, "C_Login") - before; n != 1 {
		t.Errorf("%d C_Login for one PIN entry", n)
	}
	check(t, sign(t, p.Manager, p.bad))
	check(t, sign(t, p.Manager, p.good))
	if left, err := p.bad.TriesLeft(); err != nil || left != 5 {
		t.Errorf("%d tries are left, want all; %v", left, err)
	}
}

// trouble is a fault and what comes of it.
type trouble struct {
	softhsm.Fault
	err  error
	text string // in the error's text
}

func (tr trouble) String() string { return fmt.Sprintf("%s %d %x", tr.Function, tr.Action, tr.Value) }

func (tr trouble) wantIn(t *testing.T, err error) {
	t.Helper()
	wantError(t, err, tr.err)
	if !strings.Contains(err.Error(), tr.text) {
		t.Errorf("err = %v, want it to say %q", err, tr.text)
	}
}

func crash(functions ...string) (list []trouble) {
	for i, f := range functions {
		switch i % 3 {
		case 0:
			list = append(list, trouble{softhsm.Fault{Function: f, Action: softhsm.Segfault}, ErrModuleCrashed, "SIGSEGV"})
		case 1:
			list = append(list, trouble{softhsm.Fault{Function: f, Action: softhsm.Abort}, ErrModuleCrashed, "SIGABRT"})
		case 2:
			list = append(list, trouble{softhsm.Fault{Function: f, Action: softhsm.Exit, Value: 3}, ErrModuleCrashed, "exit status 3"})
		}
	}
	return list
}

func hang(functions ...string) (list []trouble) {
	for _, f := range functions {
		list = append(list, trouble{softhsm.Fault{Function: f, Action: softhsm.Hang}, ErrModuleHung, "within 1s"})
	}
	return list
}

func answer(err error, code uint64, functions ...string) (list []trouble) {
	for _, f := range functions {
		list = append(list, trouble{softhsm.Fault{Function: f, Action: softhsm.Answer, Value: code}, err, fmt.Sprintf("(%s answered 0x%X)", f, code)})
	}
	return list
}

// garbage has the error of the calls that cannot be believed.
func garbage(action softhsm.Action, values []uint64, functions ...string) (list []trouble) {
	for _, f := range functions {
		for _, v := range values {
			list = append(list, trouble{softhsm.Fault{Function: f, Action: action, Value: v}, ErrModuleFailed, f + ": the module told an impossible length"})
		}
	}
	return list
}

func join(lists ...[]trouble) (all []trouble) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

const unavailable = ^uint64(0) // CK_UNAVAILABLE_INFORMATION

// The bad card is put into its reader while its module goes wrong, and shown
// when it does not any more.
func TestFaultsWhileReading(t *testing.T) {
	p := newPair(t)
	limits := defaultLimits
	limits.slots = hangs
	p.start(t, 10*time.Millisecond, limits)
	shown := func() bool {
		_, _, ok := p.Snapshot().Find(p.bad.auth)
		return ok && p.Snapshot().Modules[0].Err == nil
	}
	reading := []string{"C_GetTokenInfo", "C_GetMechanismList", "C_OpenSession", "C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue"}
	for _, tr := range join(
		crash(append(reading, "C_GetSlotList", "C_GetSlotInfo")...),
		hang("C_GetTokenInfo"),
		answer(ErrModuleFailed, 0x30, append(reading, "C_GetSlotList")...),
		answer(ErrModuleFailed, 0x02, "C_GetTokenInfo"),
		garbage(softhsm.Deliver, []uint64{5000, unavailable - 1}, "C_GetSlotList", "C_GetMechanismList", "C_FindObjects"),
		garbage(softhsm.Announce, []uint64{1 << 20, 1 << 31, 1 << 40}, "C_GetAttributeValue"),
		garbage(softhsm.Deliver, []uint64{1 << 20, unavailable - 1}, "C_GetAttributeValue"),
	) {
		t.Run(tr.String(), func(t *testing.T) {
			check(t, p.bad.Pull())
			waitFor(t, "the card to be gone", func() bool { return !shown() })
			p.fault(t, tr.Fault)
			check(t, p.bad.Insert())
			var err error
			waitFor(t, "the module's error", func() bool { err = p.Snapshot().Modules[0].Err; return err != nil })
			tr.wantIn(t, err)
			check(t, sign(t, p.Manager, p.good))
			check(t, p.bad.ClearFaults())
			waitFor(t, "the card to be shown", shown)
		})
	}
	p.recovers(t, 2*time.Second)
}

// What is nonsense but could be true is shown as it is, or as no card.
func TestNonsenseWhileReading(t *testing.T) {
	p := newPair(t)
	p.start(t, 10*time.Millisecond, defaultLimits)
	for _, f := range []softhsm.Fault{
		{Function: "C_GetSlotList", Action: softhsm.Deliver, Value: 0},
		{Function: "C_GetSlotList", Action: softhsm.Deliver, Value: 5}, // four slots that are not there
		{Function: "C_GetMechanismList", Action: softhsm.Deliver, Value: 0},
		{Function: "C_GetAttributeValue", Action: softhsm.Announce, Value: unavailable},
		{Function: "C_GetAttributeValue", Action: softhsm.Announce, Value: 7},
		{Function: "C_FindObjects", Action: softhsm.Deliver, Value: 30}, // the same, and nothing, for ever
		{Function: "C_GetTokenInfo", Action: softhsm.Scramble, Value: 0xff},
		{Function: "C_GetTokenInfo", Action: softhsm.Scramble, Value: 0x1b},
		{Function: "C_GetTokenInfo", Action: softhsm.Scramble},
		{Function: "C_GetSlotInfo", Action: softhsm.Scramble, Value: 0xff},
		{Function: "C_GetInfo", Action: softhsm.Scramble, Value: 0xff},
	} {
		p.fault(t, f)
		check(t, p.bad.Pull())
		check(t, p.bad.Insert())
		check(t, p.Refresh(within(t)))
		check(t, sign(t, p.Manager, p.good))
		for _, r := range p.Snapshot().Readers {
			if text := r.Name + label(r.Card); strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
				t.Errorf("%+v: %q would be shown", f, text)
			}
		}
		if _, c, ok := p.Snapshot().Find(p.bad.auth); ok && c.Login {
			err := p.Unlock(within(t), p.bad.auth, NewPIN([]byte(rightPIN)), UnlockOptions{})
			if err != nil && Hint(err) == "" {
				t.Errorf("%+v: %v has no hint", f, err)
			}
			check(t, p.Lock("", "test"))
			mustUnlock(t, p.Manager, p.good)
		}
		check(t, p.bad.ClearFaults())
		check(t, p.Refresh(within(t)))
		p.recovers(t, 2*time.Second)
		if p.Snapshot().Modules[0].Err != nil {
			t.Errorf("%+v: the module's error stays: %v", f, p.Snapshot().Modules[0].Err)
		}
		card, _, _ := p.Snapshot().Find(p.bad.auth)
		check(t, p.Lock(card.ID, "test"))
	}
}

func label(c *Card) string {
	if c == nil {
		return ""
	}
	return c.Label + c.Manufacturer + c.Model + c.Serial
}

// No fault costs a PIN try that nobody asked for, and one C_Login at most
// belongs to each PIN entry.
func TestFaultsAtLogin(t *testing.T) {
	p := newPair(t)
	limits := defaultLimits
	limits.login = hangs
	p.start(t, time.Hour, limits)
	before := []string{"C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismList", "C_OpenSession", "C_FindObjectsInit", "C_GetAttributeValue"}
	for _, tr := range join(
		crash(append([]string{"C_Initialize", "C_Login", "C_FindObjects"}, before...)...),
		crash("C_Login"),
		hang("C_OpenSession", "C_Login"),
		answer(ErrModuleFailed, 0x05, append([]string{"C_Initialize", "C_Login"}, before[1:]...)...),
		answer(ErrModuleFailed, 0x30, "C_Login"),  // CKR_DEVICE_ERROR
		answer(ErrModuleFailed, 0x31, "C_Login"),  // CKR_DEVICE_MEMORY
		answer(ErrModuleFailed, 0x06, "C_Login"),  // CKR_FUNCTION_FAILED
		answer(ErrModuleFailed, 0x02, "C_Login"),  // CKR_HOST_MEMORY
		answer(ErrModuleFailed, 0x100, "C_Login"), // CKR_USER_ALREADY_LOGGED_IN says nothing of this PIN
		answer(ErrModuleFailed, 0x150, "C_Login"), // CKR_BUFFER_TOO_SMALL
		answer(ErrRemoved, 0x32, "C_Login", "C_OpenSession"),
		answer(ErrRemoved, 0xB3, "C_Login"),
		answer(ErrRemoved, 0xE0, "C_Login", "C_GetTokenInfo"),
		answer(ErrPINCancelled, 0x50, "C_Login"),
		answer(ErrPINUnusable, 0xA3, "C_Login"), // CKR_PIN_EXPIRED
		answer(ErrPINUnusable, 0x102, "C_Login"),
		garbage(softhsm.Deliver, []uint64{1 << 20}, "C_GetSlotList", "C_FindObjects"),
	) {
		t.Run(tr.String(), func(t *testing.T) {
			p.fault(t, tr.Fault)
			logins := p.bad.count(t, "C_Login")
			tr.wantIn(t, unlock(t, p.Manager, p.bad, rightPIN, UnlockOptions{ConfirmFinal: true}))
			want := uint64(0)
			if tr.Function == "C_Login" {
				want = 1
			}
			if n := p.bad.count(t, "C_Login") - logins; n != want {
				t.Errorf("%d C_Login, want %d", n, want)
			}
			p.recovers(t, 2*time.Second)
			card, _, _ := p.Snapshot().Find(p.bad.auth)
			check(t, p.Lock(card.ID, "test"))
		})
	}
}

// A module that takes the card for gone, and finds it when it looks for slots
// again, costs the person no second PIN.
func TestUnlockLooksAgain(t *testing.T) {
	for _, answered := range []uint64{0xE0, 0xE1} { // CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED
		p := newPair(t)
		p.start(t, time.Hour, defaultLimits)
		p.fault(t, softhsm.Fault{Function: "C_GetTokenInfo", Action: softhsm.Answer, Value: answered, Times: 3})
		logins, lists := p.bad.count(t, "C_Login"), p.bad.count(t, "C_GetSlotList")
		check(t, unlock(t, p.Manager, p.bad, rightPIN, UnlockOptions{}))
		if l, s := p.bad.count(t, "C_Login")-logins, p.bad.count(t, "C_GetSlotList")-lists; l != 1 || s < 4 {
			t.Errorf("%#x: %d C_Login, %d C_GetSlotList", answered, l, s)
		}
	}
}

// A failed signature is an error with its reason, and never a wrong signature;
// it locks the card, unless the card just cannot do what was asked.
func TestFaultsAtSigning(t *testing.T) {
	p := newPair(t)
	limits := defaultLimits
	limits.sign = hangs
	p.start(t, time.Hour, limits)
	for _, tr := range join(
		crash("C_FindObjectsInit", "C_SignInit", "C_Sign", "C_GetAttributeValue"),
		hang("C_FindObjects", "C_Sign"),
		answer(ErrModuleFailed, 0x05, "C_FindObjectsInit", "C_FindObjects", "C_SignInit", "C_Sign"),
		answer(ErrModuleFailed, 0x30, "C_Sign"),
		answer(ErrModuleFailed, 0x31, "C_Sign"),
		answer(ErrModuleFailed, 0x06, "C_Sign"),
		answer(ErrModuleFailed, 0x02, "C_Sign"),
		answer(ErrModuleFailed, 0x150, "C_Sign"), // however large the buffer is
		answer(ErrModuleFailed, 0x90, "C_SignInit"),
		answer(ErrRemoved, 0x32, "C_Sign", "C_SignInit"),
		answer(ErrRemoved, 0xB3, "C_Sign", "C_SignInit"),
		answer(ErrRemoved, 0xE0, "C_Sign"),
		answer(ErrLocked, 0x101, "C_Sign", "C_SignInit"),
		answer(ErrPINCancelled, 0x50, "C_Sign"),
		answer(ErrPINUnusable, 0xA3, "C_Sign"),
		answer(ErrMechanism, 0x70, "C_SignInit"),
		garbage(softhsm.Deliver, []uint64{1 << 40, unavailable - 1, 3000}, "C_Sign"),
		[]trouble{
			{softhsm.Fault{Function: "C_Sign", Action: softhsm.Deliver, Value: 0}, ErrMechanism, "does not belong to the certificate"},
			{softhsm.Fault{Function: "C_Sign", Action: softhsm.Deliver, Value: 95}, ErrMechanism, "does not belong to the certificate"},
			{softhsm.Fault{Function: "C_Sign", Action: softhsm.Deliver, Value: 2000}, ErrMechanism, "does not belong to the certificate"},
			{softhsm.Fault{Function: "C_FindObjects", Action: softhsm.Deliver, Value: 0}, ErrMechanism, "no private key"},
			{softhsm.Fault{Function: "C_FindObjectsInit", Action: softhsm.Forget, Times: 1}, ErrRemoved, ""},
			{softhsm.Fault{Function: "C_Sign", Action: softhsm.Forget, Times: 1}, ErrRemoved, ""},
		},
	) {
		t.Run(tr.String(), func(t *testing.T) {
			mustUnlock(t, p.Manager, p.bad)
			logins := p.bad.count(t, "C_Login")
			p.fault(t, tr.Fault)
			tr.wantIn(t, sign(t, p.Manager, p.bad))
			check(t, sign(t, p.Manager, p.good))
			if n := p.bad.count(t, "C_Login") - logins; n != 0 {
				t.Errorf("%d C_Login that nobody asked for", n)
			}
			if errors.Is(tr.err, ErrMechanism) {
				check(t, p.bad.ClearFaults())
				check(t, sign(t, p.Manager, p.bad))
				return
			}
			p.recovers(t, 2*time.Second)
			card, _, _ := p.Snapshot().Find(p.bad.auth)
			check(t, p.Lock(card.ID, "test"))
		})
	}
}

// The signer alone asks C_GetSessionInfo, when it looks for its card.
func TestFaultsWhileUnlocked(t *testing.T) {
	p := newPair(t)
	limits := defaultLimits
	limits.present = hangs
	p.start(t, 20*time.Millisecond, limits)
	for _, tr := range join(
		crash("C_GetSessionInfo"), hang("C_GetSessionInfo"), answer(ErrModuleFailed, 0x30, "C_GetSessionInfo"),
		answer(ErrRemoved, 0xB3, "C_GetSessionInfo"),
	) {
		t.Run(tr.String(), func(t *testing.T) {
			mustUnlock(t, p.Manager, p.bad)
			events, done := p.Subscribe()
			defer done()
			p.fault(t, tr.Fault)
			kind, text := WasLocked, tr.err.Error()
			if errors.Is(tr.err, ErrRemoved) {
				kind = Removed
			}
			if e := next(t, events, kind); !strings.Contains(e.Reason, text) {
				t.Errorf("event %+v, want %q", e, text)
			}
			p.recovers(t, 2*time.Second)
			card, _, _ := p.Snapshot().Find(p.bad.auth)
			check(t, p.Lock(card.ID, "test"))
		})
	}
}

// A module that does not log out or does not end is killed.
func TestFaultsAtLock(t *testing.T) {
	p := newPair(t)
	p.start(t, time.Hour, defaultLimits)
	for _, tr := range join(
		crash("C_Logout", "C_CloseSession", "C_Finalize"), hang("C_Logout", "C_Finalize"), answer(nil, 0x30, "C_Logout", "C_CloseSession", "C_Finalize"),
	) {
		t.Run(tr.String(), func(t *testing.T) {
			mustUnlock(t, p.Manager, p.bad)
			p.fault(t, tr.Fault)
			before := time.Now()
			card, _, _ := p.Snapshot().Find(p.bad.auth)
			check(t, p.Lock(card.ID, "test"))
			if took := time.Since(before); took > 2*time.Second {
				t.Errorf("the lock took %v", took)
			}
			wantError(t, sign(t, p.Manager, p.bad), ErrLocked)
			p.recovers(t, 2*time.Second)
			check(t, p.Lock(card.ID, "test"))
		})
	}
}

func TestOneCardCrashesWhileAnotherSigns(t *testing.T) {
	p := newPair(t)
	p.start(t, 50*time.Millisecond, defaultLimits)
	mustUnlock(t, p.Manager, p.bad)
	check(t, p.good.SetSignDelay(20*time.Millisecond))
	p.fault(t, softhsm.Fault{Function: "C_Sign", Action: softhsm.Segfault, First: 4})
	var wg sync.WaitGroup
	var good, bad []error
	wg.Go(func() {
		for range 20 {
			good = append(good, sign(t, p.Manager, p.good))
		}
	})
	wg.Go(func() {
		for range 5 {
			bad = append(bad, sign(t, p.Manager, p.bad))
		}
	})
	wg.Wait()
	check(t, errors.Join(good...))
	check(t, errors.Join(bad[:3]...))
	wantError(t, bad[3], ErrModuleCrashed)
	wantError(t, bad[4], ErrLocked)
	p.recovers(t, 2*time.Second)
}

// What happens in the child that lists cards must not cost the person their PIN
// entry.
func TestAFailingListerEndsNoPINEntry(t *testing.T) {
	p := newPair(t)
	p.start(t, 20*time.Millisecond, defaultLimits)
	p.fault(t, softhsm.Fault{Function: "C_Login", Action: softhsm.Hang})
	unlocked := make(chan error, 1)
	go func() { unlocked <- unlock(t, p.Manager, p.bad, rightPIN, UnlockOptions{}) }()
	waitFor(t, "the login to be under way", func() bool { return p.bad.count(t, "C_Login") == 1 })
	p.fault(t, softhsm.Fault{Function: "C_GetSlotList", Action: softhsm.Segfault})
	waitFor(t, "the lister to crash", func() bool { return p.Snapshot().Modules[0].Err != nil })
	check(t, p.bad.ClearFaults())
	check(t, <-unlocked)
	check(t, sign(t, p.Manager, p.bad))
	if n := p.bad.count(t, "C_Login"); n != 1 {
		t.Errorf("%d C_Login, want 1", n)
	}
}

// Whoever waits for a hung login can stop waiting, and someone else can log in.
func TestALockEndsAHungLogin(t *testing.T) {
	p := newPair(t)
	p.start(t, time.Hour, defaultLimits)
	p.fault(t, softhsm.Fault{Function: "C_Login", Action: softhsm.Hang})
	unlocked := make(chan error, 1)
	go func() { unlocked <- unlock(t, p.Manager, p.bad, rightPIN, UnlockOptions{}) }()
	waitFor(t, "the login to be under way", func() bool { return p.bad.count(t, "C_Login") == 1 })
	card, _, _ := p.Snapshot().Find(p.bad.auth)
	check(t, p.Lock(card.ID, "test"))
	wantError(t, <-unlocked, ErrLocked)
	p.recovers(t, 2*time.Second)
}

func TestSlowAndTalkativeModules(t *testing.T) {
	p := newPair(t)
	for _, f := range []string{"C_Initialize", "C_GetTokenInfo", "C_Login", "C_Sign", "C_Finalize"} {
		p.fault(t, softhsm.Fault{Function: f, Action: softhsm.Delay, Value: 100}, softhsm.Fault{Function: f, Action: softhsm.Print, Value: 2000})
	}
	p.start(t, time.Hour, defaultLimits)
	mustUnlock(t, p.Manager, p.bad)
	check(t, sign(t, p.Manager, p.bad))
	check(t, p.Lock("", "test"))
	if n := p.bad.count(t, "C_Logout"); n != 1 {
		t.Errorf("%d C_Logout, want the slow module to log out", n)
	}
}

// A module cannot take all of the machine's memory.
func TestAModuleThatEatsMemoryEnds(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{faulty(t, t.TempDir(), "HOG"), c.Module()}})
	err := m.Snapshot().Modules[0].Err
	wantError(t, err, ErrModuleCrashed)
	mustUnlock(t, m, c)
}
