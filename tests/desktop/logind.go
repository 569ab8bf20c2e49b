//go:build linux

package desktop

import (
	"io"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	login1     = "org.freedesktop.login1"
	login1Path = dbus.ObjectPath("/org/freedesktop/login1")
	properties = "org.freedesktop.DBus.Properties"
)

// Logind is as much of systemd-logind as a program sees that watches for sleep
// and for the locks of sessions (org.freedesktop.login1(5)).
type Logind struct {
	t    testing.TB
	conn *dbus.Conn

	mu         sync.Mutex // guards all below
	sessions   map[string]*session
	own        string // the session of the processes that ask, "" for none
	display    string // the user's graphical session
	sleeping   bool
	refuse     bool // Inhibit is refused
	inhibitors []*inhibitor
}

type session struct {
	uid            uint32
	locked, active bool
}

// inhibitor is a delay lock: the far end of a pipe whose near end ends with it.
type inhibitor struct {
	what, mode string
	near, far  *os.File
	released   chan struct{}
}

// NewLogind puts a logind without sessions on the bus.
func (b *Bus) NewLogind() *Logind {
	b.t.Helper()
	l := &Logind{t: b.t, conn: b.Connect(), sessions: make(map[string]*session)}
	l.export(login1Path, login1+".Manager", map[string]any{
		"Inhibit":         l.inhibit,
		"GetSessionByPID": func(uint32) (dbus.ObjectPath, *dbus.Error) { return l.find(&l.own) },
		"GetSession":      func(id string) (dbus.ObjectPath, *dbus.Error) { return l.find(&id) },
		"GetUser": func(uid uint32) (dbus.ObjectPath, *dbus.Error) {
			if uid != uint32(os.Getuid()) {
				return "/", dbus.NewError(login1+".NoSuchUser", nil)
			}
			return userPath(), nil
		},
	})
	l.export(login1Path, properties, map[string]any{"Get": func(_, _ string) (dbus.Variant, *dbus.Error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return dbus.MakeVariant(l.sleeping), nil
	}})
	l.export(userPath(), properties, map[string]any{"Get": func(_, _ string) (dbus.Variant, *dbus.Error) {
		path, err := l.find(&l.display)
		if err != nil {
			path = "/"
		}
		return dbus.MakeVariant(struct {
			ID   string
			Path dbus.ObjectPath
		}{l.display, path}), nil
	}})
	b.t.Cleanup(l.End)
	return l
}

// Come takes logind's name: from now on it is found.
func (l *Logind) Come() *Logind {
	l.t.Helper()
	take(l.t, l.conn, login1)
	return l
}

// End is logind's end.
func (l *Logind) End() {
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.inhibitors {
		select {
		case <-i.released:
		case <-time.After(patience):
			l.t.Error("a delay lock outlived logind and its holder")
		}
	}
	l.inhibitors = nil
}

// Refuse makes logind refuse every delay lock.
func (l *Logind) Refuse() *Logind {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = true
	return l
}

func userPath() dbus.ObjectPath {
	return login1Path + "/user/_" + dbus.ObjectPath(strconv.Itoa(os.Getuid()))
}

func sessionPath(id string) dbus.ObjectPath { return login1Path + "/session/" + dbus.ObjectPath(id) }

func (l *Logind) export(path dbus.ObjectPath, iface string, methods map[string]any) {
	l.t.Helper()
	if err := l.conn.ExportMethodTable(methods, path, iface); err != nil {
		l.t.Fatal(err)
	}
}

// AddSession begins a session of the test's user, or of another's. display
// makes it the user's graphical one; own that of the processes that ask.
func (l *Logind) AddSession(id string, uid uint32, own, display bool) {
	l.t.Helper()
	s := &session{uid: uid, active: true}
	l.mu.Lock()
	l.sessions[id] = s
	if own {
		l.own = id
	}
	if display {
		l.display = id
	}
	l.mu.Unlock()
	l.export(sessionPath(id), properties, map[string]any{"GetAll": func(string) (map[string]dbus.Variant, *dbus.Error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return map[string]dbus.Variant{
			"LockedHint": dbus.MakeVariant(s.locked), "Active": dbus.MakeVariant(s.active),
			"User": dbus.MakeVariant(struct {
				UID  uint32
				Path dbus.ObjectPath
			}{s.uid, userPath()}),
		}, nil
	}})
	l.emit(login1Path, login1+".Manager.SessionNew", id, sessionPath(id))
}

