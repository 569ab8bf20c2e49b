package card

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

func startChild(t *testing.T) *process {
	t.Helper()
	p, err := startProcess(testExecutable(t), wire.Module, false, slog.New(slog.DiscardHandler))
	check(t, err)
	t.Cleanup(func() { p.stop(ErrClosed) })
	return p
}

func TestAChildRefusesWhatMakesNoSense(t *testing.T) {
	p := startChild(t)
	for _, op := range []wire.Op{wire.Slots, wire.Login, wire.Sign, wire.Present, wire.Watch, "xyzzy"} {
		_, _, err := p.call(within(t), patience, wire.Request{Op: op}, nil)
		var fault *wire.Fault
		if !errors.As(err, &fault) || fault.Kind != wire.Protocol {
			t.Errorf("%s: err = %v, want a fault", op, err)
		}
	}
}

// The parent's end must end a child whatever C code it is in.
func TestAHungChildEndsWithItsParent(t *testing.T) {
	p := startChild(t)
	hang := faulty(t, t.TempDir(), "HANG")
	called := make(chan error, 1)
	go func() {
		_, _, err := p.call(context.Background(), time.Hour, wire.Request{Op: wire.Load, Path: hang}, nil)
		called <- err
	}()
	waitFor(t, "the request to be under way", func() bool { return len(p.turn) == 1 })
	// What the kernel does when the parent dies:
	check(t, p.conn.(interface{ CloseWrite() error }).CloseWrite())
	if err := <-called; !errors.Is(err, ErrModuleCrashed) || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("err = %v, want the child to have ended by itself", err)
	}
}

func TestCancelledCallsEndTheChild(t *testing.T) {
	p := startChild(t)
	hang := faulty(t, t.TempDir(), "HANG")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("nobody waits any more")
	called := make(chan error, 2)
	go func() {
		_, _, err := p.call(ctx, time.Hour, wire.Request{Op: wire.Load, Path: hang}, nil)
		called <- err
	}()
	waitFor(t, "the request to be under way", func() bool { return len(p.turn) == 1 })
	go func() {
		_, _, err := p.call(context.Background(), time.Hour, wire.Request{Op: wire.Slots}, nil)
		called <- err
	}()
	cancel(why)
	for range 2 {
		if err := <-called; !errors.Is(err, why) {
			t.Errorf("err = %v, want the reason of the cancel", err)
		}
	}
	<-p.done
	if err := syscall.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
}

func TestChildOutputIsCappedAndMasked(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := &lines{log: logger}
	for range 2 * maxLines {
		_, err := l.Write([]byte("VERIFY 31 32 99912345X \x1b[2J " + strings.Repeat("long", 1000) + "\nnext"))
		check(t, err)
	}
	l.flush()
	if n := strings.Count(log.String(), "\n"); n != maxLines {
		t.Errorf("%d lines, want %d", n, maxLines)
	}
	if strings.Contains(log.String(), "999") || strings.Contains(log.String(), "\x1b") || strings.Contains(log.String(), strings.Repeat("long", maxLine/4)) {
		t.Errorf("the log shows too much: %.600s", log.String())
	}
	log.Reset()
	quiet := &lines{log: logger, quiet: true}
	_, err := quiet.Write([]byte("the PIN is secret\nSIGSEGV: segmentation violation\n"))
	check(t, err)
	quiet.flush()
	if strings.Contains(log.String(), "secret") || quiet.crash(nil) != "SIGSEGV: segmentation violation" {
		t.Errorf("a quiet child: %s, crash %q", log.String(), quiet.crash(nil))
	}
}
