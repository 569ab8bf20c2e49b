// Package pinentry asks the person through a pinentry program, as gpg-agent
// does: those programs know keyboards, grabs and screen readers that we do not.
// It speaks the Assuan protocol over the program's standard input and output. It
// caches nothing, never has the program cache anything, tries nothing twice, and
// keeps a PIN in bytes that the caller wipes.
//
//	d, err := pinentry.Start(ctx, pinentry.Config{Path: "pinentry"})
//	defer d.Close()
//	err = d.Set(pinentry.Description, "The PIN of the card")
//	pin, err := d.PIN()
package pinentry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// killTime is how long a program may take to put its terminal in order when it
// must end.
const killTime = 2 * time.Second

// Config says which program asks, and where.
type Config struct {
	// Path is the program, looked for in PATH where it has no slash. It gets our
	// environment, with the display.
	Path string
	// TTY and TTYType are the terminal for programs that draw on one, as
	// /dev/pts/1 and xterm; "" for none.
	TTY, TTYType string
	// Locale is the language and encoding, as fi_FI.UTF-8; "" for none.
	Locale string
}

// Field is what can be set of a dialog.
type Field string

// The fields. NotOK adds a third button to a confirmation; Seconds is a time
// limit.
const (
	Title       Field = "SETTITLE"
	Description Field = "SETDESC"
	Prompt      Field = "SETPROMPT" // before the field of the PIN
	Mistake     Field = "SETERROR"  // what was wrong with the last answer
	OK          Field = "SETOK"
	Cancel      Field = "SETCANCEL"
	NotOK       Field = "SETNOTOK"
	Seconds     Field = "SETTIMEOUT"
)

// Errors that end a question.
var (
	ErrCancelled = errors.New("cancelled in pinentry")
	ErrTimeout   = errors.New("pinentry got no answer in time")
)

// Error is another error of the program.
type Error struct {
	Code int // of libgpg-error, with its source
	Text string
}

// Error gives the program's words.
func (e *Error) Error() string { return fmt.Sprintf("pinentry failed: %s (%d)", e.Text, e.Code) }

// Codes of libgpg-error (err-codes.h); the source stands in the upper bits.
const (
	codeMask         = 0xffff
	codeTimeout      = 62
	codeCancelled    = 99
	codeNotConfirmed = 114
	codeFully        = 198 // cancelled
)

// errNotConfirmed is the answer no.
var errNotConfirmed = errors.New("not confirmed")

// Dialog is a running pinentry program. Its methods are for one goroutine.
type Dialog struct {
	cmd    *exec.Cmd
	in     io.Writer
	out    lines
	ctx    context.Context
	cancel context.CancelFunc
}

// Start runs the program. It ends with ctx, whatever it shows, and with Close.
func Start(ctx context.Context, c Config) (*Dialog, error) {
	ctx, cancel := context.WithCancel(ctx)
	d := &Dialog{cmd: exec.CommandContext(ctx, c.Path), ctx: ctx, cancel: cancel}
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGINT) } // curses then restores its terminal
	d.cmd.WaitDelay = killTime
	var err error
	if d.in, err = d.cmd.StdinPipe(); err == nil {
		d.out.from, err = d.cmd.StdoutPipe()
	}
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start pinentry: %w", err)
	}
	if err := d.greet(c); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s does not answer as a pinentry program: %w", c.Path, err)
	}
	return d, nil
}

// greet hears the program's greeting and says where it is to ask. What one of
// them does not know, another needs.
func (d *Dialog) greet(c Config) error {
	if _, err := d.reply(); err != nil {
		return err
	}
	for _, option := range []struct{ name, value string }{
		{"ttyname", c.TTY}, {"ttytype", c.TTYType}, {"lc-ctype", c.Locale}, {"lc-messages", c.Locale},
	} {
		var unknown *Error
		if option.value == "" || strings.ContainsFunc(option.value, isControl) {
			continue
		}
		if _, err := d.call("OPTION " + option.name + "=" + option.value); err != nil && !errors.As(err, &unknown) {
			return err
		}
	}
	return nil
}

// Set sets a field; what is too long for a line is cut.
func (d *Dialog) Set(f Field, text string) error {
	_, err := d.call(string(f) + " " + escape(text, maxLine-len(f)-1))
	return err
}

// PIN has a PIN entered. The caller wipes it. It may be empty.
func (d *Dialog) PIN() ([]byte, error) {
	pin, err := d.call("GETPIN")
	d.out.wipe()
	if errors.Is(err, errNotConfirmed) {
		err = ErrCancelled
	}
	return pin, err
}

// Confirm asks for yes or no; false is the button NotOK or, in some programs and
// where there is no such button, Cancel.
func (d *Dialog) Confirm() (bool, error) {
	data, err := d.call("CONFIRM")
	clear(data)
	if errors.Is(err, errNotConfirmed) {
		return false, nil
	}
	return err == nil, err
}

// Close ends the program and waits for its end.
func (d *Dialog) Close() {
	if d.ctx.Err() == nil {
		_, _ = d.call("BYE") // if it does not listen, it is made to end
	}
	d.cancel()
	_ = d.cmd.Wait() // it was told to end, which counts as an error
	d.out.wipe()
}

// call sends a command and reads the reply.
func (d *Dialog) call(command string) ([]byte, error) {
	if _, err := io.WriteString(d.in, command+"\n"); err != nil {
		return nil, d.broken(err)
	}
	return d.reply()
}

// reply reads up to OK or ERR and returns the data in between, which are the
// caller's to wipe, or none and an error.
func (d *Dialog) reply() (data []byte, err error) {
	defer func() {
		if err != nil {
			clear(data[:cap(data)])
			data = nil
		}
	}()
	for {
		line, err := d.out.next()
		if err != nil {
			return data, d.broken(err)
		}
		r, err := parse(line)
		switch {
		case err != nil:
			return data, err
		case r.kind == replyOK:
			return data, nil
		case r.kind == replyError:
			return data, r.err
		case r.kind == replyCached:
			return data, errCached
		case r.kind == replyInquire: // we have asked for nothing that needs more
			if _, err := io.WriteString(d.in, "CAN\n"); err != nil {
				return data, d.broken(err)
			}
		case r.kind == replyData:
			if data == nil {
				data = make([]byte, 0, maxData)
			}
			if data, err = unescape(data, r.data); err != nil {
				return data, err
			}
		}
	}
}

// broken says why the conversation has ended.
func (d *Dialog) broken(err error) error {
	switch {
	case d.ctx.Err() != nil:
		return context.Cause(d.ctx)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE):
		return errors.New("pinentry has ended without an answer")
	}
	return fmt.Errorf("speak with pinentry: %w", err)
}
