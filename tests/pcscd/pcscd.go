// Package pcscd gives a test binary rooms with a real smart card service: root
// file systems with pcscd, virtual readers and OpenSC, in namespaces of their
// own, so that a machine's own readers and cards are never touched and any
// number of tests can run at once.
//
// [Main] moves a whole test binary into one room after the other; inside,
// [Start] runs pcscd with the two readers at [Address0] and [Address1], into
// which tests/virtualcard puts cards.
//
// It is for tests only and needs Linux.
package pcscd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kortti-id/kortti/tests/programs"
	"github.com/kortti-id/kortti/tests/rootfs"
)

// The two virtual readers: their names in PC/SC, and where their cards connect.
const (
	Reader0  = "Virtual PCD 00 00"
	Reader1  = "Virtual PCD 00 01"
	Address0 = "127.0.0.1:35963"
	Address1 = "127.0.0.1:35964"
)

// Module is OpenSC's PKCS#11 library in every room.
const Module = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"

// room names the room in the environment of a test binary inside.
const room = "KORTTI_TEST_ROOM"

// Room returns the suite of the room that this process is in, or "" outside.
func Room() rootfs.Suite { return rootfs.Suite(os.Getenv(room)) }

// Main runs the tests once in each room and ends the process. It is the end of
// a TestMain; whatever else that does happens outside and inside.
func Main(m *testing.M, suites ...rootfs.Suite) { MainWithPrograms(m, nil, suites...) }

// MainWithPrograms is Main with Kortti's own programs, such as
// "./cmd/kortti", built outside and at hand inside: see [Program].
func MainWithPrograms(m *testing.M, packages []string, suites ...rootfs.Suite) {
	if Room() != "" {
		if err := raiseLoopback(); err != nil {
			fmt.Fprintln(os.Stderr, "raise the loopback device:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	status, err := enter(packages, suites)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(status)
}

// kept is the folder in the shared one for what Keep keeps.
const kept = "kept"

// Keep keeps a file of a test inside, such as a screenshot, under a name of its
// own in the folder that KORTTI_SCREENSHOTS names outside. Without that it keeps
// nothing.
func Keep(t testing.TB, name string, content []byte) {
	t.Helper()
	if os.Getenv("KORTTI_SCREENSHOTS") == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(rootfs.Shared, kept, name), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// takeOut brings what Keep has kept out of the room.
func takeOut(shared string) error {
	dir := os.Getenv("KORTTI_SCREENSHOTS")
	if dir == "" {
		return nil
	}
	files, err := os.ReadDir(filepath.Join(shared, kept))
	if err != nil {
		return err
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(shared, kept, f.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Program is the path of a program that MainWithPrograms built.
func Program(name string) string { return filepath.Join(rootfs.Shared, name) }

// enter runs this test binary in each room and returns the worst exit status.
func enter(packages []string, suites []rootfs.Suite) (status int, err error) {
	shared, err := os.MkdirTemp("", "kortti-room-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(shared)
	if len(packages) > 0 {
		if err := programs.Build(shared, packages...); err != nil {
			return 0, err
		}
	}
	if err := os.Mkdir(filepath.Join(shared, kept), 0o755); err != nil {
		return 0, err
	}
	for _, suite := range suites {
		cmd, err := rootfs.Enter(context.Background(), suite, shared, arguments()...)
		if err != nil {
			return 0, err
		}
		cmd.Env = append(cmd.Env, room+"="+string(suite), "HOME=/tmp/home", "TMPDIR=/tmp")
		cmd.Env = append(cmd.Env, settings()...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		fmt.Println("room:", suite)
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			return 0, err
		}
		status = max(status, cmd.ProcessState.ExitCode())
	}
	return status, takeOut(shared)
}

// settings are the tests' own variables in this process's environment, and the
// race detector's.
func settings() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool {
		return !strings.HasPrefix(s, "KORTTI_") && !strings.HasPrefix(s, "GORACE=")
	})
}

// arguments are this process's, without the file in which the go command wants
// to hear what a test read: it is not there inside, and what a room holds is
// more than that file could tell.
func arguments() (args []string) {
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.testlogfile=") {
			args = append(args, arg)
		}
	}
	return args
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// Folder is where pcscd keeps its socket, with the well-known name.
const folder = "/run/pcscd"

// readers is pcscd's configuration: one entry makes both readers.
const readers = `FRIENDLYNAME "Virtual PCD"
DEVICENAME /dev/null:0x8C7B
LIBPATH /usr/lib/pcsc/drivers/serial/libifdvpcd.so
CHANNELID 0x8C7B
`

// Service is a running pcscd.
type Service struct {
	t      testing.TB
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  bool
}

// Start starts pcscd, which ends with the test, and returns when it can be
// reached and both readers take cards. OpenSC keeps copies of a card's files by
// its serial number: those of other tests' cards are out of the way.
func Start(t testing.TB) *Service {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "vpcd"), []byte(readers), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Service{t: t}
	args := []string{"--foreground", "-c", config}
	if Room() == rootfs.Sid {
		args = append(args, "--disable-polkit") // there is none, and this pcscd would refuse everybody
	}
	s.cmd = exec.Command("pcscd", args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() && s.output.Len() > 0 {
			t.Logf("pcscd:\n%s", &s.output)
		}
	})
	for end := time.Now().Add(20 * time.Second); !reachable(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pcscd did not come up:\n%s", &s.output)
		}
	}
	return s
}

// reachable says whether pcscd answers and its readers listen. (To connect to
// a reader would be to insert a card.)
func reachable() bool {
	conn, err := net.Dial("unix", folder+"/pcscd.comm")
	if err != nil {
		return false
	}
	conn.Close()
	sockets, err := os.ReadFile("/proc/net/tcp")
	const listens = ":8C7%c 00000000:0000 0A"
	return err == nil && bytes.Contains(sockets, fmt.Appendf(nil, listens, 'B')) &&
		bytes.Contains(sockets, fmt.Appendf(nil, listens, 'C'))
}

// Stop kills pcscd, as a crash would, and returns when it is gone.
func (s *Service) Stop() {
	if s.ended {
		return
	}
	s.ended = true
	s.cmd.Process.Kill()
	s.cmd.Wait()
	os.Remove(folder + "/pcscd.comm")
	os.Remove(folder + "/pcscd.pid")
}
