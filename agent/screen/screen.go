// Package screen tells when the person goes away from the screen, so that the
// cards can be locked: the screen locks, the machine is about to sleep, the
// session is switched away or ends. On Linux and the BSDs it learns this on
// D-Bus, from logind and from the desktop's screen saver; sleep waits until the
// cards are locked.
//
// It never unlocks anything: a signal that is forged can at most lock a card.
// It takes signals only from the service that owns a name on its bus, and it
// needs none of them: what is missing is tried again, and State says what is
// watched. It starts no service and no bus.
//
//	w := screen.New(screen.Config{Lock: func(reason string) { manager.Lock("", reason) }})
//	w.Run(ctx) // until ctx ends
package screen

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// The reasons to lock, for people.
const (
	Locked   = "the screen was locked"
	Sleep    = "the machine goes to sleep"
	Switched = "the session was switched away"
	Ended    = "the session ended"
)

// Buses are addresses as in DBUS_SESSION_BUS_ADDRESS. An empty one stands for
// the usual place: the environment's, then the D-Bus specification's.
type Buses struct{ System, Session string }

// Config says what a Watcher does.
type Config struct {
	Buses Buses
	// Lock locks all cards and returns when that is done; reason is for people.
	// It is called concurrently, and again for what one event says in several ways.
	Lock func(reason string)
	// Log takes what is watched and what goes wrong; nil discards it.
	Log *slog.Logger
}

// State says what is watched.
type State struct {
	Screen Sight // the screen lock, and the session in front
	Sleep  Sight // the machine's sleep
}

// Sight is whether one thing is watched. Detail says through whom, or why not,
// for people.
type Sight struct {
	Watched bool
	Detail  string
}

// Watcher watches the buses. Make it with New, then call Run once.
type Watcher struct {
	config Config
	pause  func(context.Context, time.Duration) // between two tries to reach a bus

	mu    sync.Mutex // guards all below
	state state
}

// New returns a watcher that does nothing yet.
func New(c Config) *Watcher {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{config: c, pause: pause, state: newState()}
}

// State says what is watched now. It may be called at any time.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.show()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
