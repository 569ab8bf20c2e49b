package peer

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Finder looks up the owners of connections. It is safe for concurrent use.
type Finder struct {
	uid       uint32
	processes processes
}

// NewFinder makes a Finder that accepts connections of the calling process's
// own user only.
func NewFinder() *Finder { return &Finder{uid: uint32(os.Getuid())} }

// Lookup says who is at the far end of the established TCP connection whose
// near end is local and whose far end is remote, both on this machine. It
// returns an error that wraps ErrRefused unless the kernel knows the far end's
// socket, the connection is established and the socket is the own user's.
//
// A peer that has closed its socket shows as uid 0 without an inode, so both
// are looked at before the user is.
func (f *Finder) Lookup(local, remote netip.AddrPort) (Peer, error) {
	s, err := querySocket(unmap(remote), unmap(local))
	if err == nil {
		err = s.ownedBy(f.uid)
	}
	if err != nil {
		return Peer{}, err
	}
	return Peer{
		UID:     s.uid,
		Inode:   s.inode,
		program: sync.OnceValue(func() Program { return f.processes.find(f.uid, s.inode) }),
	}, nil
}

// unmap gives the form in which the kernel files the address: IPv4 also where
// a socket of either end speaks it through IPv6.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// UnixUID says which user connected to a Unix socket (SO_PEERCRED: the user at
// the time of connect).
func UnixUID(c net.Conn) (uint32, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("cannot ask for the peer of a %T: not a socket", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the peer of a Unix socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the peer of a Unix socket: %w", err)
	}
	if cred.Pid == 0 {
		// Not a Unix socket, or one whose peer has no credentials here.
		return 0, refused("its socket has no peer credentials")
	}
	return cred.Uid, nil
}
