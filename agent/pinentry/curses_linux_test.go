package pinentry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds waits for what must come.
const patience = 30 * time.Second

// terminal is a pseudo-terminal, with what is shown on it.
type terminal struct {
	t      *testing.T
	master *os.File
	name   string

	mu    sync.Mutex // guards shown
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	tm := &terminal{t: t, master: master, name: fmt.Sprintf("/dev/pts/%d", n)}
	// As long as we hold the other side too, reads do not end with a program.
	slave, err := os.OpenFile(tm.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			tm.mu.Lock()
			tm.shown.Write(b[:n])
			tm.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		slave.Close() // the last: reading ends with EIO
		<-done
		master.Close()
	})
	return tm
}

// until waits for text on the terminal.
func (tm *terminal) until(text string) {
	tm.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if tm.shows(text) {
			return
		}
		if time.Now().After(deadline) {
			tm.t.Fatalf("%q is not shown", text)
		}
	}
}

func (tm *terminal) shows(text string) bool {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	return bytes.Contains(tm.shown.Bytes(), []byte(text))
}

func (tm *terminal) press(keys string) {
	tm.t.Helper()
	if _, err := tm.master.WriteString(keys); err != nil {
		tm.t.Fatal(err)
	}
}

// asking is a question that the real pinentry-curses shows on a terminal of its
// own.
type asking struct {
	*terminal
	*Dialog
	end chan result
}

type result struct {
	pin string
	ok  bool
	err error
}

func askByCurses(ctx context.Context, t *testing.T, ask func(*Dialog) result) asking {
	t.Helper()
	a := asking{terminal: newTerminal(t), end: make(chan result, 1)}
	var err error
	if a.Dialog, err = Start(ctx, Config{Path: "pinentry-curses", TTY: a.name, TTYType: "xterm", Locale: "C.UTF-8"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	for f, text := range map[Field]string{Description: "Kortti asks for ÄILI", Prompt: "PIN:", OK: "Allow", Cancel: "Deny"} {
		if err := a.Set(f, text); err != nil {
			t.Fatal(err)
		}
	}
	go func() { a.end <- ask(a.Dialog) }()
	a.until("asks for ÄILI")
	return a
}

// answer types until there is a result: what is typed before the program has
// finished drawing it throws away, all of it.
func (a asking) answer(keys string) result {
	a.t.Helper()
	for range int(patience / time.Second) {
		a.press(keys)
		select {
		case r := <-a.end:
			return r
		case <-time.After(time.Second):
		}
	}
	a.t.Fatal("nobody heard the answer")
	panic("unreachable")
}

// TestCurses asks by the real pinentry-curses.
func TestCurses(t *testing.T) {
	pin := func(d *Dialog) result {
		pin, err := d.PIN()
		return result{pin: string(pin), err: err}
	}
	confirm := func(d *Dialog) result {
		ok, err := d.Confirm()
		return result{ok: ok, err: err}
	}
	t.Run("PIN", func(t *testing.T) {
		a := askByCurses(t.Context(), t, pin)
		if r := a.answer("1234\r"); r.pin != "1234" || r.err != nil {
			t.Errorf("%+v", r)
		}
	})
	t.Run("yes", func(t *testing.T) {
		a := askByCurses(t.Context(), t, confirm)
		if r := a.answer("\r"); !r.ok || r.err != nil {
			t.Errorf("%+v", r)
		}
	})
	t.Run("no", func(t *testing.T) {
		a := askByCurses(t.Context(), t, confirm)
		if r := a.answer("\t\r"); r.ok || r.err != nil && !errors.Is(r.err, ErrCancelled) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("taken away", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a := askByCurses(ctx, t, pin)
		cancel()
		if r := <-a.end; !errors.Is(r.err, context.Canceled) {
			t.Errorf("%+v", r)
		}
	})
}
