package main

import (
	"context"
	"sync"

	"github.com/kortti-id/kortti/agent/control"
)

// whileAnswering does something that the agent may have to ask a person about,
// and puts the agent's questions on this terminal meanwhile.
func whileAnswering(ctx context.Context, std stdio, c *control.Client, do func(context.Context) error) error {
	stream, err := c.Events(ctx, true)
	if err != nil {
		return err
	}
	type question struct {
		control.Prompt
		ctx context.Context
	}
	var open questions
	var running sync.WaitGroup
	raised := make(chan question, 64) // more than the agent lets be open
	running.Go(func() {
		// Where the stream ends the agent has ended, and do fails too.
		_ = open.follow(stream, func(p control.Prompt) {
			if ctx, known := open.begin(ctx, p.ID); !known {
				select {
				case raised <- question{p, ctx}:
				default: // left to other front ends
				}
			}
		})
	})
	done := make(chan error, 1)
	running.Go(func() { done <- do(ctx) })
	for {
		select {
		case err := <-done:
			stream.Close()
			running.Wait()
			return err
		case q := <-raised:
			// What went wrong is in the next question, or is what do ends with.
			_ = answer(ctx, q.ctx, terminalPerson{std}, std, c, q.Prompt)
		}
	}
}
