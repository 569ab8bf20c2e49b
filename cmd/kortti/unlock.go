package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/kortti-id/kortti/agent/control"
)

func runUnlock(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "unlock", "[CARD]")
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
		err = answerOne(ctx, std, c, func() (control.Prompt, error) { return c.Unlock(ctx, sel) })
		if errors.Is(err, &control.Error{Code: control.CodeUnlocked}) {
			fmt.Fprintln(std.err, "The card is unlocked already.")
			return nil
		}
		return err
	})
}

// answerOne has the agent raise a question and answers it on this terminal.
func answerOne(ctx context.Context, std stdio, c *control.Client, raise func() (control.Prompt, error)) error {
	stream, err := c.Events(ctx, false)
	if err != nil {
		return err
	}
	p, err := raise()
	if err != nil {
		stream.Close()
		return nothingToUnlock(ctx, c, err)
	}
	var open questions
	while, _ := open.begin(ctx, p.ID)
	var following sync.WaitGroup
	following.Go(func() {
		err := open.follow(stream, func(control.Prompt) {})
		open.end(p.ID, control.CodeExpired, err.Error())
	})
	err = answer(ctx, while, terminalPerson{std}, std, c, p)
	stream.Close()
	following.Wait()
	return err
}

// nothingToUnlock says more closely why the agent found no card to unlock.
func nothingToUnlock(ctx context.Context, c *control.Client, err error) error {
	if exitCode(err) != exitNoCard {
		return err
	}
	cards, cardsErr := c.Cards(ctx)
	if cardsErr != nil {
		return err
	}
	if err := noCards(cards); err != nil {
		return err
	}
	return &control.Error{Code: control.CodeNoCard, Message: "the inserted card has no certificate for login", Hint: "See why with: kortti certs"}
}

func runLock(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "lock", "[CARD]")
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
		if err := c.Lock(ctx, sel); err != nil {
			return err
		}
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range status.Cards {
			if s.State == control.LockNotConfirmed && (sel.Card == "" || sel.Card == s.Card) {
				return &control.Error{Message: "the card did not confirm that it is locked: another program holds it", Hint: "Pull the card out of the reader."}
			}
		}
		fmt.Fprintln(std.out, "Locked.")
		return nil
	})
}
