package card

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/softhsm"
)

// The PIN rules, held against whatever can happen: no sequence of requests,
// removals, crashes and kills shows the card more PINs than people entered, one
// of which it is known that it is wrong, or one on the final try that nobody
// confirmed.

// typed is one thing that a person enters.
type typed struct {
	op    string // "unlock", "change" or "unblock"
	given string // the PIN or the PUK
	fresh string
	final bool // confirmed
	err   error
}

// walker takes random steps with one manager and one card.
type walker struct {
	*testing.T
	m      *Manager
	c      *testCard
	random *rand.Rand
	pin    string          // as far as one can know
	wrong  map[string]bool // PINs that the card has refused
	puks   map[string]bool // PUKs that it has refused
	steps  []string        // what happened, for when it goes wrong
	kinds  map[string]int
}

// testPINs are few, so that the same come again.
var (
	testPINs = []string{"1234", "2345", "3456", "4567", "5678", "6789"}
	testPUKs = []string{puk, puk, puk, "11111111", "22222222"}
)

func TestNoSequenceBreaksThePINRules(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("KORTTI_SEED"); s != "" { // the same requests again; what else runs is the machine's business
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		check(t, err)
	}
	t.Logf("KORTTI_SEED=%d", seed)
	const walks, steps = 6, 100
	for walk := range uint64(walks) {
		t.Run(strconv.FormatUint(walk, 10), func(t *testing.T) {
			t.Parallel()
			w := &walker{T: t, random: rand.New(rand.NewPCG(seed, walk)), pin: rightPIN, kinds: map[string]int{}}
			w.c = newTestCard(t, softhsm.Spec{Tries: 3 + w.random.IntN(3)})
			w.m = startQuietly(t, w.c)
			w.forget()
			w.puks = map[string]bool{}
			for range steps {
				w.step()
			}
			t.Logf("%v", w.kinds)
		})
	}
}

// startQuietly starts a manager without looking at what other tests of this
// process leave, as these run beside it.
func startQuietly(t *testing.T, c *testCard) *Manager {
	t.Helper()
	limits := defaultLimits
	limits.login = time.Second
	m, err := newManager(Config{Modules: []string{c.Module()}, Poll: 10 * time.Millisecond}, limits)
	check(t, err)
	t.Cleanup(func() { check(t, m.Close()) })
	check(t, m.Wait(within(t)))
	return m
}

func (w *walker) forget() { w.wrong = map[string]bool{} }

func (w *walker) coin(of int) bool { return w.random.IntN(of) == 0 }

func (w *walker) choose(from []string) string { return from[w.random.IntN(len(from))] }

// step lets one to four people enter something at once while something may
// happen to the card, and then compares what the card saw with what they entered.
func (w *walker) step() {
	w.Helper()
	w.ready()
	entered := []*typed{w.typed()}
	for w.coin(2) && len(entered) < 4 {
		next := w.typed()
		if w.coin(2) {
			*next = *entered[0] // several programs wait for one card
		}
		entered = append(entered, next)
	}
	before, tries := w.counts(), triesLeft(w.T, w.c)
	disturb, name := w.disturbance()
	w.steps = append(w.steps, name)
	var all sync.WaitGroup
	for _, e := range entered {
		all.Go(func() { e.err = w.enter(e) })
	}
	all.Go(disturb)
	all.Wait()
	check(w.T, w.c.ClearFaults())
	after := w.counts()
	shown := func(name string) int { return int(after[name] - before[name]) }
	w.compare(entered, shown, tries, triesLeft(w.T, w.c))
	w.learn(entered)
}

// typed makes up what a person enters, more often the right thing than not.
func (w *walker) typed() *typed {
	e := &typed{op: w.choose([]string{"unlock", "unlock", "unlock", "change", "unblock"}), given: w.choose(testPINs), fresh: w.choose(testPINs), final: w.coin(3)}
	switch {
	case e.op == "unblock":
		e.given = w.choose(testPUKs)
	case w.coin(2):
		e.given = w.pin
	}
	return e
}

func (w *walker) enter(e *typed) error {
	ctx, opts := within(w.T), UnlockOptions{ConfirmFinal: e.final}
	given, fresh := NewPIN([]byte(e.given)), NewPIN([]byte(e.fresh))
	switch e.op {
	case "change":
		return w.m.ChangePIN(ctx, w.c.auth, given, fresh, opts)
	case "unblock":
		return w.m.UnblockPIN(ctx, w.c.auth, given, fresh, opts)
	}
	return w.m.Unlock(ctx, w.c.auth, given, opts)
}

// ready puts the card back where it was pulled, waits until it is shown, and
// locks it now and then, as an unlocked card sees no PIN.
func (w *walker) ready() {
	w.Helper()
	check(w.T, w.c.Insert())
	defer func() {
		if w.Failed() {
			present, err := w.c.Present()
			w.Logf("present: %v %v; the manager shows %+v; the last steps: %v", present, err, w.m.Snapshot(), w.steps[max(0, len(w.steps)-4):])
		}
	}()
	waitFor(w.T, "the card to be shown", func() bool {
		_, _, ok := w.m.Snapshot().Find(w.c.auth)
		return ok
	})
	if w.coin(2) {
		check(w.T, w.m.Lock("", "test"))
	}
}

