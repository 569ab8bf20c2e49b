//go:build unix

package truststore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// withoutTerminal takes the terminal away from a program, and its group of
// processes with it when it is killed.
func withoutTerminal(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// writable says whether the user may change the files of a folder; those that
// are not there do not count.
func writable(folder string, files ...string) error {
	paths := []string{folder}
	for _, f := range files {
		if path := filepath.Join(folder, f); exists(path) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		if err := unix.Access(path, unix.W_OK); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrReadOnly, path, err)
		}
	}
	return nil
}

// lockTime is the pause between two tries to get the lock.
const lockTime = 20 * time.Millisecond

// lock makes all programs that change stores below a home folder, and honour
// this, wait for each other. The lock is on the folder itself, so that nothing
// is left behind. Where the file system has no locks there is none.
func lock(ctx context.Context, home string) (release func(), err error) {
	f, err := os.Open(home)
	if err != nil {
		return nil, fmt.Errorf("open the home folder: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP):
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock the home folder: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another change of the trust stores is still going on: %w", context.Cause(ctx))
		case <-time.After(lockTime):
		}
	}
}
