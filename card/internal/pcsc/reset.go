package pcsc

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Reset resets the card in reader and confirms that it happened, so that no PIN
// is verified on it any more. While another program is inside a transaction or
// has the card to itself, Reset waits until ctx ends; the error is then
// [ErrBusy], and the card must be taken for unlocked. [ErrNoCard] and
// [ErrNoReader] say that there was nothing to reset.
//
// Reset may be called at any time and by several goroutines. What blocks is an
// attempt of its own, of which there is one for each reader: while another
// program is inside a transaction even connecting waits, and pcsc-lite cannot
// cancel that. An attempt that nobody waits for any more leaves the card alone
// once it gets through; one that never gets through ends with the process.
func (c *Context) Reset(ctx context.Context, reader string) error {
	a := c.join(reader)
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		c.leave(a)
		return fmt.Errorf("%w: it was not reset in time: %w", ErrBusy, ctx.Err())
	}
}

// attempt is a reset on its way. Context.mu guards waiters.
type attempt struct {
	reader  string
	waiters int
	done    chan struct{} // closed at the end; err is set by then
	err     error
}

// join returns the attempt that has not reset the card yet, or starts one.
func (c *Context) join(reader string) *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.attempts[reader]
	if a == nil {
		a = &attempt{reader: reader, done: make(chan struct{})}
		c.attempts[reader] = a
		go func() {
			a.err = c.run(a)
			close(a.done)
		}()
	}
	a.waiters++
	return a
}

func (c *Context) leave(a *attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.waiters--
}

// settle takes the attempt away from those who come later: a reset must not
// count for a call made after it. It reports whether anybody waits for it.
func (c *Context) settle(a *attempt) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempts[a.reader] == a {
		delete(c.attempts, a.reader)
	}
	return a.waiters > 0
}

func (c *Context) wanted(a *attempt) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return a.waiters > 0
}

// resetAgain is the pause between tries while another program has the card.
const resetAgain = 20 * time.Millisecond

func (c *Context) run(a *attempt) error {
	defer c.settle(a)
	s, err := c.connect() // c's own connection may be waiting for a change
	if err != nil {
		return err
	}
	for {
		err = c.try(s, a)
		again := errors.Is(err, ErrBusy) || code(err) == codeResetCard || code(err) == codeUnpoweredCard
		if !again || !c.wanted(a) {
			return errors.Join(err, s.release())
		}
		time.Sleep(resetAgain)
	}
}

// try goes through a second connection, the witness: PC/SC tells every other
// connection of a reset, so what the witness is told confirms it. That the
// witness can then connect again shows that the card has answered.
func (c *Context) try(s service, a *attempt) (err error) {
	witness, err := s.open(a.reader, shareShared)
	if err != nil {
		return err
	}
	defer func() {
		if leaveErr := s.close(witness, leaveCard); err == nil && code(leaveErr) != codeRemovedCard {
			err = leaveErr
		}
	}()
	card, err := s.open(a.reader, shareShared)
	if err != nil {
		return err
	}
	// Inside a transaction nobody else can be in the middle of one.
	if err := s.begin(card); err != nil {
		return errors.Join(err, s.close(card, leaveCard))
	}
	if !c.settle(a) {
		return errors.Join(ErrNotReset, s.close(card, leaveCard))
	}
	if err := s.close(card, resetCard); err != nil {
		return err
	}
	switch err := s.begin(witness); {
	case err == nil:
		return errors.Join(ErrNotReset, s.end(witness))
	case code(err) != codeResetCard:
		return err
	}
	if err := s.reopen(witness); !errors.Is(err, ErrBusy) { // busy: it answers somebody else already
		return err
	}
	return nil
}
