//go:build !windows && !darwin

package screen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/godbus/dbus/v5"
)

// Names of org.freedesktop.login1(5).
const (
	login1        = "org.freedesktop.login1"
	login1Path    = dbus.ObjectPath("/org/freedesktop/login1")
	login1Manager = login1 + ".Manager"
	login1Session = login1 + ".Session"
	properties    = "org.freedesktop.DBus.Properties"
)

// logind watches the system bus for the machine's sleep and for the person's
// sessions. While it is connected it holds a delay lock, without which the
// machine would sleep before the cards are locked.
type logind struct {
	*Watcher
	address   string
	inhibitor *os.File // nil while none is held
	sessions  []dbus.ObjectPath
}

func (*logind) names() []string { return []string{login1} }

func (*logind) rules() [][]dbus.MatchOption {
	sessions := dbus.WithMatchPathNamespace(login1Path + "/session")
	return [][]dbus.MatchOption{
		{dbus.WithMatchInterface(login1Manager)},
		{dbus.WithMatchInterface(login1Session), dbus.WithMatchMember("Lock"), sessions},
		{dbus.WithMatchInterface(properties), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchArg(0, login1Session), sessions},
	}
}

// owned begins anew with a logind that has come, or was there before us.
func (g *logind) owned(ctx context.Context, l *line, _ string) error {
	g.release()
	g.sessions = nil
	there := l.owner(login1) != ""
	g.update(func(s *state) { s.logind, s.sessions, s.delay = there, nil, nil })
	if !there {
		return nil
	}
	if err := g.inhibit(ctx, l); err != nil {
		return err
	}
	var sleeping bool
	err := l.call(ctx, login1, login1Path, properties+".Get", login1Manager, "PreparingForSleep").Store(&sleeping)
	switch {
	case fatal(l, err):
		return fmt.Errorf("ask whether the machine goes to sleep: %w", err)
	case err == nil && sleeping:
		g.sleep()
	}
	return g.find(ctx, l)
}

// heard acts on one signal of logind's.
func (g *logind) heard(ctx context.Context, l *line, s *dbus.Signal) error {
	switch s.Name {
	case login1Manager + ".PrepareForSleep":
		var begins bool
		switch {
		case dbus.Store(s.Body, &begins) != nil:
		case begins:
			g.sleep()
		default:
			return g.inhibit(ctx, l)
		}
	case login1Manager + ".SessionNew":
		return g.find(ctx, l)
	case login1Manager + ".SessionRemoved":
		var id string
		var session dbus.ObjectPath
		if dbus.Store(s.Body, &id, &session) == nil && slices.Contains(g.sessions, session) {
			g.sessions = slices.DeleteFunc(g.sessions, func(p dbus.ObjectPath) bool { return p == session })
			g.config.Lock(Ended)
			return g.find(ctx, l)
		}
	case login1Session + ".Lock":
		if slices.Contains(g.sessions, s.Path) {
			g.config.Lock(Locked)
		}
	case properties + ".PropertiesChanged":
		return g.changed(ctx, l, s)
	}
	return nil
}

// sleep lets the machine sleep once the cards are locked.
func (g *logind) sleep() {
	g.config.Lock(Sleep)
	g.release()
}

// inhibit takes the delay lock, if it is not held. A refusal is no error: then
// sleep is noticed, but does not wait.
func (g *logind) inhibit(ctx context.Context, l *line) error {
	owner := l.owner(login1)
	if g.inhibitor != nil || owner == "" {
		return nil
	}
	// The lock lasts as long as its file is open, and not the connection.
	file, err := askForFile(ctx, g.address, owner, login1Path, login1Manager+".Inhibit", "sleep", "Kortti", "Smart cards are locked first", "delay")
	if fatal(l, err) {
		return fmt.Errorf("ask logind to wait with sleep: %w", err)
	}
	g.update(func(s *state) { s.delay = err })
	g.inhibitor = file
	return nil
}

func (g *logind) release() {
	if g.inhibitor != nil {
		g.inhibitor.Close()
		g.inhibitor = nil
	}
}

