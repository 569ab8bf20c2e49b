package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kortti-id/kortti/agent/peer"
)

// listenControl opens the control socket, mode 0600, for the agent's own user.
// The lock file beside it, and not the socket, tells whether an agent lives: a
// lock ends with its process, so that a dead agent's socket is replaced and two
// that start at once do not take each other's away. release lets the next agent
// start; the lock file stays, as to remove it would open the race that it closes.
func listenControl(path string, log *slog.Logger) (ln net.Listener, release func(), err error) {
	if err := prepareDir(filepath.Dir(path)); err != nil {
		return nil, nil, fmt.Errorf("the control socket's directory: %w", err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, nil, err
	}
	inner, err := bind(path)
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
// number into it.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the control socket's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		pid, _ := os.ReadFile(path) // who it is helps, but is not needed
		return nil, fmt.Errorf("an agent is already running (process %s) on %s; stop it first, or set another [control] socket", strings.TrimSpace(string(pid)), strings.TrimSuffix(path, ".lock"))
	}
	err = errors.Join(f.Truncate(0), writeAt(f, fmt.Appendf(nil, "%d\n", os.Getpid())))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("the control socket's lock: %w", err)
	}
	return f, nil
}

func writeAt(f *os.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	return err
}

// bind replaces a dead agent's socket; the caller holds the lock.
func bind(path string) (net.Listener, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there already and is no socket; remove it or set another [control] socket", path)
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
