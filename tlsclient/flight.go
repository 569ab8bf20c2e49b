package tlsclient

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/kortti-id/kortti/card"
)

// flights runs one piece of work for all requests that need it. The work's
// context has the values of the first caller's and ends when the last caller
// has left: a prompt closes when nobody waits for it any more.
type flights[K comparable] struct {
	mu      sync.Mutex // guards what follows and the flights' own fields
	flying  map[K]*flight
	closed  error // set by close: nothing starts any more
	running sync.WaitGroup
}

// flight is one piece of work under way.
type flight struct {
	// subject is the identity that the work has come to be about, so that
	// Transport.End finds it.
	subject atomic.Pointer[card.Fingerprint]

	done    chan struct{} // closed when err is set
	err     error
	waiting int
	cancel  context.CancelCauseFunc
}

// do returns the result of the work for key, which it starts with fn unless it
// is under way. The end of ctx ends only this caller's wait.
func (g *flights[K]) do(ctx context.Context, key K, fn func(context.Context, *flight) error) error {
	g.mu.Lock()
	f := g.flying[key]
	if f == nil {
		if g.closed != nil {
			g.mu.Unlock()
			return g.closed
		}
		f = g.start(ctx, key, fn)
	}
	f.waiting++
	g.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		g.land(key, f, context.Cause(ctx))
	}
	return context.Cause(ctx)
}

// start begins the work. The caller holds the lock.
func (g *flights[K]) start(ctx context.Context, key K, fn func(context.Context, *flight) error) *flight {
	f := &flight{done: make(chan struct{})}
	ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if g.flying == nil {
		g.flying = make(map[K]*flight)
	}
	g.flying[key] = f
	g.running.Go(func() {
		err := fn(ctx, f)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.land(key, f, err)
	})
	return f
}

// land ends a flight, the first time with its result. The caller holds the lock.
func (g *flights[K]) land(key K, f *flight, err error) {
	select {
	case <-f.done:
		return
	default:
	}
	f.err = err
	close(f.done)
	f.cancel(err)
	if g.flying[key] == f {
		delete(g.flying, key)
	}
}

// fail ends the flights that match: their callers get err now, whatever the
// work is doing.
func (g *flights[K]) fail(match func(K, *flight) bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, f := range g.flying {
		if match(key, f) {
			g.land(key, f, err)
		}
	}
}

// close ends all flights and lets none start.
func (g *flights[K]) close(err error) {
	g.mu.Lock()
	g.closed = err
	g.mu.Unlock()
	g.fail(func(K, *flight) bool { return true }, err)
}

// wait returns when the work of all flights has returned.
func (g *flights[K]) wait() { g.running.Wait() }
