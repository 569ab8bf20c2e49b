package demo

import "syscall"

// dieWithParent makes the kernel end a program when the demo is killed, and
// keeps the terminal's Ctrl-C from it: the demo ends its programs in order.
// The signal follows the thread that started the program, so Run keeps its own.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
