package card

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/kortti-id/kortti/softhsm"
)

// startInReader makes a manager that takes the test card's slot for a PC/SC
// reader's. There is no PC/SC service, so nothing overwrites that soon.
func startInReader(t *testing.T, c *testCard) (*Manager, []wire.Reader) {
	t.Helper()
	limits := defaultLimits
	limits.service = time.Hour // the service that is not there shall not be looked for again
	return startInReaderWith(t, c, limits)
}

func startInReaderWith(t *testing.T, c *testCard, limits limits) (*Manager, []wire.Reader) {
	t.Helper()
	m := startWith(t, Config{Modules: []string{c.Module()}, Poll: 50 * time.Millisecond}, limits)
	if m.Snapshot().PCSC == "" {
		t.Fatal("the test means a machine without a PC/SC service")
	}
	var readers []wire.Reader
	for _, r := range m.Snapshot().Readers {
		readers = append(readers, wire.Reader{Name: r.Name, Present: true, ATR: []byte{0x3b}, Events: 1})
	}
	m.setReaders(cloned(readers), nil)
	return m, readers
}

func TestNoPollingWherePCSCWatches(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m, readers := startInReader(t, c)
	waitFor(t, "the lister to end", func() bool { return len(children(t)) == 1 }) // the PC/SC watcher stays
	if m.Snapshot().PCSC != "" {
		t.Errorf("PCSC = %q", m.Snapshot().PCSC)
	}
	events, done := m.Subscribe()
	defer done()
	check(t, c.Pull())
	readers[0].Present, readers[0].ATR, readers[0].Events = false, nil, 2
	m.setReaders(cloned(readers), nil)
	next(t, events, Removed)
	check(t, c.Insert())
	readers[0].Present, readers[0].ATR, readers[0].Events = true, []byte{0x3b}, 3
	m.setReaders(cloned(readers), nil)
	next(t, events, Inserted)
}

func cloned(readers []wire.Reader) []wire.Reader { return append([]wire.Reader(nil), readers...) }

func TestPCSCRemovalEndsTheUnlockedStateAtOnce(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m, readers := startInReader(t, c)
	mustUnlock(t, m, c)
	old := onlyCard(t, m)
	events, done := m.Subscribe()
	defer done()
	// Taken out and put back between two looks: only the counter tells.
	now := cloned(readers)
	now[0].Events += 2
	m.setReaders(now, nil)
	if e := next(t, events, Removed); e.Epoch <= old.Epoch {
		t.Errorf("event = %+v", e)
	}
	next(t, events, Inserted)
	wantError(t, sign(t, m, c), ErrLocked)
}

func TestALockThatCannotBeConfirmedIsSaidAndRetried(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m, _ := startInReader(t, c)
	mustUnlock(t, m, c)
	err := m.Lock("", "test")
	wantError(t, err, ErrLockNotConfirmed)
	if !strings.Contains(err.Error(), "smart card service") {
		t.Errorf("err = %v, want it to say why", err)
	}
	if s := onlyCard(t, m).State; s != LockNotConfirmed {
		t.Errorf("state = %v", s)
	}
	wantError(t, sign(t, m, c), ErrLocked)
	before := m.Counters().Children
	waitFor(t, "the reset to be tried again", func() bool { return m.Counters().Children >= before+2 })
	mustUnlock(t, m, c)
	if s := onlyCard(t, m).State; s != Unlocked {
		t.Errorf("state = %v", s)
	}
	m.setReaders(nil, nil) // so that the end of the test is a lock of its own
}

// lost are the ways in which nothing is known of readers any more: the service
// ended, which lets go of all cards, or our child that asks it.
var lost = map[string]error{
	"service": &wire.Fault{Kind: wire.NoService, Text: "the service ended"},
	"child":   errors.New("the child ended"),
}

