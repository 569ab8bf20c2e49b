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
		go c.run(a)
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

func (c *Context) run(a *attempt) {
	s, err := c.connect() // c's own connection may be waiting for a change
	if err != nil {
		c.settle(a)
		a.err = err
		close(a.done)
		return
	}
	for {
		a.err = c.try(s, a)
		again := errors.Is(a.err, ErrBusy) || code(a.err) == codeResetCard || code(a.err) == codeUnpoweredCard
		if !again || !c.wanted(a) {
			break
		}
		time.Sleep(resetAgain)
	}
	c.settle(a)
	close(a.done)
	// Only now, since leaving waits too while another is inside a transaction.
	// It ends the connections to the card, and leaves the card as it is.
	_ = s.release()
}

// try goes through a second connection, the witness: PC/SC tells every other
// connection of a reset, so what the witness is told confirms it. That the
// reader has the card's answer afterwards shows that it works.
func (c *Context) try(s service, a *attempt) error {
	witness, err := s.open(a.reader, shareShared)
	if err != nil {
		return err
	}
	card, err := s.open(a.reader, shareShared)
	if err != nil {
		return errors.Join(err, s.close(witness, leaveCard))
	}
	// Inside a transaction nobody else can be in the middle of one.
	if err := s.begin(card); err != nil {
		return errors.Join(err, s.close(card, leaveCard), s.close(witness, leaveCard))
	}
	if !c.settle(a) {
		return errors.Join(ErrNotReset, s.end(card))
	}
	if err := s.close(card, resetCard); err != nil {
		return err
	}
	if err := s.begin(witness); err == nil {
		return errors.Join(ErrNotReset, s.end(witness))
	} else if code(err) != codeResetCard {
		return err
	}
	return answered(s, a.reader)
}

// answered asks the service, not the card, which somebody else may have by now.
func answered(s service, reader string) error {
	state := []rawState{{name: reader}}
	if err := s.change(0, state); err != nil {
		return err
	}
	switch {
	case state[0].event&statePresent == 0:
		return ErrNoCard
	case state[0].event&stateMute != 0 || len(state[0].atr) == 0:
		return ErrNoAnswer
	}
	return nil
}
