package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/agent/systemd"
)

// listen opens the sockets, or takes those that systemd has opened. The control
// socket comes first: it tells best that another agent runs.
func (a *Agent) listen() (err error) {
	passed := passed(a.options.Sockets)
	for _, s := range passed {
		a.onClose(func() { s.Listener.Close() })
	}
	cfg := a.options.Config
	if a.socket, err = cfg.Socket(); err != nil {
		return err
	}
	var release func()
	if a.controlListener, release, err = listenControl(a.socket, &passed, a.log); err != nil {
		return err
	}
	a.onClose(release) // last of all: until then no other agent touches our files
	a.onClose(func() { a.controlListener.Close() })
	listen := func(address string) (net.Listener, error) {
		l := passed.tcp(address)
		if l == nil {
			if l, err = net.Listen("tcp", address); err != nil {
				return nil, fmt.Errorf("cannot listen on %s: %w", address, errors.Unwrap(err))
			}
		}
		a.onClose(func() { l.Close() })
		return l, nil
	}
	if a.proxyListener, err = listen(cfg.Proxy.Listen); err != nil {
		return fmt.Errorf("the proxy %w; if another program has the port, set [proxy] listen in %s", err, cfg.File)
	}
	for _, fixed := range cfg.Listeners {
		l, err := listen(fixed.Listen)
		if err != nil {
			return fmt.Errorf("the [[listener]] for %s %w; set another address in %s", fixed, err, cfg.File)
		}
		a.fixedListeners = append(a.fixedListeners, l)
	}
	return passed.rest(cfg.File)
}

// passed are the sockets from systemd that nothing uses yet.
type passed []systemd.Socket

// take returns the first socket that matches, nil where none does.
func (p *passed) take(matches func(net.Addr) bool) net.Listener {
	i := slices.IndexFunc(*p, func(s systemd.Socket) bool { return matches(s.Listener.Addr()) })
	if i < 0 {
		return nil
	}
	l := (*p)[i].Listener
	*p = slices.Delete(slices.Clone(*p), i, i+1)
	return l
}

func (p *passed) unix(path string) net.Listener {
	return p.take(func(a net.Addr) bool {
		return a.Network() == "unix" && filepath.Clean(a.String()) == filepath.Clean(path)
	})
}

// tcp finds the socket for an address of the configuration, where port 0 is any.
func (p *passed) tcp(address string) net.Listener {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil // a listener of our own will say what is wrong
	}
	return p.take(func(a net.Addr) bool {
		tcp, ok := a.(*net.TCPAddr)
		return ok && tcp.AddrPort().Addr().Unmap() == want.Addr().Unmap() && (want.Port() == 0 || int(want.Port()) == tcp.Port)
	})
}

// rest refuses sockets that the configuration does not name: programs would
// wait there for ever, or be on another machine.
func (p *passed) rest(file string) error {
	var problems []error
	for _, s := range *p {
		at := s.Listener.Addr()
		if tcp, ok := at.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
			problems = append(problems, fmt.Errorf("systemd listens on %s for the agent, which programs on other machines could reach; only loopback addresses are allowed: correct ListenStream= in the unit kortti.socket", at))
			continue
		}
		problems = append(problems, fmt.Errorf("systemd listens on %s for the agent, but %s does not say so; write the units anew with: kortti service install", at, file))
	}
	return errors.Join(problems...)
}

// listenControl opens the control socket, mode 0600, for the agent's own user,
// or takes the one that systemd has opened.
// The lock file beside it, and not the socket, tells whether an agent lives: a
// lock ends with its process, so that a dead agent's socket is replaced and two
// that start at once do not take each other's away. release lets the next agent
// start; the lock file stays, as to remove it would open the race that it closes.
func listenControl(path string, passed *passed, log *slog.Logger) (ln net.Listener, release func(), err error) {
	if err := prepareDir(filepath.Dir(path)); err != nil {
		return nil, nil, fmt.Errorf("the control socket's directory: %w", err)
	}
	lock, err := takeLock(path+".lock", func(who string) error {
		return fmt.Errorf("an agent is already running%s on %s; see it with: kortti status. To start another, stop it first (where systemd started it: systemctl --user stop kortti.socket kortti.service), or set another [control] socket", who, path)
	})
	if err != nil {
		return nil, nil, err
	}
	inner := passed.unix(path)
	if inner != nil {
		err = checkMode(path)
	} else {
		inner, err = bind(path)
	}
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("the control socket: %w", err)
	}
	return &ownListener{Listener: inner, uid: uint32(os.Getuid()), log: log}, func() { lock.Close() }, nil
}

// prepareDir makes the directory, 0700, or checks that nobody else can put a
// socket of his own in the place of ours.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to another user; set [control] socket to a place of your own", dir)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others; set [control] socket to a place of your own, or: chmod go-w %s", dir, dir)
	}
	return nil
}

// takeLock locks the file for the life of the process and writes the process's
// number into it. Where another process has it, the error is taken's, which is
// told which process that is, in brackets, "" where that is not known.
func takeLock(path string, taken func(who string) error) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		pid, _ := os.ReadFile(path) // who it is helps, but is not needed
		who := ""
		if pid := strings.TrimSpace(string(pid)); pid != "" {
			who = " (process " + pid + ")"
		}
		return nil, taken(who)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Appendf(nil, "%d\n", os.Getpid()))); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeAt(f *os.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	return err
}

// checkMode refuses a socket of systemd's that others may open.
func checkMode(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("systemd has made %s for others too; the unit kortti.socket must say SocketMode=0600", path)
	}
	return nil
}

// bind replaces a dead agent's socket; the caller holds the lock. A socket that
// somebody listens on is systemd's: it was opened for an agent that systemd would
// start, and is not to be connected to, as that would start it.
func bind(path string) (net.Listener, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there already and is no socket; remove it or set another [control] socket", path)
	case listens(path):
		return nil, fmt.Errorf("another program listens on %s: systemd, most likely, which starts the agent by itself when it is needed; see it with: kortti status. To start it by hand, first: systemctl --user stop kortti.socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// ownListener accepts connections of one user only: a socket's mode can be
// changed and its file descriptor passed on, what the kernel says of the peer
// cannot.
type ownListener struct {
	net.Listener
	uid uint32
	log *slog.Logger
}

// Accept closes other users' connections and returns the next of the own user's.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peer.UnixUID(conn)
		if err == nil && uid == l.uid {
			return conn, nil
		}
		l.log.Warn("refused a connection to the control socket", "uid", uid, "error", err)
		conn.Close()
	}
}
