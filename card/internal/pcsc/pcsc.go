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
	"errors"
	"fmt"
	"sync"
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

	listener *listener           // nil when nothing is listened for
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
func (c *Context) Close() error {
	c.hush()
	return c.service.release()
}

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
