// Package rootfs runs daemons, and whole test binaries, in Debian root file
// systems of the tests' own, so that no daemon is ever installed on the
// machine: there apt would start and enable it. A file system is built once by
// tests/setup/rootfs.sh and kept in the user's cache.
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

// Suite is the Debian release in a root file system.
type Suite string

// The suites that rootfs.sh knows.
const (
	Bookworm Suite = "bookworm" // Debian 12: all daemons, OpenSC 0.23
	Sid      Suite = "sid"      // OpenSC 0.27 or later
)

// Shared is the folder inside the root file system where the test's own
// folder (see Command) is mounted.
const Shared = "/mnt"

// Source is the folder inside the root file system where a program that was
// moved there (see Enter) finds the module's source, read-only.
const Source = "/srv/kortti"

// builds run once for each suite.
var builds sync.Map

// build returns the path of a suite's root file system, which it makes first
// where there is none.
func build(suite Suite) (string, error) {
	once, _ := builds.LoadOrStore(suite, sync.OnceValues(func() (string, error) {
		script := filepath.Join(source(), "tests", "setup", "rootfs.sh")
		cmd := exec.Command("sh", script, string(suite))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("build the tests' root file system with %s: %w", script, err)
		}
		return strings.TrimSpace(string(out)), nil
	}))
	return once.(func() (string, error))()
}

// source is the root of the module.
func source() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "..")
}

// prepare is the beginning of the scripts that unshare runs.
const prepare = `set -e
root=$1; shift
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
`

// Command prepares name with args to run chrooted in Debian 12's root file
// system, in mount and process namespaces of its own: what it started dies with
// it. The host's folder dir is seen there as Shared. The network is the
// caller's.
//
// The command is killed when ctx ends; the caller starts it and waits for it.
func Command(ctx context.Context, t testing.TB, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	root, err := build(Bookworm)
	if err != nil {
		t.Fatal(err)
	}
	const enter = prepare + `mount --bind "$1" "$root` + Shared + `"; shift
exec chroot "$root" "$@"`
	return inNamespaces(ctx, nil, enter, append([]string{root, dir, name}, args...))
}

// Enter prepares the running program to run again, with args, in a suite's root
// file system, in mount, process and network namespaces of its own. It finds
// the module's source in Source and starts in the folder there that corresponds
// to the present one; the host's folder shared is seen as Shared. Test cards'
// library, which cannot be compiled there, is in its user's cache if it is in
// that of the host's (package softhsm). The loopback device is down.
func Enter(ctx context.Context, suite Suite, shared string, args ...string) (*exec.Cmd, error) {
	root, err := build(suite)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	folder, err := filepath.Rel(source(), here)
	if err != nil {
		return nil, err
	}
	const enter = prepare + `mount --bind "$1" "$root` + Shared + `"
mkdir -p "$root` + Source + `"
mount --bind -o ro "$2" "$root` + Source + `"
touch "$root/tmp/program"
mount --bind "$3" "$root/tmp/program"
cache="$root/tmp/home/.cache/kortti"
mkdir -p "$cache"
mount --bind -o ro "${root%/*}" "$cache"
folder=$4; shift 4
exec chroot "$root" sh -c 'cd "$0" && exec /tmp/program "$@"' "` + Source + `/$folder" "$@"`
	all := append([]string{root, shared, source(), self, folder}, args...)
	return inNamespaces(ctx, []string{"--net"}, enter, all), nil
}

// inNamespaces runs a script with args.
func inNamespaces(ctx context.Context, more []string, script string, args []string) *exec.Cmd {
	unshare := append([]string{"--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"}, more...)
	if os.Getuid() != 0 {
		unshare = append(unshare, "--map-root-user", "--map-auto")
	}
	cmd := exec.CommandContext(ctx, "unshare", append(append(unshare, "sh", "-c", script, "sh"), args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	return cmd
}
