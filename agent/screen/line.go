//go:build !windows && !darwin

package screen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// callTime bounds every call and the greeting of a bus: a service that hangs
// must not hold up the signals of others for long.
const callTime = 5 * time.Second

const busName = "org.freedesktop.DBus"

var (
	errLost  = errors.New("the connection was lost")
	errOwner = errors.New("nobody owns the name")
)

// guard knows what to watch on one bus. Its methods are called from one
// goroutine; an error gives the connection up.
type guard interface {
	// names are the bus names whose owners are listened to.
	names() []string
	// rules are the matches for signals, without the sender.
	rules() [][]dbus.MatchOption
	// owned is called for each name once the bus is watched, and when the name
	// changes hands.
	owned(ctx context.Context, l *line, name string) error
	// heard is called for each signal of an owner.
	heard(ctx context.Context, l *line, s *dbus.Signal) error
	// gone is called when the connection has ended.
	gone()
}

// line is a connection to a bus that passes on the signals of names' owners
// alone: a match rule does not keep off what somebody sends straight to us.
type line struct {
	conn  *dbus.Conn
	ready chan struct{} // has an element while news waits

	mu     sync.Mutex // guards all below
	owners map[string]string
	seen   map[string]bool // names whose change of hands was heard
	news   []news
}

// news is a signal, or that a name has changed hands.
type news struct {
	name   string
	signal *dbus.Signal
}

// join connects to a bus. It accepts no file descriptors on the connection:
// anybody may send messages with some, and the library keeps them open.
func join(ctx context.Context, address string, names []string) (*line, error) {
	l := &line{ready: make(chan struct{}, 1), owners: make(map[string]string), seen: make(map[string]bool)}
	for _, name := range names {
		l.owners[name] = ""
	}
	raw, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	conn, err := dbus.NewConn(raw, dbus.WithContext(ctx), dbus.WithSignalHandler(l))
	if err != nil {
		raw.Close()
		return nil, err
	}
	l.conn = conn
	return l, greet(conn)
}

// askForFile makes one call that answers with a file, on a connection of its own.
func askForFile(ctx context.Context, address, to string, path dbus.ObjectPath, method string, args ...any) (*os.File, error) {
	raw, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	var answer fileAnswer
	// The end of ctx must not close the connection once it is greeted: see hangUp.
	conn, err := dbus.DialUnix(raw, dbus.WithContext(context.WithoutCancel(ctx)), dbus.WithIncomingInterceptor(answer.keep))
	if err != nil {
		raw.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = greet(conn)
	stop()
	if err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err = conn.Object(to, path).CallWithContext(limit, method, dbus.FlagNoAutoStart, args...).Err
	hangUp(conn, raw)
	return answer.end(err)
}

// hangUp closes a connection on which a file may be on its way. The library
// loses the file of a message that it is reading when the connection is closed;
// so nothing more is let in, and it reads what has come before it closes.
func hangUp(conn *dbus.Conn, raw *net.UnixConn) {
	if raw.CloseRead() == nil {
		<-conn.Context().Done()
	}
	conn.Close()
}

// fileAnswer waits for the file of one answer and closes every other that comes,
// also the one of an answer that nobody waits for any more.
type fileAnswer struct {
	mu    sync.Mutex // guards all below
	file  *os.File
	ended bool
}

func (a *fileAnswer) keep(msg *dbus.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range msg.Body {
		fd, ok := v.(dbus.UnixFD)
		if !ok {
			continue
		}
		file := os.NewFile(uintptr(fd), "file from the bus")
		if a.file == nil && !a.ended && msg.Type == dbus.TypeMethodReply {
			a.file = file
		} else {
			file.Close()
		}
	}
}

// end gives the file, unless the call failed.
func (a *fileAnswer) end(err error) (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if err == nil && a.file == nil {
		err = errors.New("no file came with the answer")
	}
	if err != nil {
		a.file.Close() // nil is harmless
		return nil, err
	}
	return a.file, nil
}

// greet authenticates and says hello, or closes the connection.
func greet(conn *dbus.Conn) error {
	limit := time.AfterFunc(callTime, func() { conn.Close() })
	defer limit.Stop()
	err := conn.Auth(nil)
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		return fmt.Errorf("greet the bus: %w", err)
	}
	return nil
}

