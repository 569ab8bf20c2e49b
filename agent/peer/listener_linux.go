package peer

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

const tcpListen = "0A" // TCP_LISTEN, net/tcp_states.h

// Listener finds the program that takes TCP connections at an address of this
// machine, as far as it is a program of a user whose processes can be read. It
// informs, like every Program.
func Listener(at netip.AddrPort) Program {
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		uid, inode, ok := findListener(f, at)
		f.Close()
		if ok {
			return new(processes).find(uid, inode)
		}
	}
	return Program{}
}

// findListener looks through a table as proc_net_tcp(5) describes it for a
// socket that listens at an address, or at its port on all addresses.
func findListener(table io.Reader, at netip.AddrPort) (uid, inode uint32, ok bool) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != tcpListen {
			continue
		}
		local, err := parseHexAddress(fields[1])
		if err != nil || local.Port() != at.Port() || local.Addr() != at.Addr().Unmap() && !local.Addr().IsUnspecified() {
			continue
		}
		owner, err := strconv.ParseUint(fields[7], 10, 32)
		number, err2 := strconv.ParseUint(fields[9], 10, 32)
		if err == nil && err2 == nil {
			return uint32(owner), uint32(number), true
		}
	}
	return 0, 0, false
}

// parseHexAddress reads ADDRESS:PORT in hexadecimal; the address is in words of
// four bytes, each in the order of the processor (little-endian on all that Go
// has Linux desktops for).
func parseHexAddress(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !ok {
		return netip.AddrPort{}, strconv.ErrSyntax
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}
