package cards

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// output is what a program has written so far.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// hold runs a program that holds the card until the returned function is called
// or the test ends, and returns when the program has said ready.
func hold(t *testing.T, ready string, env []string, name string, args ...string) (in io.Writer, letGo func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	stdin, err := cmd.StdinPipe()
	check(t, err)
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	check(t, cmd.Start())
	letGo = sync.OnceFunc(func() {
		stdin.Close()
		cmd.Wait()
	})
	t.Cleanup(letGo)
	waitFor(t, name+" to hold the card", func() bool { return strings.Contains(said.String(), ready) })
	return stdin, letGo
}

// share has scriptor connected to the card beside us, as a mail program may be:
// it keeps the card powered.
func share(t *testing.T) (letGo func()) {
	t.Helper()
	_, letGo = hold(t, "Using", nil, "scriptor", "-r", pcscd.Reader0)
	return letGo
}

// explore has another OpenSC program, with settings of its own, inside a
// transaction with the card.
func explore(t *testing.T, settings string) (letGo func()) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "opensc.conf")
	check(t, os.WriteFile(conf, []byte("app default {\n"+settings+"\n}\n"), 0o644))
	_, letGo = hold(t, "OpenSC", []string{"OPENSC_CONF=" + conf}, "opensc-explorer", "--reader", "0")
	return letGo
}

// Lock is confirmed by the card also while another program keeps it powered.
func TestLockWhileTheCardIsShared(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		c.mustUnlock(t, m)
		check(t, c.sign(m))
		share(t)
		if !c.Verified() {
			t.Fatal("the card lost its PIN before the lock")
		}
		check(t, m.Lock("", "test"))
		if c.Verified() {
			t.Error("the card still has a verified PIN after the lock")
		}
		if n := c.Counts().PowerOns; n == 0 {
			t.Error("the card was never powered")
		}
	})
}

// Idle locks like the command does.
func TestIdleLock(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{IdleLock: 200 * time.Millisecond})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		share(t)
		c.mustUnlock(t, m)
		waitFor(t, "the card to be idle and locked", func() bool { return !c.Verified() })
		waitFor(t, "the manager to say so", func() bool { s, ok := c.state(m); return ok && s == card.Locked })
	})
}

// Another program's transaction keeps the card from being reset. That is said,
// nothing can be signed, and the reset comes when the program lets go.
func TestLockDuringATransaction(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	m := start(t, card.Config{})
	c.insert(t, pcscd.Address0)
	c.ready(t, m)
	c.mustUnlock(t, m)
	letGo := explore(t, "")
	err := m.Lock("", "test")
	if !errors.Is(err, card.ErrLockNotConfirmed) {
		t.Fatalf("Lock: %v", err)
	}
	if s, ok := c.state(m); !ok || s != card.LockNotConfirmed {
		t.Errorf("state %v, %v", s, ok)
	}
	if err := c.sign(m); !errors.Is(err, card.ErrLocked) {
		t.Errorf("sign: %v", err)
	}
	letGo()
	waitFor(t, "the reset when the other program let go", func() bool { s, ok := c.state(m); return ok && s == card.Locked })
	if c.Verified() {
		t.Error("the card still has a verified PIN")
	}
}

// A card that another program has to itself cannot be read; when it lets go,
// the card is there.
func TestExclusiveHolder(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	c.insert(t, pcscd.Address0)
	letGo := explore(t, "reader_driver pcsc { connect_exclusive = true; }")
	m := start(t, card.Config{})
	if _, ok := c.state(m); ok {
		t.Fatal("the card is shown although another program has it to itself")
	}
	letGo()
	c.ready(t, m)
	c.mustUnlock(t, m)
}
