//go:build linux

package desktop

import (
	"sync/atomic"

	"github.com/godbus/dbus/v5"
)

// Saver is a desktop's screen saver.
type Saver struct {
	bus    *Bus
	conn   *dbus.Conn
	name   string
	path   dbus.ObjectPath
	active atomic.Bool
}

// NewSaver puts a screen saver on the bus, under a name such as
// org.gnome.ScreenSaver.
func (b *Bus) NewSaver(name string, path dbus.ObjectPath, active bool) *Saver {
	b.t.Helper()
	s := &Saver{bus: b, conn: b.Connect(), name: name, path: path}
	s.active.Store(active)
	methods := map[string]any{"GetActive": func() (bool, *dbus.Error) { return s.active.Load(), nil }}
	if err := s.conn.ExportMethodTable(methods, path, name); err != nil {
		b.t.Fatal(err)
	}
	take(b.t, s.conn, name)
	return s
}

// SetActive locks the screen, or unlocks it.
func (s *Saver) SetActive(active bool) {
	s.bus.t.Helper()
	s.active.Store(active)
	if err := s.conn.Emit(s.path, s.name+".ActiveChanged", active); err != nil {
		s.bus.t.Fatal(err)
	}
}

// End is the screen saver's end.
func (s *Saver) End() { s.conn.Close() }
