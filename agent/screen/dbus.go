//go:build !windows && !darwin

package screen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Times between tries to reach a bus: a bus that is not there costs next to
// nothing, and one that comes late is found.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// The usual place of the system bus (D-Bus specification, "Well-known message
// bus instances").
const systemAddress = "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket"

var errNoSession = errors.New("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")

// state is what is known of the buses.
type state struct {
	noSystem, noSession error // why the bus is not watched; nil while it is
	logind              bool
	delay               error    // why sleep does not wait for us
	sessions            []string // logind's, by their ids
	savers              []string // the bus names that are taken
}

func newState() state {
	err := errors.New("not asked yet")
	return state{noSystem: err, noSession: err}
}

func (s *state) show() State {
	var by, missing []string
	switch {
	case s.noSystem != nil:
		missing = append(missing, fmt.Sprintf("no system bus (%v)", s.noSystem))
	case !s.logind:
		missing = append(missing, "no logind on the system bus")
	case len(s.sessions) == 0:
		missing = append(missing, "logind knows no session of this user")
	default:
		by = append(by, "logind's session "+strings.Join(s.sessions, ", "))
	}
	out := State{Sleep: Sight{Watched: s.noSystem == nil && s.logind}}
	switch {
	case !out.Sleep.Watched:
		out.Sleep.Detail = missing[0]
	case s.delay != nil:
		out.Sleep.Detail = fmt.Sprintf("logind, but sleep does not wait for the lock (%v)", s.delay)
	default:
		out.Sleep.Detail = "logind"
	}
	switch {
	case s.noSession != nil:
		missing = append(missing, fmt.Sprintf("no session bus (%v)", s.noSession))
	case len(s.savers) == 0:
		missing = append(missing, "no screen saver on the session bus")
	default:
		by = append(by, s.savers...)
	}
	if out.Screen.Watched = len(by) > 0; out.Screen.Watched {
		out.Screen.Detail = strings.Join(by, ", ")
	} else {
		out.Screen.Detail = strings.Join(missing, "; ")
	}
	return out
}

// update changes the state and logs what that means for the person.
func (w *Watcher) update(change func(*state)) {
	w.mu.Lock()
	before := w.state.show()
	change(&w.state)
	after := w.state.show()
	w.mu.Unlock()
	w.report("the screen lock", before.Screen, after.Screen)
	w.report("sleep", before.Sleep, after.Sleep)
}

func (w *Watcher) report(what string, before, after Sight) {
	switch {
	case before == after:
	case before.Watched == after.Watched:
		w.config.Log.Debug("the watch of "+what+" has changed", "watched", after.Watched, "detail", after.Detail)
	case after.Watched:
		w.config.Log.Info(what+" locks the cards", "through", after.Detail)
	default:
		w.config.Log.Warn(what+" does not lock the cards any more", "reason", after.Detail)
	}
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	var buses sync.WaitGroup
	defer buses.Wait()
	system := cmp.Or(w.config.Buses.System, os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), systemAddress)
	buses.Go(func() {
		g := &logind{Watcher: w, address: system}
		w.keep(ctx, "system bus", system, g, func(s *state, err error) { s.noSystem = err })
	})
	session := w.config.Buses.Session
	if session == "" {
		if session = sessionAddress(); session == "" {
			w.update(func(s *state) { s.noSession = errNoSession })
			return
		}
	}
	buses.Go(func() {
		w.keep(ctx, "session bus", session, &savers{Watcher: w}, func(s *state, err error) { s.noSession = err })
	})
}

// sessionAddress is where the session bus should be. "autolaunch:" is not
// followed: it would start a bus on which nobody is.
func sessionAddress() string {
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" && !strings.HasPrefix(address, "autolaunch:") {
		return address
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return "unix:path=" + escape(filepath.Join(dir, "bus"))
	}
	return ""
}

// keep serves a bus until ctx ends, again and again with longer and longer
// pauses. A bus that is lost locks the cards: nobody would see the screen lock.
func (w *Watcher) keep(ctx context.Context, name, address string, g guard, set func(*state, error)) {
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		began := time.Now()
		watched, err := w.serve(ctx, address, g, func() { w.update(func(s *state) { set(s, nil) }) })
		if ctx.Err() != nil {
			return
		}
		w.update(func(s *state) { set(s, err) })
		if watched {
			w.config.Lock("the " + name + " was lost, on which the screen is watched")
		}
		if time.Since(began) > lastPause {
			wait = firstPause
		}
		w.pause(ctx, wait)
		if ctx.Err() != nil {
			return
		}
	}
}

// serve watches a bus until ctx ends or the bus is lost; up is called when no
// signal can be missed any more, and watched tells whether that was reached.
func (w *Watcher) serve(ctx context.Context, address string, g guard, up func()) (watched bool, err error) {
	l, err := join(ctx, address, g.names())
	if err != nil {
		return false, err
	}
	defer l.conn.Close()
	defer g.gone()
	if err := l.listen(ctx, g.rules()); err != nil {
		return false, err
	}
	up()
	for {
		select {
		case <-l.conn.Context().Done(): // or ctx, its parent
			return true, errLost
		case <-l.ready:
		}
		for _, n := range l.take() {
			var err error
			if n.signal == nil {
				err = g.owned(ctx, l, n.name)
			} else {
				err = g.heard(ctx, l, n.signal)
			}
			if err != nil {
				return true, err
			}
		}
	}
}
