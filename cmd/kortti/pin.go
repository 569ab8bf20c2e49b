package main

import (
	"context"
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
