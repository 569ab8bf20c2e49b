// Package pcsc speaks to smart card readers through the system's PC/SC service:
// which readers there are, whether a card is in them, and the confirmed reset
// of a card, which ends every PIN that was verified on it.
//
// The PC/SC library is loaded at run time, so that a program starts, and can
// say what is missing, on a machine without it. It is foreign C code and can
// block: it belongs in a child process of its own. The package loads no PKCS#11
// module and sends no command to a card (except [Card.Transmit], which tests
// use).
package pcsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// What can be wrong, for errors.Is. The errors returned also say which function
// of PC/SC answered what.
var (
	ErrUnavailable = errors.New("this machine has no PC/SC library (Debian: apt install libpcsclite1)")
	ErrNoService   = errors.New("the smart card service does not run (Debian: apt install pcscd, or systemctl start pcscd.socket)")
	ErrRefused     = errors.New("the smart card service refuses this session (its polkit rules let in local logins, not remote ones)")
	ErrNoReader    = errors.New("the card reader is gone")
	ErrNoCard      = errors.New("no card in the reader")
	ErrBusy        = errors.New("another program holds the card")
	ErrNoAnswer    = errors.New("the card does not answer: is it the right way round?")
	ErrNotReset    = errors.New("the card was not reset")
)

// ReaderState is a reader and what is in it.
type ReaderState struct {
	Name      string
	Present   bool   // a card is in it
	Mute      bool   // the card does not answer
	Exclusive bool   // another program has the card to itself
	ATR       []byte // the card's answer to reset; empty without a card
	Events    uint16 // insertions and removals so far, modulo 65536
}

// Equal reports whether two states are the same. States that differ in Events
// alone are not: the card was swapped or put back in between.
func (s ReaderState) Equal(other ReaderState) bool {
	return s.Name == other.Name && s.Present == other.Present && s.Mute == other.Mute &&
		s.Exclusive == other.Exclusive && s.Events == other.Events && bytes.Equal(s.ATR, other.ATR)
}

// Context is a connection to the PC/SC service. One goroutine at a time may use
// it, except that Reset may be called at any time. It ends with the service:
// after [ErrNoService], close it and establish another.
type Context struct {
	service service
	connect func() (service, error) // makes another connection

	mu       sync.Mutex          // guards attempts
	attempts map[string]*attempt // by reader; those that have not reset the card yet
}

// Establish connects to the service. The error is [ErrUnavailable] without a
// PC/SC library, [ErrNoService] without a running service and [ErrRefused]
// where the service does not let this user in.
func Establish() (*Context, error) { return establish(connect) }

func establish(connect func() (service, error)) (*Context, error) {
	s, err := connect()
	if err != nil {
		return nil, err
	}
	return &Context{service: s, connect: connect, attempts: map[string]*attempt{}}, nil
}

// Close ends the connection. No other call may be under way.
func (c *Context) Close() error { return c.service.release() }

// Readers returns the readers in the service's order, none if there are none.
func (c *Context) Readers() ([]ReaderState, error) {
	raw, err := c.read()
	return states(raw), err
}

func (c *Context) read() ([]rawState, error) {
	for {
		names, err := c.service.list()
		if err != nil || len(names) == 0 {
			return nil, err
		}
		raw := make([]rawState, len(names))
		for i, name := range names {
			raw[i].name = name
		}
		// Against the state "unaware" the call answers at once.
		err = c.service.change(0, raw)
		if errors.Is(err, ErrNoReader) {
			continue // one went between the two calls
		}
		if err != nil && code(err) != codeTimeout {
			return nil, err
		}
		return raw, nil
	}
}

// relist is the longest time that Wait relies on being told of changes:
// pcsc-lite before 2.3 forgets a reader that comes between two calls, and 2.5.3
// has been seen to keep a card's removal to itself. Asking sends the card nothing.
const relist = time.Second

// cancelAgain is how long Wait waits before it cancels again: a cancellation
// that comes before the call has begun is lost.
const cancelAgain = 20 * time.Millisecond

// notification is the name of the reader that changes when readers come or go.
const notification = `\\?PnP?\Notification`

// Wait returns the readers as soon as they differ from known, at once if they
// do already. When ctx ends first it returns ctx's error.
func (c *Context) Wait(ctx context.Context, known []ReaderState) ([]ReaderState, error) {
	for {
		raw, err := c.read()
		if err != nil {
			return nil, err
		}
		now := states(raw)
		if !slices.EqualFunc(now, known, ReaderState.Equal) {
			return now, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i := range raw {
			raw[i].current = raw[i].event
		}
		// From pcsc-lite 2.3 on the number of readers known is told here.
		raw = append(raw, rawState{name: notification, current: uint32(len(raw)) << 16})
		err = c.cancellable(ctx, func() error { return c.service.change(relist, raw) })
		switch {
		case err == nil, errors.Is(err, ErrNoReader), code(err) == codeTimeout, code(err) == codeCancelled:
		default:
			return nil, err
		}
	}
}

// cancellable calls f and cancels it when ctx ends.
func (c *Context) cancellable(ctx context.Context, f func() error) error {
	done := make(chan struct{})
	var canceller sync.WaitGroup
	canceller.Go(func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		for {
			c.service.cancel()
			select {
			case <-done:
				return
			case <-time.After(cancelAgain):
			}
		}
	})
	err := f()
	close(done)
	canceller.Wait()
	return err
}

// Watch calls changed with the readers as they are, and again whenever they
// have changed, until ctx ends, whose error it returns, or the service fails.
// What changes while changed runs is told when it has returned.
func (c *Context) Watch(ctx context.Context, changed func([]ReaderState)) error {
	now, err := c.Readers()
	for err == nil {
		changed(now)
		now, err = c.Wait(ctx, now)
	}
	return err
}

// Card is a connection to a card, shared with other programs.
type Card struct {
	service service
	handle  handle
}

// Connect connects to the card in reader.
func (c *Context) Connect(reader string) (*Card, error) {
	h, err := c.service.open(reader, shareShared)
	if err != nil {
		return nil, err
	}
	return &Card{c.service, h}, nil
}

// Transmit sends a command and returns the card's answer.
func (c *Card) Transmit(command []byte) ([]byte, error) {
	return c.service.transmit(c.handle, command)
}

// Disconnect ends the connection and leaves the card as it is.
func (c *Card) Disconnect() error { return c.service.close(c.handle, leaveCard) }

func states(raw []rawState) []ReaderState {
	var out []ReaderState
	for _, r := range raw {
		out = append(out, ReaderState{
			Name:      r.name,
			Present:   r.event&statePresent != 0,
			Mute:      r.event&stateMute != 0,
			Exclusive: r.event&stateExclusive != 0,
			ATR:       r.atr,
			Events:    uint16(r.event >> 16),
		})
	}
	return out
}

// Error is what a function of PC/SC answered.
type Error struct {
	Function string
	Code     uint32 // SCARD_E_... and SCARD_W_...
}

func (e *Error) Error() string {
	if reason := e.Unwrap(); reason != nil {
		return fmt.Sprintf("%s: %s answered 0x%08X", reason, e.Function, e.Code)
	}
	return fmt.Sprintf("%s answered 0x%08X", e.Function, e.Code)
}

// Unwrap returns the sentinel error that stands for the code, or nil.
func (e *Error) Unwrap() error {
	// pcsc-lite takes every connection that the service closed for a refusal;
	// only the first answer can be one.
	if e.Code == codeSecurityViolation && e.Function == "SCardEstablishContext" {
		return ErrRefused
	}
	return reasons[e.Code]
}

func code(err error) uint32 {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
