package child

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// privateFile returns the path of a file with text, and what removes it. It lies
// in memory, so that a child that is killed leaves nothing behind.
func privateFile(text []byte) (path string, remove func(), err error) {
	fd, err := unix.MemfdCreate("kortti-opensc.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return "", nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "kortti-opensc.conf")
	if _, err := f.Write(text); err != nil {
		f.Close()
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { _ = f.Close() }, nil
}