// TestALockIsNotConfirmedWithoutTheService has PC/SC lost before the lock, and
// while a lock is not confirmed: the card may have kept its power.
func TestALockIsNotConfirmedWithoutTheService(t *testing.T) {
	for name, fault := range lost {
		t.Run(name+" before", func(t *testing.T) {
			c := newTestCard(t, softhsm.Spec{})
			m, readers := startInReader(t, c)
			mustUnlock(t, m, c)
			id := onlyCard(t, m).ID
			m.setReaders(nil, fault)
			wantError(t, m.Lock(id, "test"), ErrLockNotConfirmed)
			wantError(t, m.Lock("", "test"), ErrLockNotConfirmed)
			readers[0].Present = false
			m.setReaders(readers, nil)
			check(t, m.Lock("", "test"))
		})
		t.Run(name+" after", func(t *testing.T) {
			c := newTestCard(t, softhsm.Spec{})
			m, readers := startInReader(t, c)
			mustUnlock(t, m, c)
			id := onlyCard(t, m).ID
			wantError(t, m.Lock("", "test"), ErrLockNotConfirmed)
			m.setReaders(nil, fault)
			wantError(t, m.Lock("", "test"), ErrLockNotConfirmed)
			m.setReaders(cloned(readers), nil) // the card is still there
			wantError(t, m.Lock("", "test"), ErrLockNotConfirmed)
			waitFor(t, "the card to be seen again", func() bool {
				_, ok := m.Snapshot().Card(id)
				return ok
			})
			if s := onlyCard(t, m).State; s != LockNotConfirmed {
				t.Errorf("state = %v", s)
			}
			m.setReaders(nil, nil)
			check(t, m.Lock("", "test"))
		})
	}
}

// TestNoResetIsOwedForARefusedPIN: a card that took no PIN has none verified.
func TestNoResetIsOwedForARefusedPIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m, _ := startInReader(t, c)
	wantError(t, unlock(t, m, c, wrongPIN, UnlockOptions{}), ErrWrongPIN)
	m.setReaders(nil, lost["service"])
	check(t, m.Lock("", "test"))
}

// TestAModuleThatHangsOverThePINIsNoLock: nobody knows whether the card took the
// PIN, so it is reset.
func TestAModuleThatHangsOverThePINIsNoLock(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	limits := defaultLimits
	limits.login, limits.service = time.Nanosecond, time.Hour
	m, _ := startInReaderWith(t, c, limits)
	err := unlock(t, m, c, rightPIN, UnlockOptions{})
	wantError(t, err, ErrModuleHung)
	wantError(t, err, ErrLockNotConfirmed)
	if s := onlyCard(t, m).State; s != LockNotConfirmed {
		t.Errorf("state = %v", s)
	}
	m.setReaders(nil, nil)
}

// TestARemovalThatPCSCDoesNotSeeIsReset has a module that takes an unlocked card
// for gone while PC/SC says that it is there.
func TestARemovalThatPCSCDoesNotSeeIsReset(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m, readers := startInReader(t, c)
	mustUnlock(t, m, c)
	waitFor(t, "the lister to end", func() bool { return len(children(t)) == 2 }) // watcher and signer stay
	events, done := m.Subscribe()
	defer done()
	before := m.Counters().Children
	check(t, c.Pull())
	wantError(t, sign(t, m, c), ErrRemoved)
	next(t, events, Removed)
	waitFor(t, "the reset to be tried again", func() bool {
		return m.Counters().Children >= before+2
	})
	readers[0].Present = false // pulled for good: no reset is needed any more
	m.setReaders(cloned(readers), nil)
	waitFor(t, "the resets to end", func() bool { return len(children(t)) == 1 })
}

func TestReaderNames(t *testing.T) {
	long := strings.Repeat("r", 60) + " [Reader Interface] 00 00"
	for _, test := range []struct {
		reader, description string
		same                bool
	}{
		{"Virtual PCD 00 00", "Virtual PCD 00 00", true},
		{"Virtual PCD 00 00", "Virtual PCD 00 01", false},
		{"Virtual PCD 00 00", "Virtual PCD", false},
		{"Virtual PCD 00 00", "", false},
		{long, long[:64], true},
		{long, long[:63], false},
	} {
		if got := isReader(test.reader, test.description); got != test.same {
			t.Errorf("isReader(%q, %q) = %v", test.reader, test.description, got)
		}
	}
}
