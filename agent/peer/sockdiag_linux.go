package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// sock_diag(7): the kernel is asked for one socket by its exact address pair.
// That takes some 4 µs however many sockets there are; /proc/net/tcp takes
// milliseconds on a busy machine.
const (
	tcpEstablished = 1 // TCP_ESTABLISHED, net/tcp_states.h
	tcpFinWait1    = 4
	tcpFinWait2    = 5

	diagHeaderLen  = 16 // struct nlmsghdr
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagAnswerLen  = 72 // struct inet_diag_msg
)

// socket is what the kernel says of a TCP socket.
type socket struct {
	state      byte
	uid, inode uint32
}

// ownedBy refuses all but a connection of the user that is established or on
// which the program has said all that it wants to (shutdown(2)). A socket that its
// program has closed shows as uid 0 without an inode, so the user alone says
// nothing.
func (s socket) ownedBy(uid uint32) error {
	switch {
	case s.state != tcpEstablished && s.state != tcpFinWait1 && s.state != tcpFinWait2:
		return refused("it is not established (state %d)", s.state)
	case s.inode == 0:
		return refused("its socket has no owner any more")
	case s.uid != uid:
		return refused("it belongs to uid %d", s.uid)
	}
	return nil
}

// querySocket asks for the socket that is bound to own and connected to far.
func querySocket(own, far netip.AddrPort) (socket, error) {
	if !own.IsValid() || !far.IsValid() || own.Addr().Is4() != far.Addr().Is4() {
		return socket{}, refused("its addresses %v and %v are not a pair", own, far)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return socket{}, fmt.Errorf("cannot ask the kernel for the owner of a connection: netlink socket: %w", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return socket{}, fmt.Errorf("cannot ask the kernel for the owner of a connection: %w", err)
	}
	if err := unix.Sendto(fd, diagRequest(own, far), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return socket{}, fmt.Errorf("cannot ask the kernel for the owner of a connection: %w", err)
	}
	buf := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(fd, buf, 0)
	}
	if err != nil {
		return socket{}, fmt.Errorf("the kernel does not say who owns a connection: %w", err)
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return socket{}, refused("the answer about it is not the kernel's")
	}
	return parseDiagAnswer(buf[:n], own, far)
}

// diagRequest is a struct nlmsghdr with a struct inet_diag_req_v2.
func diagRequest(own, far netip.AddrPort) []byte {
	ne, be := binary.NativeEndian, binary.BigEndian
	b := make([]byte, diagHeaderLen+diagRequestLen)
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)

	r := b[diagHeaderLen:]
	r[0] = unix.AF_INET6
	if own.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	r[1] = unix.IPPROTO_TCP
	ne.PutUint32(r[4:], 1<<tcpEstablished|1<<tcpFinWait1|1<<tcpFinWait2)
	be.PutUint16(r[8:], own.Port())
	be.PutUint16(r[10:], far.Port())
	copy(r[12:28], own.Addr().AsSlice())
	copy(r[28:44], far.Addr().AsSlice())
	ne.PutUint64(r[48:], ^uint64(0)) // INET_DIAG_NOCOOKIE twice
	return b
}

// parseDiagAnswer reads a struct inet_diag_msg and makes sure that it is about
// the connection that was asked for: where there is no such connection the
// kernel may answer with a listening socket instead.
func parseDiagAnswer(b []byte, own, far netip.AddrPort) (socket, error) {
	ne := binary.NativeEndian
	if len(b) < diagHeaderLen || int64(ne.Uint32(b)) > int64(len(b)) || ne.Uint32(b) < diagHeaderLen {
		return socket{}, refused("the kernel's answer about it is cut short")
	}
	kind, body := ne.Uint16(b[4:]), b[diagHeaderLen:ne.Uint32(b)]
	if kind == unix.NLMSG_ERROR && len(body) >= 4 {
		errno := unix.Errno(-int32(ne.Uint32(body)))
		if errno == unix.ENOENT {
			return socket{}, refused("the kernel knows no such connection")
		}
		return socket{}, fmt.Errorf("the kernel does not say who owns a connection: sock_diag: %w", errno)
	}
	if kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < diagAnswerLen {
		return socket{}, refused("the kernel's answer about it is of another kind (%d)", kind)
	}
	family, id := body[0], body[4:52]
	if diagAddr(family, id[4:20], id[0:2]) != own || diagAddr(family, id[20:36], id[2:4]) != far {
		return socket{}, refused("the kernel knows no such connection")
	}
	return socket{state: body[1], uid: ne.Uint32(body[64:]), inode: ne.Uint32(body[68:])}, nil
}

func diagAddr(family byte, addr, port []byte) netip.AddrPort {
	a := netip.AddrFrom16([16]byte(addr)).Unmap()
	if family == unix.AF_INET {
		a = netip.AddrFrom4([4]byte(addr[:4]))
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}
