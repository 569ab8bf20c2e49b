package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/kortti-id/kortti/agent/control"
)

// errPINCancelled is the person's Ctrl-C or empty PIN at a question.
var errPINCancelled = errors.New("cancelled; the card was not asked")

// maxPIN bounds what is read as a PIN, in bytes; the longest FINeID PIN has 12
// digits, PKCS#11 modules take up to 255.
const maxPIN = 255

func runPrompt(ctx context.Context, std stdio, args []string) error {
	fs := flags(std, "prompt")
	socket := socketFlag(fs)
	once := fs.Bool("once", false, "end after one answer")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		stream, err := c.Events(ctx, true)
		if err != nil {
			return err
		}
		defer stream.Close()
		fmt.Fprintln(std.err, "Waiting for the agent's questions (Ctrl-C ends this) ...")
		for {
			ev, err := stream.Next()
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, io.EOF):
				return errors.New("the agent has ended")
			case err != nil:
				return err
			case ev.Kind != control.EventPrompt || ev.Prompt == nil || ev.Prompt.Leased:
				continue
			}
			err = answer(ctx, std, c, *ev.Prompt)
			if *once {
				return err
			}
			if err != nil {
				fmt.Fprintf(std.err, "%v\n", err)
			}
		}
	})
}

// answer takes the lease of a prompt, asks the person and sends the answer.
func answer(ctx context.Context, std stdio, c *control.Client, p control.Prompt) error {
	lease, err := c.Lease(ctx, p.ID)
	if err != nil {
		return err
	}
	a, err := ask(std, p)
	if err != nil {
		if !errors.Is(err, errPINCancelled) {
			return err
		}
		_, cancelErr := c.Answer(ctx, p.ID, control.Answer{LeaseToken: lease, Cancel: true})
		return errors.Join(err, cancelErr)
	}
	a.LeaseToken = lease
	if p.Kind == control.PromptPIN && p.PinPad {
		fmt.Fprintln(std.err, "Enter the PIN on the reader now.")
	}
	if _, err := c.Answer(ctx, p.ID, a); err != nil {
		return err
	}
	if p.Kind == control.PromptPIN {
		fmt.Fprintln(std.err, "The card is unlocked.")
	}
	return nil
}

// ask puts one prompt to the person and returns the answer, without lease.
func ask(std stdio, p control.Prompt) (control.Answer, error) {
	if p.Message != "" {
		fmt.Fprintln(std.err, p.Message)
	}
	switch p.Kind {
	case control.PromptConsent:
		ok, err := yes(std, fmt.Sprintf("May %s use the card of %s at %s? [y/N] ", p.Program, p.Name, p.Host))
		return control.Answer{Allow: &ok, Remember: ok}, err
	case control.PromptCertificate:
		return askCertificate(std, p)
	case control.PromptPIN:
		return askPIN(std, p)
	}
	return control.Answer{}, fmt.Errorf("this program is too old for a prompt of the kind %q; update it", p.Kind)
}

func askPIN(std stdio, p control.Prompt) (control.Answer, error) {
	if p.Host != "" {
		fmt.Fprintf(std.err, "%s wants to log in to %s.\n", orUnknown(p.Program), p.Host)
	}
	a := control.Answer{}
	if p.FinalTry {
		ok, err := yes(std, "This is the LAST try: a wrong PIN locks the card. Go on? [y/N] ")
		if err != nil {
			return a, err
		}
		if !ok {
			return a, errPINCancelled
		}
		a.ConfirmFinal = true
	}
	if p.PinPad {
		allow := true
		a.Allow = &allow
		return a, nil
	}
	who := p.CardLabel
	if p.Name != "" {
		who += " (" + p.Name + ")"
	}
	pin, err := readPIN(std, fmt.Sprintf("PIN of %s: ", who))
	a.PIN = pin
	return a, err
}

func askCertificate(std stdio, p control.Prompt) (control.Answer, error) {
	fmt.Fprintf(std.err, "Which certificate for %s?\n", p.Host)
	for i, c := range p.Candidates {
		fmt.Fprintf(std.err, "  %d  %s, %s, issued by %s\n", i+1, c.Name, short(c.SHA256), c.Issuer)
	}
	line, err := readLine(std, "Number (empty = none): ")
	if err != nil {
		return control.Answer{}, err
	}
	n, err := strconv.Atoi(line)
	if err != nil || n < 1 || n > len(p.Candidates) {
		return control.Answer{}, errPINCancelled
	}
	return control.Answer{Certificate: p.Candidates[n-1].SHA256, Remember: true}, nil
}

func orUnknown(program string) string {
	if program == "" {
		return "A program"
	}
	return program
}

func yes(std stdio, question string) (bool, error) {
	line, err := readLine(std, question)
	line = strings.ToLower(line)
	return line == "y" || line == "yes", err
}

func readLine(std stdio, question string) (string, error) {
	fmt.Fprint(std.err, question)
	line, err := bufio.NewReader(oneByte{std.in}).ReadString('\n')
	if err != nil && line == "" {
		return "", errPINCancelled
	}
	return strings.TrimSpace(line), nil
}

// oneByte keeps bufio from reading past the line: the next question reads on.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// readPIN reads a PIN without echo into one buffer that never moves, so that
// no copy of it stays behind; the caller wipes it. From a pipe it reads a line.
func readPIN(std stdio, question string) (control.Secret, error) {
	fmt.Fprint(std.err, question)
	if f, ok := std.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		state, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return nil, fmt.Errorf("switch off the echo of this terminal: %w", err)
		}
		defer fmt.Fprint(std.err, "\r\n")
		defer term.Restore(int(f.Fd()), state)
	}
	pin := make(control.Secret, 0, maxPIN)
	for b := make([]byte, 1); ; {
		n, err := std.in.Read(b)
		switch {
		case n == 0 && err == nil:
			continue
		case err != nil && len(pin) == 0:
			return nil, errPINCancelled
		case err != nil, b[0] == '\r', b[0] == '\n':
			if len(pin) == 0 {
				return nil, errPINCancelled
			}
			clear(b)
			return pin, nil
		case b[0] == 3 || b[0] == 4 || b[0] == 27: // Ctrl-C, Ctrl-D, Escape
			pin.Wipe()
			return nil, errPINCancelled
		case b[0] == 127 || b[0] == 8:
			if len(pin) > 0 {
				pin[len(pin)-1] = 0
				pin = pin[:len(pin)-1]
			}
		case len(pin) < maxPIN:
			pin = append(pin, b[0])
		}
	}
}
