// Package rootfs runs daemons for tests in a Debian root file system of their
// own, so that none is ever installed on the machine: there apt would start
// and enable it. The file system is built once by tests/setup/rootfs.sh and
// kept in the user's cache.
//
// It is for tests only and needs Linux with mmdebstrap and unshare.
package rootfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Shared is the folder inside the root file system where the test's own
// folder (see Command) is mounted.
const Shared = "/mnt"

var build = sync.OnceValues(func() (string, error) {
	_, self, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(self), "..", "setup", "rootfs.sh")
	cmd := exec.Command("sh", script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build the tests' root file system with %s: %w", script, err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Command prepares name with args to run chrooted in the root file system, in
// mount and process namespaces of its own: what it started dies with it. The
// host's folder dir is seen there as Shared. The network is the caller's.
//
// The command is killed when ctx ends; the caller starts it and waits for it.
func Command(ctx context.Context, t testing.TB, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	root, err := build()
	if err != nil {
		t.Fatal(err)
	}
	const enter = `set -e
root=$1 dir=$2; shift 2
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$dir" "$root` + Shared + `"
exec chroot "$root" "$@"`
	unshare := []string{"--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"}
	if os.Getuid() != 0 {
		unshare = append(unshare, "--map-root-user", "--map-auto")
	}
	full := append(unshare, "sh", "-c", enter, "sh", root, dir, name)
	cmd := exec.CommandContext(ctx, "unshare", append(full, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	return cmd
}
