package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kortti-id/kortti/agent/control"
)

// errPINCancelled is the person's Ctrl-C, Escape or empty answer to a question.
var errPINCancelled = errors.New("cancelled; the card was not asked")

// errInputEnded tells that no later question can be answered either.
var errInputEnded = errors.New("the input has ended; the card was not asked")

// Bounds of what a person enters, in bytes. The longest FINeID PIN has 12
// digits, PKCS#11 modules take up to 255.
const (
	maxPIN  = 255
	maxLine = 1024
)

// pollTime is how late the end of a question may be noticed, in milliseconds.
const pollTime = 100

// Keys as a terminal in raw mode sends them.
const (
	keyCtrlC     = 3
	keyCtrlD     = 4
	keyBackspace = 8
	keyCtrlU     = 21
	keyEscape    = 27
	keyDelete    = 127
)

// wait returns when in has something to read, or with ctx's cause. Nothing is
// read meanwhile, so what comes later is left for the next question.
func wait(ctx context.Context, in io.Reader) error {
	f, ok := in.(*os.File)
	for ctx.Err() == nil {
		if !ok || ready(f, pollTime) {
			return nil
		}
	}
	return context.Cause(ctx)
}

// ready waits so many milliseconds for input; true also at the end of the input.
func ready(f *os.File, milliseconds int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, milliseconds)
	return n > 0 || err != nil && err != unix.EINTR // Read tells what the error is
}

// readKey reads one byte; at the end of the input it is errInputEnded.
func readKey(ctx context.Context, in io.Reader, b []byte) error {
	if err := wait(ctx, in); err != nil {
		return err
	}
	if _, err := io.ReadFull(in, b[:1]); err != nil {
		return errInputEnded
	}
	return nil
}

func terminal(in io.Reader) (fd int, ok bool) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

func yes(ctx context.Context, std stdio, question string) (bool, error) {
	line, err := readLine(ctx, std, question)
	line = strings.ToLower(line)
	return line == "y" || line == "yes", err
}

// readLine reads byte by byte, since what follows the line is another answer.
func readLine(ctx context.Context, std stdio, question string) (string, error) {
	fmt.Fprint(std.err, question)
	var line []byte
	for b := make([]byte, 1); ; {
		err := readKey(ctx, std.in, b)
		if errors.Is(err, errInputEnded) && len(line) > 0 {
			err, b[0] = nil, '\n' // a last line without its end
		}
		if err != nil {
			fmt.Fprintln(std.err)
			return "", err
		}
		if b[0] == '\n' {
			if _, ok := terminal(std.in); !ok {
				fmt.Fprintln(std.err)
			}
			return strings.TrimSpace(string(line)), nil
		}
		if len(line) < maxLine {
			line = append(line, b[0])
		}
	}
}

// readPIN reads a PIN without echo into one buffer that never moves, so that
// no copy of it stays behind; the caller wipes it. From a pipe it reads a line.
func readPIN(ctx context.Context, std stdio, question string) (_ control.Secret, err error) {
	fd, raw := terminal(std.in)
	newline := "\n"
	if raw { // before the question: what is typed from then on must not be seen
		state, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("switch off the echo of this terminal: %w", err)
		}
		defer term.Restore(fd, state)
		newline = "\r\n"
	}
	defer fmt.Fprint(std.err, newline)
	fmt.Fprint(std.err, question)
	pin, b := make(control.Secret, 0, maxPIN), make([]byte, 1)
	defer clear(b)
	defer func() {
		if err != nil {
			pin.Wipe()
		}
	}()
	for {
		err := readKey(ctx, std.in, b)
		switch {
		case errors.Is(err, errInputEnded) && len(pin) > 0:
			return pin, nil // a last line without its end
		case err != nil:
			return nil, err
		case b[0] == '\r' || b[0] == '\n':
			if len(pin) == 0 {
				return nil, errPINCancelled
			}
			return pin, nil
		case !raw:
			pin = add(pin, b[0])
		case b[0] == keyCtrlC || b[0] == keyCtrlD:
			return nil, errPINCancelled
		case b[0] == keyEscape:
			drop(std.in)
			return nil, errPINCancelled
		case b[0] == keyDelete || b[0] == keyBackspace:
			if len(pin) > 0 {
				pin[len(pin)-1] = 0
				pin = pin[:len(pin)-1]
			}
		case b[0] == keyCtrlU:
			clear(pin)
			pin = pin[:0]
		case b[0] >= ' ': // other control keys are no part of a PIN
			pin = add(pin, b[0])
		}
	}
}

func add(pin control.Secret, b byte) control.Secret {
	if len(pin) < maxPIN {
		pin = append(pin, b)
	}
	return pin
}

// drop takes away the rest of an arrow or function key, which begins as Escape
// does, lest it be the answer to the next question.
func drop(in io.Reader) {
	f, ok := in.(*os.File)
	for b := make([]byte, 1); ok && ready(f, 0); {
		if _, err := f.Read(b); err != nil {
			return
		}
	}
}