// disturbance is what else happens during a step.
func (w *walker) disturbance() (do func(), name string) {
	fault := func(f softhsm.Fault) func() {
		check(w.T, w.c.Fault(f)) // before anybody enters anything
		return func() {}
	}
	function := w.choose([]string{"C_Login", "C_SetPIN", "C_InitPIN", "C_OpenSession", "C_GetTokenInfo"})
	pause := time.Duration(w.random.IntN(40)) * time.Millisecond
	later := func(f func()) func() {
		return func() {
			time.Sleep(pause) // to hit any moment, not to wait for one
			f()
		}
	}
	switch w.random.IntN(12) {
	case 0:
		return later(func() { check(w.T, w.c.Pull()) }), "pull"
	case 1:
		return later(func() { check(w.T, errors.Join(w.c.Pull(), w.c.Insert())) }), "pull and insert"
	case 2:
		return later(func() { _ = w.m.Lock("", "test") }), "lock"
	case 3:
		return later(w.kill), "kill"
	case 4:
		return fault(softhsm.Fault{Function: function, Action: softhsm.Segfault, Times: 1}), "segfault in " + function
	case 5:
		return fault(softhsm.Fault{Function: function, Action: softhsm.Answer, Value: 5, Times: 1}), "error of " + function
	case 6:
		return fault(softhsm.Fault{Function: function, Action: softhsm.Forget, Times: 1}), "forget in " + function
	case 7:
		return later(func() { _ = w.m.Refresh(within(w.T)) }), "refresh"
	}
	return func() {}, "calm"
}

// kill ends a child of the manager, whichever it is.
func (w *walker) kill() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for _, mod := range w.m.modules {
		for _, s := range mod.slots {
			switch e := s.entry; {
			case e != nil && e.starting != nil:
				_ = syscall.Kill(e.starting.cmd.Process.Pid, syscall.SIGKILL)
			case e != nil && e.signer != nil:
				_ = syscall.Kill(e.signer.process.cmd.Process.Pid, syscall.SIGKILL)
			}
		}
	}
}

func (w *walker) counts() softhsm.Counts {
	counts, err := w.c.Counts()
	check(w.T, err)
	return counts
}

// compare holds what the card saw against what was entered.
func (w *walker) compare(entered []*typed, shown func(string) int, tries, left int) {
	w.Helper()
	mayShow, mayShowPUK, mayEnd := 0, 0, 0
	refused := map[string]int{}
	changed := false
	for _, e := range entered {
		known := w.wrong
		if e.op == "unblock" {
			known = w.puks
		}
		switch {
		case known[e.given]: // never again
		case e.op == "unblock":
			mayShowPUK++
		default:
			mayShow++
		}
		if e.final {
			mayEnd++
		}
		if errors.Is(e.err, ErrWrongPIN) || errors.Is(e.err, ErrWrongPUK) && !errors.Is(e.err, ErrPINRefusedBefore) {
			refused[e.op+e.given]++
		}
		changed = changed || e.op != "unlock" && e.err == nil
		w.kinds[e.op+": "+cmp.Or(sentinel(e.err), "done")]++
	}
	if changed { // what was wrong may be right now, and wrong again
		mayShow, mayShowPUK = len(entered), len(entered)
	}
	fail := func(what string) {
		w.Helper()
		for _, e := range entered {
			w.Logf("%s %s %s, confirmed %v: %v", e.op, e.given, e.fresh, e.final, e.err)
		}
		w.Fatalf("%s; refused before: %v, %v; tries %d to %d; during: %v", what, w.wrong, w.puks, tries, left, w.steps[len(w.steps)-1])
	}
	switch {
	case shown("pins_shown") > mayShow:
		fail("the card saw more PINs than it should")
	case shown("puks_shown") > mayShowPUK:
		fail("the card saw more PUKs than it should")
	case shown("final_tries") > mayEnd:
		fail("a final try was not confirmed")
	case shown("logins_locked") > 0:
		fail("a locked card was asked")
	case left < tries-mayShow:
		fail("more tries are gone than PINs were entered")
	}
	for _, n := range refused {
		if n > 1 && !changed {
			fail("the card refused the same PIN twice")
		}
	}
}

// learn keeps what people know afterwards.
func (w *walker) learn(entered []*typed) {
	changes := slices.DeleteFunc(slices.Clone(entered), func(e *typed) bool { return e.op == "unlock" || e.err != nil })
	if len(changes) > 0 {
		w.forget()
		w.pin = changes[len(changes)-1].fresh
	}
	for _, e := range entered {
		switch {
		case e.op == "unblock" && errors.Is(e.err, ErrWrongPUK):
			w.puks[e.given] = true
		case e.op != "unblock" && errors.Is(e.err, ErrWrongPIN) && len(changes) == 0:
			w.wrong[e.given] = true
		}
	}
}

// sentinel names an error's kind.
func sentinel(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.err.Error()
		}
	}
	if err != nil {
		return "other: " + err.Error()
	}
	return ""
}
