// Package systemd is what systemd and a service of it say to each other: the
// sockets that systemd has opened for the service (sd_listen_fds(3)), what the
// service tells of its state (sd_notify(3)), and lines as the journal takes them
// (sd-daemon(3)). Where systemd did not start the program, all of it does
// nothing. It decides nothing about the sockets and never passes them, or the
// variables that speak of them, on to other programs.
//
//	sockets, err := systemd.Sockets() // before anything else is started
//	notify, err := systemd.NewNotifier()
//	...
//	err = notify.Ready("waiting for cards")
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	firstDescriptor = 3 // SD_LISTEN_FDS_START
	// maxSockets is far more than any unit of ours has.
	maxSockets = 64
)

// Socket is a socket that systemd has opened; it takes connections already.
type Socket struct {
	Name     string       // FileDescriptorName= of the unit, or the unit's name
	Listener net.Listener // *net.TCPListener or *net.UnixListener
}

// Sockets takes over the sockets that were passed to this process, none where
// there are none, and takes the variables that speak of them out of the
// environment. It must be called before any other process is started: only
// then are the descriptors marked to be closed there. Whoever gets the sockets
// closes them; to systemd's own copy, closing them does nothing.
func Sockets() ([]Socket, error) {
	n, names, err := parse(os.Getenv, os.Getpid())
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	if err != nil {
		return nil, fmt.Errorf("take the sockets of systemd: %w", err)
	}
	for i := range n {
		unix.CloseOnExec(firstDescriptor + i)
	}
	var sockets []Socket
	var problems []error
	for i := range n {
		l, err := listener(firstDescriptor+i, names[i])
		if err != nil {
			problems = append(problems, fmt.Errorf("take the socket %q of systemd: %w", names[i], err))
			continue
		}
		sockets = append(sockets, Socket{Name: names[i], Listener: l})
	}
	if len(problems) > 0 {
		for _, s := range sockets {
			s.Listener.Close()
		}
		return nil, errors.Join(problems...)
	}
	return sockets, nil
}

// listener makes a listener of a descriptor. It leaves alone what is no socket,
// as that is not from systemd.
func listener(fd int, name string) (net.Listener, error) {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("it is no socket: %w", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM || listens == 0 {
		return nil, errors.Join(errors.New("it does not take connections: the unit must say ListenStream= and Accept=no"), err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return net.FileListener(f) // a copy
}

// parse reads the variables: how many sockets there are and their names. Where
// LISTEN_PID is another process, such as a shell that has started this one, the
// sockets are not ours.
func parse(getenv func(string) string, pid int) (n int, names []string, err error) {
	owner, number := getenv("LISTEN_PID"), getenv("LISTEN_FDS")
	if owner == "" || number == "" {
		return 0, nil, nil
	}
	process, err := strconv.ParseUint(owner, 10, 31)
	if err != nil {
		return 0, nil, fmt.Errorf("LISTEN_PID %q is no process", owner)
	}
	if int(process) != pid {
		return 0, nil, nil
	}
	many, err := strconv.ParseUint(number, 10, 31)
	if err != nil || many > maxSockets {
		return 0, nil, fmt.Errorf("LISTEN_FDS %q is no number from 0 to %d", number, maxSockets)
	}
	n = int(many)
	names = make([]string, n)
	if given := getenv("LISTEN_FDNAMES"); given != "" && n > 0 {
		if names = strings.Split(given, ":"); len(names) != n {
			return 0, nil, fmt.Errorf("LISTEN_FDNAMES %q are not %d names", given, n)
		}
	}
	return n, names, nil
}
