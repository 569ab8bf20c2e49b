package peer

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// States of a TCP connection (net/tcp_states.h) whose far end sends no more.
const (
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// Ended tells whether the far end of a TCP connection has closed it, without
// reading from it; what it sent before may still be there to be read.
func Ended(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var state uint8
	var infoErr error
	err = raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); infoErr == nil {
			state = info.State
		}
	})
	if err != nil {
		return true // closed on our side
	}
	return infoErr == nil && (state == tcpClose || state == tcpCloseWait || state == tcpLastAck || state == tcpClosing)
}
