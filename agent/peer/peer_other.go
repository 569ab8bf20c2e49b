//go:build !linux

package peer

import (
	"net"
	"net/netip"
)

// Finder looks up peers; this operating system offers it nothing to look in.
type Finder struct{}

// NewFinder makes a Finder.
func NewFinder() *Finder { return &Finder{} }

// Lookup always returns ErrUnsupported.
func (*Finder) Lookup(local, remote netip.AddrPort) (Peer, error) {
	return Peer{}, ErrUnsupported
}

// Listener never finds a program.
func Listener(netip.AddrPort) Program { return Program{} }

// UnixUID always returns ErrUnsupported.
func UnixUID(net.Conn) (uint32, error) { return 0, ErrUnsupported }
