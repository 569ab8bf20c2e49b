package virtualcard

import (
	"net"
	"syscall"
)

// acknowledgeAtOnce asks for the next segment to be acknowledged without
// delay; the kernel forgets it after a while. It is only about speed, so its
// failure is none.
func acknowledgeAtOnce(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}