// find looks for the sessions to watch: the agent's own, the one named in the
// environment, and the user's graphical one, as a program that systemd --user
// started belongs to no session. One that is watched stays so until it ends.
func (g *logind) find(ctx context.Context, l *line) error {
	known := g.sessions
	found := slices.Clone(known)
	add := func(p dbus.ObjectPath, err error) {
		if err == nil && p.IsValid() && p != "/" && !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	get := func(method string, args ...any) (p dbus.ObjectPath, err error) {
		err = l.call(ctx, login1, login1Path, login1Manager+"."+method, args...).Store(&p)
		return p, err
	}
	add(get("GetSessionByPID", uint32(os.Getpid())))
	if id := os.Getenv("XDG_SESSION_ID"); id != "" {
		add(get("GetSession", id))
	}
	user, err := get("GetUser", uint32(os.Getuid()))
	if err == nil {
		var display struct {
			ID   string
			Path dbus.ObjectPath
		}
		err = l.call(ctx, login1, user, properties+".Get", login1+".User", "Display").Store(&display)
		add(display.Path, err)
	}
	if l.conn.Context().Err() != nil {
		return errLost
	}
	g.sessions = nil
	for _, p := range found {
		watched := slices.Contains(known, p)
		ours, err := g.look(ctx, l, p, !watched)
		switch {
		case err != nil:
			return err
		case ours:
			g.sessions = append(g.sessions, p)
		case watched: // its end has not been heard yet
			g.config.Lock(Ended)
		}
	}
	g.update(func(s *state) { s.sessions = ids(g.sessions) })
	return nil
}

// look asks how a session is and locks, if act, where nobody is in front of it.
// XDG_SESSION_ID may be left from a session long gone, whose id is another's now.
func (g *logind) look(ctx context.Context, l *line, session dbus.ObjectPath, act bool) (ours bool, err error) {
	var all map[string]dbus.Variant
	err = l.call(ctx, login1, session, properties+".GetAll", login1Session).Store(&all)
	if fatal(l, err) {
		return false, fmt.Errorf("ask how session %s is: %w", session, err)
	}
	var user struct {
		UID  uint32
		Path dbus.ObjectPath
	}
	owner, known := all["User"]
	if err != nil || !known || owner.Store(&user) != nil || user.UID != uint32(os.Getuid()) {
		return false, nil
	}
	if act {
		g.judge(all)
	}
	return true, nil
}

// changed reads which properties of a session have changed.
func (g *logind) changed(ctx context.Context, l *line, s *dbus.Signal) error {
	var iface string
	var now map[string]dbus.Variant
	var stale []string
	if !slices.Contains(g.sessions, s.Path) || dbus.Store(s.Body, &iface, &now, &stale) != nil || iface != login1Session {
		return nil
	}
	g.judge(now)
	if slices.Contains(stale, "LockedHint") || slices.Contains(stale, "Active") { // changed, but the value does not come along
		_, err := g.look(ctx, l, s.Path, true)
		return err
	}
	return nil
}

// judge locks where a session's properties say that nobody is in front of it.
func (g *logind) judge(p map[string]dbus.Variant) {
	if locked, ok := p["LockedHint"].Value().(bool); ok && locked {
		g.config.Lock(Locked)
	}
	if active, ok := p["Active"].Value().(bool); ok && !active {
		g.config.Lock(Switched)
	}
}

func (g *logind) gone() {
	g.release()
	g.sessions = nil
	g.update(func(s *state) { s.logind, s.sessions, s.delay = false, nil, nil })
}

// fatal tells an answer that did not come from one that was an error.
func fatal(l *line, err error) bool {
	var refused dbus.Error
	return err != nil && (l.conn.Context().Err() != nil || !errors.As(err, &refused))
}

// ids are the ids of sessions, as loginctl shows them, save for the escapes of
// object paths.
func ids(sessions []dbus.ObjectPath) []string {
	var list []string
	for _, s := range sessions {
		list = append(list, path.Base(string(s)))
	}
	return list
}
