//go:build !linux

package demo

import "syscall"

// dieWithParent can promise nothing where the kernel has no such signal.
func dieWithParent() *syscall.SysProcAttr { return nil }
