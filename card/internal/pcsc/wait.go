package pcsc

import (
	"context"
	"slices"
	"time"
)

// relist is the longest time that Wait relies on being told of changes:
// pcsc-lite before 2.3 forgets a reader that comes between two calls. To look is
// to ask the service; the card is sent nothing.
const relist = time.Second

// forever is the time-out of a call that ends with a change alone (INFINITE).
const forever = 0xFFFFFFFF * time.Millisecond

// cancelAgain is how long a cancelled call is waited for before it is cancelled
// again: a cancellation that comes before the call has begun is lost.
const cancelAgain = 20 * time.Millisecond

// cancelTries is how often that is done. What does not end then ends with the
// process.
const cancelTries = 50

// notification is the name of the reader that changes when readers come or go.
const notification = `\\?PnP?\Notification`

// Wait returns the readers as soon as they differ from known, at once if they
// do already. When ctx ends first it returns ctx's error.
func (c *Context) Wait(ctx context.Context, known []ReaderState) ([]ReaderState, error) {
	for {
		raw, err := c.read()
		if err != nil {
			return nil, err
		}
		now := states(raw)
		if !slices.EqualFunc(now, known, ReaderState.Equal) {
			return now, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// What happens to a waiting connection says nothing of the service, which
		// may close one and live on; the next look tells.
		if c.listen(raw) != nil {
			pause(ctx, relist)
			continue
		}
		select {
		case <-c.listener.done:
			err := c.listener.err
			c.listener = nil
			if err != nil { // nothing that says what changed; look, but do not spin
				pause(ctx, cancelAgain)
			}
		case <-time.After(relist):
		case <-ctx.Done():
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// listener is a call that returns when something changes, on a connection of
// its own that is used for nothing else and never again: when pcsc-lite's
// library gives up waiting at the moment when the service tells it of a change,
// one answer too many is on its way, and the connection has lost its step for
// good (measured with 2.5.3: 0x8010001F, or calls that never return).
type listener struct {
	service service
	seen    []rawState
	done    chan struct{} // closed at the end; err is set by then
	err     error
}

// listen makes sure that a change of these readers is listened for.
func (c *Context) listen(raw []rawState) error {
	same := func(a, b rawState) bool { return a.name == b.name && a.event == b.event }
	if c.listener != nil && slices.EqualFunc(c.listener.seen, raw, same) {
		return nil
	}
	c.hush()
	s, err := c.connect()
	if err != nil {
		return err
	}
	l := &listener{service: s, seen: raw, done: make(chan struct{})}
	watched := make([]rawState, 0, len(raw)+1)
	for _, r := range raw {
		watched = append(watched, rawState{name: r.name, current: r.event})
	}
	// From pcsc-lite 2.3 on the number of readers known is told here.
	watched = append(watched, rawState{name: notification, current: uint32(len(raw)) << 16})
	c.listener = l
	go func() {
		l.err = s.change(forever, watched)
		_ = s.release()
		close(l.done)
	}()
	return nil
}

// hush ends the listener, if there is one.
func (c *Context) hush() {
	l := c.listener
	c.listener = nil
	if l == nil {
		return
	}
	for range cancelTries {
		select {
		case <-l.done:
			return
		default:
		}
		l.service.cancel()
		select {
		case <-l.done:
			return
		case <-time.After(cancelAgain):
		}
	}
}
