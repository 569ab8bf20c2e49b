package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// cancelTime bounds the farewell to an agent that may be ending too.
const cancelTime = 3 * time.Second

// questions are the agent's open prompts, each with a context that ends when
// the agent closes it: answered elsewhere, expired, the card pulled.
type questions struct {
	mu   sync.Mutex // guards open
	open map[string]context.CancelCauseFunc
}

// begin returns the context of a prompt; known tells that it has one already.
func (q *questions) begin(ctx context.Context, id string) (_ context.Context, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open[id] != nil {
		return ctx, true
	}
	if q.open == nil {
		q.open = map[string]context.CancelCauseFunc{}
	}
	ctx, q.open[id] = context.WithCancelCause(ctx)
	return ctx, false
}

// end closes a question; code says why as in control.Error.
func (q *questions) end(id, code, reason string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cancel := q.open[id]; cancel != nil {
		cancel(&closedError{&control.Error{Code: code, Message: "the question is not open any more: " + reason}})
		delete(q.open, id)
	}
}

// closedError tells that the agent closed a question before its answer.
type closedError struct{ reason *control.Error }

func (e *closedError) Error() string { return e.reason.Error() }
func (e *closedError) Unwrap() error { return e.reason }

// follow reads the agent's events until the stream ends and hands each prompt
// that opens to opened.
func (q *questions) follow(stream *control.Stream, opened func(control.Prompt)) error {
	for {
		ev, err := stream.Next()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the agent has ended")
		case err != nil:
			return err
		case ev.Prompt == nil:
		case ev.Kind == control.EventPromptClosed:
			code, reason := ev.Code, ev.Reason
			if reason == "" {
				code, reason = control.CodeExpired, "it was answered elsewhere"
			}
			q.end(ev.Prompt.ID, code, reason)
		case ev.Kind == control.EventPrompt && !ev.Prompt.Leased:
			opened(*ev.Prompt)
		}
	}
}

func runPrompt(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "prompt", "")
	socket := socketFlag(fs)
	once := fs.Bool("once", false, "end after one answer")
	window := pinentryFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	var who person = terminalPerson{std}
	if window.path != "" {
		p, err := newPinentryPerson(ctx, window.path)
		if err != nil {
			return err
		}
		who = p
	}
	return withAgent(*socket, func(c *control.Client) error {
		stream, err := c.Events(ctx, true)
		if err != nil {
			return err
		}
		fmt.Fprintln(std.err, "Waiting for the agent's questions (Ctrl-C ends this) ...")
		type question struct {
			control.Prompt
			ctx context.Context
		}
		var open questions
		queue, ended := make(chan question, 64), make(chan error, 1)
		go func() {
			defer close(queue)
			ended <- open.follow(stream, func(p control.Prompt) {
				if ctx, known := open.begin(ctx, p.ID); !known {
					queue <- question{p, ctx}
				}
			})
		}()
		said := "" // what the person has just read
		for q := range queue {
			if q.Message == said && said != "" {
				q.Message, q.CountLow = "", false
			}
			err := answer(ctx, q.ctx, who, std, c, q.Prompt)
			if *once && !notOurs(err) || errors.Is(err, errInputEnded) {
				stream.Close()
				for range queue { // until follow has ended
				}
				return err
			}
			if said = ""; err != nil && ctx.Err() == nil {
				said = err.Error()
				message, hint := describe(err)
				fmt.Fprintln(std.err, strings.TrimSpace(message+"\n"+hint))
			}
		}
		stream.Close()
		err = <-ended
		if ctx.Err() != nil {
			fmt.Fprintln(std.err) // after the ^C that the terminal shows
			return nil
		}
		return err
	})
}

// notOurs tells that a question went without an answer of ours.
func notOurs(err error) bool {
	var closed *closedError
	var ce *control.Error
	return errors.As(err, &closed) || errors.As(err, &ce) && (ce.Code == control.CodeExpired || ce.Code == control.CodeLeased || ce.Code == control.CodeNotFound)
}

// answer takes the lease of a prompt, asks the person while open lasts and sends
// the answer. std hears how it went.
func answer(ctx, open context.Context, who person, std stdio, c *control.Client, p control.Prompt) error {
	lease, err := c.Lease(ctx, p.ID)
	if err != nil {
		return err
	}
	a, err := ask(open, who, p)
	if err != nil {
		if ctx.Err() == nil && open.Err() != nil {
			return err // there is nothing left to cancel
		}
		// Also at Ctrl-C: who waits for the answer should not wait on.
		limit, done := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
		defer done()
		_, cancelErr := c.Answer(limit, p.ID, control.Answer{LeaseToken: lease, Cancel: true})
		if ctx.Err() != nil {
			err = errPINCancelled
		}
		return errors.Join(err, cancelErr)
	}
	a.LeaseToken = lease
	if _, err := c.Answer(ctx, p.ID, a); err != nil {
		return withLengths(err, p)
	}
	switch {
	case p.Kind == control.PromptPIN:
		fmt.Fprintln(std.err, "The card is unlocked.")
	case p.Kind == control.PromptPINChange, p.Kind == control.PromptPINUnblock:
		fmt.Fprintln(std.err, "The card has the new PIN. It is locked.")
	case a.Allow != nil && *a.Allow:
		fmt.Fprintln(std.err, "Allowed.")
	case a.Allow != nil:
		fmt.Fprintln(std.err, "Not allowed.")
	}
	return nil
}

// withLengths says how long this card's PIN is where the length was wrong.
func withLengths(err error, p control.Prompt) error {
	var ce *control.Error
	if errors.As(err, &ce) && ce.Code == control.CodePINNew && p.MaxPIN > 0 {
		hint := fmt.Sprintf("Choose a new PIN of %d to %d characters, another than the old one.", p.MinPIN, p.MaxPIN)
		return &control.Error{Code: ce.Code, Message: ce.Message, Hint: hint}
	}
	if errors.As(err, &ce) && ce.Code == control.CodePINLength && p.Kind != control.PromptPINUnblock && p.MaxPIN > 0 {
		hint := fmt.Sprintf("Enter a PIN of %d to %d characters. The card was not asked.", p.MinPIN, p.MaxPIN)
		return &control.Error{Code: ce.Code, Message: ce.Message, Hint: hint}
	}
	return err
}
