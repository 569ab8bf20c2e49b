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
		tm.mu.Lock()
		seen := bytes.Contains(tm.shown.Bytes(), []byte(text))
		tm.mu.Unlock()
		if seen {
			return
		}
		if time.Now().After(deadline) {
			tm.t.Fatalf("%q is not shown: %q", text, tm.shown.String())
		}
	}
}

func (tm *terminal) press(keys string) {
	tm.t.Helper()
	if _, err := tm.master.WriteString(keys); err != nil {
		tm.t.Fatal(err)
	}
}

// TestCurses asks by the real pinentry-curses.
func TestCurses(t *testing.T) {
	tm := newTerminal(t)
	begin := func(ctx context.Context) *Dialog {
		t.Helper()
		d, err := Start(ctx, Config{Path: "pinentry-curses", TTY: tm.name, TTYType: "xterm", Locale: "C.UTF-8"})
		if err != nil {
			t.Fatal(err)
		}
		for f, text := range map[Field]string{Description: "Kortti asks for ÄILI", Prompt: "PIN:", OK: "Allow", Cancel: "Deny"} {
			if err := d.Set(f, text); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	type result struct {
		pin string
		ok  bool
		err error
	}
	end := make(chan result, 1)

	d := begin(t.Context())
	go func() {
		pin, err := d.PIN()
		end <- result{pin: string(pin), err: err}
	}()
	tm.until("asks for ÄILI")
	tm.press("1234\r")
	if r := <-end; r.pin != "1234" || r.err != nil {
		t.Errorf("%+v", r)
	}
	d.Close()
	if bytes.Contains(tm.shown.Bytes(), []byte("1234")) {
		t.Error("the PIN was shown")
	}

	for keys, want := range map[string]result{"\r": {ok: true}, "\t\r": {}} {
		tm.mu.Lock()
		tm.shown.Reset()
		tm.mu.Unlock()
		d := begin(t.Context())
		go func() {
			ok, err := d.Confirm()
			end <- result{ok: ok, err: err}
		}()
		tm.until("Deny")
		tm.press(keys)
		if r := <-end; r.ok != want.ok || r.err != nil && !errors.Is(r.err, ErrCancelled) {
			t.Errorf("%q: %+v, want %+v", keys, r, want)
		}
		d.Close()
	}

	// The question is taken away: the program ends.
	tm.mu.Lock()
	tm.shown.Reset()
	tm.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	d = begin(ctx)
	go func() {
		_, err := d.PIN()
		end <- result{err: err}
	}()
	tm.until("asks for ÄILI")
	cancel()
	if r := <-end; !errors.Is(r.err, context.Canceled) {
		t.Errorf("%+v", r)
	}
	d.Close()
}
