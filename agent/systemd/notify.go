package systemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Notifier tells systemd of the service's state. A nil Notifier tells nobody.
// It is safe for concurrent use.
type Notifier struct{ to *net.UnixAddr }

// NewNotifier takes $NOTIFY_SOCKET out of the environment; nil where it was not
// there.
func NewNotifier() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		os.Unsetenv(name)
	}
	switch {
	case path == "":
		return nil, nil
	case !filepath.IsAbs(path) && !strings.HasPrefix(path, "@"): // @ is of Linux's abstract sockets
		return nil, fmt.Errorf("NOTIFY_SOCKET %q is no socket that can be used", path)
	}
	return &Notifier{&net.UnixAddr{Name: path, Net: "unixgram"}}, nil
}

// Ready tells that the service has started, or has ended a Reloading. status is
// for people: systemctl status shows it.
func (n *Notifier) Ready(status string) error { return n.tell("READY=1", "STATUS="+line(status)) }

// Reloading tells that the configuration is being read again; Ready must follow.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("tell systemd: read the clock: %w", err)
	}
	return n.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)) // for Type=notify-reload
}

// Stopping tells that the service is ending.
func (n *Notifier) Stopping() error { return n.tell("STOPPING=1") }

func (n *Notifier) tell(assignments ...string) error {
	if n == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.to)
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// line keeps text from being more than one assignment.
func line(text string) string { return strings.ReplaceAll(text, "\n", " ") }
