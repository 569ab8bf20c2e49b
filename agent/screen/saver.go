//go:build !windows && !darwin

package screen

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"
)

// saver is a screen saver's bus name, which is its interface's name too, and
// where its object may be.
type saver struct {
	name  string
	paths []dbus.ObjectPath
}

// savers watch the session bus for the desktops' screen savers. All of them
// have the method GetActive and the signal ActiveChanged(active bool); with some
// a screen that is merely blank is active too.
type savers struct{ *Watcher }

var allSavers = []saver{
	{"org.freedesktop.ScreenSaver", []dbus.ObjectPath{"/org/freedesktop/ScreenSaver", "/ScreenSaver"}}, // KDE, LXQt, light-locker
	{"org.gnome.ScreenSaver", []dbus.ObjectPath{"/org/gnome/ScreenSaver"}},
	{"org.cinnamon.ScreenSaver", []dbus.ObjectPath{"/org/cinnamon/ScreenSaver"}},
	{"org.mate.ScreenSaver", []dbus.ObjectPath{"/org/mate/ScreenSaver"}},
	{"org.xfce.ScreenSaver", []dbus.ObjectPath{"/org/xfce/ScreenSaver"}},
}

func (*savers) names() []string {
	var names []string
	for _, s := range allSavers {
		names = append(names, s.name)
	}
	return names
}

func (*savers) rules() [][]dbus.MatchOption {
	return [][]dbus.MatchOption{{dbus.WithMatchMember("ActiveChanged")}}
}

// owned locks if the screen saver that has come, or was there before us, is
// active already.
func (s *savers) owned(ctx context.Context, l *line, name string) error {
	owned := l.owner(name) != ""
	if owned {
		active, err := s.active(ctx, l, name)
		if err != nil {
			return err
		}
		if active {
			s.config.Lock(Locked)
		}
	}
	s.update(func(st *state) {
		st.savers = slices.DeleteFunc(slices.Clone(st.savers), func(n string) bool { return n == name })
		if owned {
			st.savers = append(st.savers, name)
			slices.Sort(st.savers)
		}
	})
	return nil
}

func (s *savers) active(ctx context.Context, l *line, name string) (active bool, err error) {
	i := slices.IndexFunc(allSavers, func(s saver) bool { return s.name == name })
	for _, path := range allSavers[i].paths {
		err = l.call(ctx, name, path, name+".GetActive").Store(&active)
		if err == nil {
			return active, nil
		}
		if l.conn.Context().Err() != nil {
			return false, fmt.Errorf("ask %s whether it is active: %w", name, err)
		}
		s.config.Log.Debug("a screen saver does not say whether it is active", "name", name, "path", string(path), "error", err)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return false, nil // its signals may come all the same
}

func (s *savers) heard(_ context.Context, _ *line, signal *dbus.Signal) error {
	ours := slices.ContainsFunc(allSavers, func(s saver) bool { return signal.Name == s.name+".ActiveChanged" })
	var active bool
	if ours && dbus.Store(signal.Body, &active) == nil && active {
		s.config.Lock(Locked)
	}
	return nil
}

func (s *savers) gone() { s.update(func(st *state) { st.savers = nil }) }