// dial opens the first of an address's Unix sockets that answers.
func dial(ctx context.Context, address string) (*net.UnixConn, error) {
	err := errors.New("the bus has no address")
	for one := range strings.SplitSeq(address, ";") {
		path := socketPath(one)
		if path == "" {
			err = fmt.Errorf("%q is no Unix socket", one)
			continue
		}
		var d net.Dialer
		var conn net.Conn
		if conn, err = d.DialContext(ctx, "unix", path); err == nil {
			return conn.(*net.UnixConn), nil
		}
	}
	return nil, err
}

// socketPath is the socket of one bus address, "" where it has none.
func socketPath(address string) string {
	keys, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return ""
	}
	for pair := range strings.SplitSeq(keys, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := dbus.UnescapeBusAddressValue(value)
		switch {
		case err != nil || value == "":
		case key == "path":
			return value
		case key == "abstract":
			return "@" + value
		}
	}
	return ""
}

func escape(path string) string { return dbus.EscapeBusAddressValue(path) }

// listen asks for the signals and then for the owners, whose names become the
// first news.
func (l *line) listen(ctx context.Context, rules [][]dbus.MatchOption) error {
	for name := range l.owners {
		changes := []dbus.MatchOption{dbus.WithMatchInterface(busName), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)}
		if err := l.match(ctx, busName, changes); err != nil {
			return err
		}
		for _, rule := range rules {
			if err := l.match(ctx, name, rule); err != nil {
				return err
			}
		}
		var owner string
		err := l.ask(ctx, busName, "/org/freedesktop/DBus", busName+".GetNameOwner", name).Store(&owner)
		var refused dbus.Error
		if err != nil && !errors.As(err, &refused) { // refused: nobody owns it
			return fmt.Errorf("ask for the owner of %s: %w", name, err)
		}
		l.mu.Lock()
		if !l.seen[name] { // else the signal is as new or newer
			l.owners[name] = owner
		}
		l.mu.Unlock()
		l.tell(news{name: name})
	}
	return nil
}

func (l *line) match(ctx context.Context, sender string, rule []dbus.MatchOption) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := l.conn.AddMatchSignalContext(ctx, append([]dbus.MatchOption{dbus.WithMatchSender(sender)}, rule...)...); err != nil {
		return fmt.Errorf("ask for the signals of %s: %w", sender, err)
	}
	return nil
}

// call calls a method of a name's owner, which it never starts.
func (l *line) call(ctx context.Context, name string, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	owner := l.owner(name)
	if owner == "" {
		return &dbus.Call{Err: dbus.Error{Name: busName + ".Error.NameHasNoOwner", Body: []any{errOwner.Error()}}}
	}
	return l.ask(ctx, owner, path, method, args...)
}

func (l *line) ask(ctx context.Context, to string, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return l.conn.Object(to, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
}

func (l *line) owner(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owners[name]
}

// DeliverSignal is called for all that comes, in the bus's order, and must not
// wait: dbus.SignalHandler.
func (l *line) DeliverSignal(_, member string, s *dbus.Signal) {
	if s.Sender == busName { // the bus itself: nobody else can have this name
		var name, from, to string
		if member == "NameOwnerChanged" && dbus.Store(s.Body, &name, &from, &to) == nil {
			l.change(name, to)
		}
		return
	}
	l.mu.Lock()
	known := false
	for _, owner := range l.owners {
		known = known || owner == s.Sender
	}
	l.mu.Unlock()
	if known {
		l.tell(news{signal: s})
	}
}

func (l *line) change(name, owner string) {
	l.mu.Lock()
	_, watched := l.owners[name]
	if watched {
		l.owners[name], l.seen[name] = owner, true
	}
	l.mu.Unlock()
	if watched {
		l.tell(news{name: name})
	}
}

func (l *line) tell(n news) {
	l.mu.Lock()
	l.news = append(l.news, n)
	l.mu.Unlock()
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *line) take() []news {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.news
	l.news = nil
	return waiting
}
