package softhsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// state is the layout of the state file, which shim/state.h has too and the shim maps:
// what all processes that use the card share. The shim writes the names.
type state struct {
	magic       [8]byte
	insertion   atomic.Uint64 // odd: in the reader; each pull and each insertion adds 1
	triesMax    atomic.Uint64
	triesLeft   atomic.Uint64
	signDelayMS atomic.Uint64
	quirks      atomic.Uint64
	padAnswer   atomic.Uint64
	padDelayMS  atomic.Uint64
	padPIN      [16]byte // the PIN that the person at the PIN pad knows
	counters    [100]struct {
		name  [32]byte
		value atomic.Uint64
	}
	faults  [16]fault
	writing atomic.Uint64 // SoftHSM writes to the token, under the lock
}

const stateSize = 8192

// createState makes the state of a new card, inserted, all tries left.
func createState(path string, tries int, pin string) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	page := make([]byte, stateSize)
	copy(page, "KORTTI-2")
	binary.NativeEndian.PutUint64(page[unsafe.Offsetof(state{}.insertion):], 1)
	binary.NativeEndian.PutUint64(page[unsafe.Offsetof(state{}.triesMax):], uint64(tries))
	binary.NativeEndian.PutUint64(page[unsafe.Offsetof(state{}.triesLeft):], uint64(tries))
	copy(page[unsafe.Offsetof(state{}.padPIN):], pin)
	_, err = file.Write(page)
	return err
}

// withState calls f with the card's state mapped.
func (c *Card) withState(f func(*state)) error {
	file, err := os.OpenFile(c.path(stateFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoCard, c.dir)
	}
	if err != nil {
		return fmt.Errorf("open the test card's state: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open the test card's state: %w", err)
	}
	if info.Size() != stateSize {
		return fmt.Errorf("%s is not a test card's state, or one of another version: make the card anew", file.Name())
	}
	page, err := unix.Mmap(int(file.Fd()), 0, stateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the test card's state: %w", err)
	}
	f((*state)(unsafe.Pointer(&page[0])))
	return unix.Munmap(page)
}

// Pull takes the card out of its reader: for every process at once, sessions
// die and logins end. Pulling a pulled card does nothing.
func (c *Card) Pull() error { return c.move(false) }

// Insert puts the card back. Inserting an inserted card does nothing.
func (c *Card) Insert() error { return c.move(true) }

func (c *Card) move(in bool) error {
	return c.withState(func(s *state) {
		for {
			n := s.insertion.Load()
			if (n%2 == 1) == in || s.insertion.CompareAndSwap(n, n+1) {
				return
			}
		}
	})
}

// Present reports whether the card is in its reader.
func (c *Card) Present() (present bool, err error) {
	err = c.withState(func(s *state) { present = s.insertion.Load()%2 == 1 })
	return present, err
}

// TriesLeft returns how many wrong PINs the card still takes; 0 is locked.
func (c *Card) TriesLeft() (n int, err error) {
	err = c.withState(func(s *state) { n = int(s.triesLeft.Load()) })
	return n, err
}

// SetSignDelay makes each signature take at least d, rounded down to
// milliseconds, as on a real card (which takes 200 ms to 1 s).
func (c *Card) SetSignDelay(d time.Duration) error {
	return c.withState(func(s *state) { s.signDelayMS.Store(uint64(max(d, 0).Milliseconds())) })
}

// Counts says how often something happened on a card, in all processes, since
// it was made or [Card.ResetCounts]. By name:
//
//   - each PKCS#11 function, such as "C_Login" and "C_Sign": every call;
//   - "signatures": calls that handed out a signature (a call that only asks
//     for its size, as programs do first, is none);
//   - "logins_pad": logins for which the reader's PIN pad asked for the PIN;
//   - "logins_ok", "logins_refused" (wrong PIN; each uses up a try),
//     "logins_locked" (asked although no try was left) and "logins_other":
//     how calls of C_Login for the user ended;
//   - "pins_shown": PINs that the card compared with its own, to log in or to
//     change it, and of these "final_tries", when one try was left;
//   - "puks_shown": logins of the security officer, whose PIN is the PUK.
type Counts map[string]uint64

// Counts returns what the card has counted so far.
func (c *Card) Counts() (Counts, error) {
	counts := Counts{}
	err := c.withState(func(s *state) {
		for i := range s.counters {
			counter := &s.counters[i]
			if name := string(bytes.TrimRight(counter.name[:], "\x00")); name != "" {
				counts[name] = counter.value.Load()
			}
		}
	})
	return counts, err
}

// ResetCounts sets all counts to zero.
func (c *Card) ResetCounts() error {
	return c.withState(func(s *state) {
		for i := range s.counters {
			s.counters[i].value.Store(0)
		}
	})
}

// lockRecord keeps other processes and goroutines from changing the card's
// record until the returned function is called.
func (c *Card) lockRecord() (unlock func(), err error) {
	file, err := os.Open(c.path(stateFile))
	if err != nil {
		return nil, fmt.Errorf("lock the test card: %w", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock the test card: %w", err)
	}
	return func() { file.Close() }, nil
}
