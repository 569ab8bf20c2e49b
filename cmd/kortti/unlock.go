package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
)

func runUnlock(ctx context.Context, std stdio, args []string) error {
	fs := flags(std, "unlock")
	socket := socketFlag(fs)
	rest, err := parse(fs, args, 0, 1)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		sel, err := selection(ctx, c, strings.Join(rest, ""))
		if err != nil {
			return err
		}
		p, err := c.Unlock(ctx, sel)
		if err != nil {
			return err
		}
		return answer(ctx, std, c, p)
	})
}

func runLock(ctx context.Context, std stdio, args []string) error {
	fs := flags(std, "lock")
	socket := socketFlag(fs)
	rest, err := parse(fs, args, 0, 1)
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
			if s.State == control.LockNotConfirmed {
				return errors.New("the card did not confirm that it is locked: another program holds it; pull the card out")
			}
		}
		fmt.Fprintln(std.out, "Locked.")
		return nil
	})
}

// hasPrefixFold reports whether s begins with prefix, whatever the case.
func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
