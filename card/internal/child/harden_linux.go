package child

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// harden keeps the PIN out of core dumps and other processes of the same user
// out of this one's memory.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process non-dumpable: %w", err)
	}
	return limitMemory()
}

// maxMemory is how much memory a module may take, in bytes. No card needs a
// hundredth of it.
const maxMemory = 1 << 30

// limitMemory lets a module that goes on allocating end its process before it
// ends the machine. The limit is one on writable memory, beyond what this
// process has: Go reserves far more addresses than it uses.
func limitMemory() error {
	var statm [7]uint64 // proc(5): the sixth is data and stack, in pages
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(text), &statm[0], &statm[1], &statm[2], &statm[3], &statm[4], &statm[5], &statm[6])
	}
	if err != nil {
		return fmt.Errorf("find the memory in use: %w", err)
	}
	limit := statm[5]*uint64(os.Getpagesize()) + maxMemory
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("limit the memory: %w", err)
	}
	return nil
}