// RemoveSession ends a session.
func (l *Logind) RemoveSession(id string) {
	l.t.Helper()
	l.mu.Lock()
	delete(l.sessions, id)
	l.mu.Unlock()
	l.emit(login1Path, login1+".Manager.SessionRemoved", id, sessionPath(id))
}

// Lock asks a session to lock its screen, as loginctl lock-session does.
func (l *Logind) Lock(id string) {
	l.t.Helper()
	l.emit(sessionPath(id), login1+".Session.Lock")
}

// Set changes the properties of a session; quietly, without saying to what.
func (l *Logind) Set(id string, locked, active, quietly bool) {
	l.t.Helper()
	l.mu.Lock()
	s := l.sessions[id]
	changed, stale := map[string]dbus.Variant{}, []string{}
	for name, p := range map[string]struct {
		is  *bool
		now bool
	}{"LockedHint": {&s.locked, locked}, "Active": {&s.active, active}} {
		switch {
		case *p.is == p.now:
			continue
		case quietly:
			stale = append(stale, name)
		default:
			changed[name] = dbus.MakeVariant(p.now)
		}
		*p.is = p.now
	}
	l.mu.Unlock()
	l.emit(sessionPath(id), properties+".PropertiesChanged", login1+".Session", changed, stale)
}

// PrepareForSleep says that the machine goes to sleep, or that it woke up.
func (l *Logind) PrepareForSleep(begins bool) {
	l.t.Helper()
	l.mu.Lock()
	l.sleeping = begins
	l.mu.Unlock()
	l.emit(login1Path, login1+".Manager.PrepareForSleep", begins)
}

// Name is the unique name of logind's connection.
func (l *Logind) Name() string { return l.conn.Names()[0] }

// Asked is how many delay locks were given out so far.
func (l *Logind) Asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inhibitors)
}

// Delays is how many programs sleep has to wait for now.
func (l *Logind) Delays() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, i := range l.inhibitors {
		if i.what == "sleep" && i.mode == "delay" && !i.over() {
			n++
		}
	}
	return n
}

func (l *Logind) inhibit(caller dbus.Sender, what, _, _, mode string) (dbus.UnixFD, *dbus.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse {
		return 0, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"not allowed"})
	}
	near, far, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	i := &inhibitor{what: what, mode: mode, near: near, far: far, released: make(chan struct{})}
	l.inhibitors = append(l.inhibitors, i)
	fd := dbus.UnixFD(far.Fd()) // wait may close it: whoever asked may have gone
	go l.wait(i, string(caller))
	return fd, nil
}

// wait waits for the end of the caller's descriptor. Ours must stay open until
// the answer is on its way: until the caller's connection, which is for this
// call alone, has ended.
func (l *Logind) wait(i *inhibitor, caller string) {
	defer close(i.released)
	for there := true; there; time.Sleep(time.Millisecond) {
		if l.conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, caller).Store(&there) != nil {
			break
		}
	}
	i.far.Close()
	io.Copy(io.Discard, i.near)
	i.near.Close()
}

// over tells whether the caller's descriptor is closed now: released may be
// told a little later.
func (i *inhibitor) over() (over bool) {
	raw, err := i.near.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, pollErr := unix.Poll(p, 0)
			over = pollErr == nil && p[0].Revents&unix.POLLHUP != 0
		})
	}
	return over || err != nil // closed
}

// find gives the path of the session whose id is in id.
func (l *Logind) find(id *string) (dbus.ObjectPath, *dbus.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions[*id] == nil {
		return "/", dbus.NewError(login1+".NoSuchSession", nil)
	}
	return sessionPath(*id), nil
}

func (l *Logind) emit(path dbus.ObjectPath, name string, body ...any) {
	l.t.Helper()
	if err := l.conn.Emit(path, name, body...); err != nil {
		l.t.Fatal(err)
	}
}
