package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
)

const pinUsage = "change [CARD] | unblock [CARD]"

func runPIN(ctx context.Context, std stdio, args []string) error {
	what, args, err := verb(std, "pin", pinUsage, args)
	if err != nil {
		return err
	}
	fs := newFlags(std, "pin "+what, "[CARD]")
	socket := socketFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		sel, err := selection(ctx, c, strings.Join(rest, ""))
		if err != nil {
			return err
		}
		raise := c.ChangePIN
		if what == "unblock" {
			raise = c.UnblockPIN
		}
		return answerOne(ctx, std, c, func() (control.Prompt, error) { return raise(ctx, sel) })
	})
}

// askNewPIN asks for the old PIN or the PUK, and twice for the new PIN.
func askNewPIN(ctx context.Context, std stdio, p control.Prompt) (a control.Answer, err error) {
	fmt.Fprintln(std.err, "This is about the PIN that logs in (PIN1); the PIN for signatures (PIN2) stays as it is.")
	unblock := p.Kind == control.PromptPINUnblock
	if p.ToBeChanged && !unblock {
		fmt.Fprintln(std.err, "This card is not activated: the old PIN is the activation PIN of its letter. If the letter has a PUK instead, use: kortti pin unblock")
	}
	a, err = beforePIN(ctx, std, p)
	if err != nil || p.PinPad {
		return a, err
	}
	defer func() {
		if err != nil {
			a.Wipe()
		}
	}()
	given, question := &a.PIN, "Old PIN of "
	if unblock {
		given, question = &a.PUK, "PUK of "
	}
	if *given, err = readPIN(ctx, std, question+whose(p)+": "); err != nil {
		return a, err
	}
	a.NewPIN, err = readTwice(ctx, std, newPINQuestion(p))
	return a, err
}

func newPINQuestion(p control.Prompt) string {
	if p.MaxPIN == 0 {
		return "New PIN: "
	}
	return fmt.Sprintf("New PIN (%d to %d characters): ", p.MinPIN, p.MaxPIN)
}

// readTwice reads a new PIN until it is entered the same way twice in a row.
func readTwice(ctx context.Context, std stdio, question string) (control.Secret, error) {
	for {
		pin, err := readPIN(ctx, std, question)
		if err != nil {
			return nil, err
		}
		again, err := readPIN(ctx, std, "New PIN again: ")
		same := bytes.Equal(pin, again)
		again.Wipe()
		if err == nil && same {
			return pin, nil
		}
		pin.Wipe()
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(std.err, "These are two different PINs. Enter the new PIN once more.")
	}
}

// padWords say what to do at a reader with a keypad.
func padWords(kind control.PromptKind) string {
	switch kind {
	case control.PromptPINChange:
		return "Enter the old PIN on the reader now, then the new PIN twice."
	case control.PromptPINUnblock:
		return "Enter the PUK on the reader now, then the new PIN twice."
	}
	return "Enter the PIN on the reader now."
}
