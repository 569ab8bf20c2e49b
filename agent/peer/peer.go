// Package peer says who is at the other end of a local connection: the user
// from the kernel's tables, and the program as far as it can be proved.
//
// The user is the access check of the proxy and of the control socket: anything
// but an established connection of a known user is refused. The program is for
// showing and for consent only. It never guards against malware of the same
// user, and it is looked for only when somebody asks, because that reads the
// descriptors of the user's processes.
//
// Only Linux can answer; elsewhere every question ends in ErrUnsupported.
package peer

import (
	"errors"
	"fmt"
)

// ErrRefused says that the connection's owner is not the agent's own user, or
// that nothing proves that it is.
var ErrRefused = errors.New("the connection is not one of this user's programs")

// ErrUnsupported says that this operating system cannot tell who is at the
// other end of a connection.
var ErrUnsupported = errors.New("finding the owner of a local connection works on Linux only")

// Unknown is what a Program that cannot be proved is called.
const Unknown = "unknown program"

// Peer is the owner of the far end of a loopback TCP connection.
// It is valid for as long as the near end stays open: until then the kernel
// gives the address pair to nobody else. Copies share one lookup of the program
// and are safe for concurrent use.
type Peer struct {
	// UID is the user that made the socket.
	UID uint32
	// Inode is the socket's number in the kernel's socket file system.
	Inode uint32

	program func() Program
}

// Program finds the process that holds the socket. The first call may take some
// milliseconds (2.5 µs for each descriptor of the user's processes); the answer
// is then kept.
func (p Peer) Program() Program {
	if p.program == nil {
		return Program{}
	}
	return p.program()
}

// Program is a process and the file that it runs. A name can be had by any
// program of the user that wants it badly enough (ptrace, an inherited socket,
// an interpreter), so it informs and never authorises.
type Program struct {
	// PID is 0 where no process of the user was found to hold the socket.
	PID int
	// Started is when the process began, in clock ticks since the machine did:
	// numbers of processes are used again.
	Started uint64
	// Path is the executable, or "" where /proc/PID/exe is not the file that
	// its path leads to (other mount namespace, deleted file) or cannot be read.
	Path string
	// Sandbox is what the program runs in.
	Sandbox Sandbox
}

// String is the path, or Unknown.
func (p Program) String() string {
	if p.Path == "" {
		return Unknown
	}
	return p.Path
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}
