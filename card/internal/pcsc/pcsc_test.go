//go:build linux && cgo

package pcsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func openContext(t *testing.T) *Context {
	t.Helper()
	c, err := Establish()
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func verifyPIN(t *testing.T, c *Context, card *virtualCard) *Card {
	t.Helper()
	connection, err := c.Connect(readerName)
	check(t, err)
	answer, err := connection.Transmit([]byte{0x00, 0x20, 0, 1, 4, '1', '2', '3', '4'})
	if err != nil || !bytes.Equal(answer, []byte{0x90, 0}) {
		t.Fatalf("VERIFY: % x, %v", answer, err)
	}
	if _, pin := card.state(); !pin {
		t.Fatal("the card has no verified PIN")
	}
	return connection
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// watch calls changed with the readers as they are and whenever they change.
func watch(ctx context.Context, c *Context, changed func([]ReaderState)) error {
	now, err := c.Readers()
	for err == nil {
		changed(now)
		now, err = c.Wait(ctx, now)
	}
	return err
}

func TestMissingLibraryIsNamed(t *testing.T) {
	_, err := establish(func() (service, error) { return connectBy("libpcsclite-is-not-here.so.1") })
	if !errors.Is(err, ErrUnavailable) || !bytes.Contains([]byte(err.Error()), []byte("libpcsclite-is-not-here")) {
		t.Errorf("without the library: %v", err)
	}
	if _, err := establish(func() (service, error) { return connectBy("libc.so.6") }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with another library: %v", err)
	}
}

func TestMissingServiceIsNamed(t *testing.T) {
	if _, err := Establish(); !errors.Is(err, ErrNoService) {
		t.Errorf("without pcscd: %v", err)
	}
}

func TestReadersAndCards(t *testing.T) {
	start(t)
	c := openContext(t)
	now, err := c.Readers()
	check(t, err)
	if len(now) != 2 || now[0].Name != readerName || now[1].Name != readerTwo || now[0].Present || now[0].ATR != nil {
		t.Fatalf("readers %+v", now)
	}

	changes := make(chan []ReaderState, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	watcher := openContext(t)
	go func() { ended <- watch(ctx, watcher, func(s []ReaderState) { changes <- s }) }()
	expect := func(what string, wanted func(ReaderState) bool) {
		t.Helper()
		for {
			select {
			case s := <-changes:
				if wanted(s[0]) {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("the watcher was not told: %s", what)
			}
		}
	}
	expect("empty at first", func(s ReaderState) bool { return !s.Present })
	card := insert(t, c)
	expect("inserted", func(s ReaderState) bool { return s.Present && bytes.Equal(s.ATR, cardATR) })
	card.pull()
	expect("pulled", func(s ReaderState) bool { return !s.Present && s.ATR == nil })

	start := time.Now()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watcher ended with %v", err)
	}
	if d := time.Since(start); d > relist/2 {
		t.Errorf("the watcher ended %v after it was cancelled", d)
	}
}

// Programs that connect change a reader's state, but nothing that is told.
func TestWaitIsNotDisturbedByOthers(t *testing.T) {
	start(t)
	c, other := openContext(t), openContext(t)
	card := insert(t, c)
	now, err := c.Readers()
	check(t, err)
	ended := make(chan error)
	go func() {
		after, err := c.Wait(t.Context(), now)
		if err == nil && after[0].Present {
			err = fmt.Errorf("told of %+v after %+v", after, now)
		}
		ended <- err
	}()
	for range 5 {
		connection, err := other.Connect(readerName)
		check(t, err)
		check(t, connection.Disconnect())
	}
	card.pull()
	check(t, <-ended)
}

func TestServiceDiesAndReturns(t *testing.T) {
	stop := start(t)
	c, err := Establish()
	check(t, err)
	defer c.Close() // it ends with the service
	now, err := c.Readers()
	check(t, err)
	ended := make(chan error)
	go func() {
		_, err := c.Wait(t.Context(), now)
		ended <- err
	}()
	stop()
	if err := <-ended; !errors.Is(err, ErrNoService) {
		t.Errorf("the service died: %v", err)
	}
	if _, err := c.Readers(); !errors.Is(err, ErrNoService) {
		t.Errorf("reading from a dead service: %v", err)
	}
	start(t)
	if now, err := openContext(t).Readers(); err != nil || len(now) != 2 {
		t.Errorf("after its return: %v, %v", now, err)
	}
}

// What lock is for: a holder keeps the card powered and its PIN verified; the
// reset ends it, and says so.
func TestResetEndsAVerifiedPIN(t *testing.T) {
	start(t)
	c, holder := openContext(t), openContext(t)
	card := insert(t, c)
	held := verifyPIN(t, holder, card)
	before, _ := card.state()

	check(t, c.Reset(t.Context(), readerName))
	after, pin := card.state()
	if after != before+1 || pin {
		t.Errorf("%d resets, PIN verified: %v", after-before, pin)
	}
	if _, err := held.Transmit([]byte{0x80, 0xca, 0, 0, 1}); code(err) != codeResetCard {
		t.Errorf("the holder was told %v", err)
	}
	check(t, held.Disconnect())

	// A connection made afterwards works.
	connection, err := c.Connect(readerName)
	check(t, err)
	answer, err := connection.Transmit([]byte{0x80, 0xca, 0, 0, 1})
	if err != nil || !bytes.Equal(answer, []byte{0, 0x90, 0}) {
		t.Errorf("after the reset: % x, %v", answer, err)
	}
	check(t, connection.Disconnect())
}

// A watcher that waits on the same context does not keep a reset waiting.
func TestResetWhileWaiting(t *testing.T) {
	start(t)
	c := openContext(t)
	card := insert(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- watch(ctx, c, func([]ReaderState) {}) }()
	before, _ := card.state()
	for range 3 {
		check(t, c.Reset(t.Context(), readerName))
	}
	if after, _ := card.state(); after != before+3 {
		t.Errorf("%d resets of 3", after-before)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestResetIsRefusedWhileAnotherIsInside(t *testing.T) {
	start(t)
	c, holder := openContext(t), openContext(t)
	card := insert(t, c)
	held := verifyPIN(t, holder, card)
	before, _ := card.state()

	check(t, holder.service.begin(held.handle))
	if err := c.Reset(soon(t), readerName); !errors.Is(err, ErrBusy) {
		t.Errorf("inside another's transaction: %v", err)
	}
	if after, pin := card.state(); after != before || !pin {
		t.Error("the card was reset although that was refused")
	}

	// It is done as soon as the other is out.
	done := make(chan error)
	go func() { done <- c.Reset(t.Context(), readerName) }()
	eventually(t, "the reset waits", func() bool {
		a := attemptOf(c)
		return a != nil && c.wanted(a)
	})
	check(t, holder.service.end(held.handle))
	check(t, <-done)
	if after, pin := card.state(); after != before+1 || pin {
		t.Errorf("%d resets, PIN verified: %v", after-before, pin)
	}
	check(t, held.Disconnect())

	exclusive := takeExclusively(t, holder)
	if err := c.Reset(soon(t), readerName); !errors.Is(err, ErrBusy) {
		t.Errorf("held exclusively: %v", err)
	}
	waitFor(t, c, func(s ReaderState) bool { return s.Exclusive })
	check(t, holder.service.close(exclusive, leaveCard))
	check(t, c.Reset(t.Context(), readerName))
}

// A reset that was given up must not come later, when the card may have been
// unlocked again.
func TestResetGivenUpLeavesTheCard(t *testing.T) {
	start(t)
	c, holder := openContext(t), openContext(t)
	card := insert(t, c)
	held := verifyPIN(t, holder, card)
	before, _ := card.state()
	check(t, holder.service.begin(held.handle))
	if err := c.Reset(soon(t), readerName); !errors.Is(err, ErrBusy) {
		t.Errorf("inside another's transaction: %v", err)
	}
	blocked := attemptOf(c)
	check(t, holder.service.end(held.handle))
	<-blocked.done
	if after, pin := card.state(); after != before || !pin {
		t.Errorf("%d resets after it was given up, PIN verified: %v", after-before, pin)
	}
	check(t, held.Disconnect())

	// Where the service says no at once, nothing stays behind.
	exclusive := takeExclusively(t, holder)
	if err := c.Reset(soon(t), readerName); !errors.Is(err, ErrBusy) {
		t.Errorf("held exclusively: %v", err)
	}
	eventually(t, "the attempt has ended", func() bool { return attemptOf(c) == nil })
	check(t, holder.service.close(exclusive, leaveCard))
	if after, _ := card.state(); after != before {
		t.Errorf("%d resets by attempts that ended", after-before)
	}
}

// takeExclusively takes the card for c alone, once an attempt that has ended
// has let go of it too: it says how it went before that.
func takeExclusively(t *testing.T, c *Context) (card handle) {
	t.Helper()
	eventually(t, "the card can be taken exclusively", func() (taken bool) {
		var err error
		if card, err = c.service.open(readerName, shareExclusive); !errors.Is(err, ErrBusy) {
			check(t, err)
		}
		return err == nil
	})
	return card
}

// attemptOf is the attempt on the first reader that has not reset it yet.
func attemptOf(c *Context) *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts[readerName]
}

func TestResetOfNothing(t *testing.T) {
	start(t)
	c := openContext(t)
	if err := c.Reset(t.Context(), readerName); !errors.Is(err, ErrNoCard) {
		t.Errorf("an empty reader: %v", err)
	}
	if err := c.Reset(t.Context(), "No such reader 00 00"); !errors.Is(err, ErrNoReader) {
		t.Errorf("no such reader: %v", err)
	}
}

func TestCardPutBackIsAChange(t *testing.T) {
	start(t)
	c := openContext(t)
	first := insert(t, c)
	before, err := c.Readers()
	check(t, err)
	first.pull()
	waitFor(t, c, func(s ReaderState) bool { return !s.Present })
	insert(t, c)
	after := waitFor(t, c, func(s ReaderState) bool { return s.Present && len(s.ATR) > 0 })
	if slices.EqualFunc(before, after, ReaderState.Equal) {
		t.Error("a card that was out and in again looks as if it had never moved")
	}
}
