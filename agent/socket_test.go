package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

func openFake(o Options) (*Agent, error) {
	return assemble(o, func(card.Config) (cards, tlsclient.Source, error) {
		f := newFakeCards()
		return f, f, nil
	})
}

func TestOneAgentForEachSocket(t *testing.T) {
	dir := t.TempDir()
	first := start(t, options(t, dir, ""), openFake)
	_, err := openFake(options(t, dir, ""))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("already running (process %d)", os.Getpid())) {
		t.Fatalf("a second agent: %v", err)
	}
	if _, err := first.client.Status(within(t)); err != nil {
		t.Errorf("the first agent lost its socket: %v", err)
	}
	check(t, first.stop())
	start(t, options(t, dir, ""), openFake)
}

// TestAgentsAtTheSameMoment starts some at once: one of them runs, and none takes
// its socket away.
func TestAgentsAtTheSameMoment(t *testing.T) {
	dir := t.TempDir()
	var agents []*Agent
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		o := options(t, dir, "")
		all.Go(func() {
			a, err := openFake(o)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				agents = append(agents, a)
			} else if !strings.Contains(err.Error(), "already running") {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(agents) != 1 {
		t.Errorf("%d agents run", len(agents))
	}
	for _, a := range agents {
		if conn, err := net.Dial("unix", a.Socket()); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		a.Close()
	}
}

// TestOneAgentForEachState starts a second agent with a socket of its own, as a
// second session of the user with another XDG_RUNTIME_DIR does: both would write
// the same consents, profiles and roots.
func TestOneAgentForEachState(t *testing.T) {
	dir := t.TempDir()
	first := start(t, options(t, dir, ""), openFake)
	second := options(t, dir, "")
	second.Config.Control.Socket = filepath.Join(dir, "other", "agent.sock")
	_, err := openFake(second)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("already running (process %d) that keeps its files in %s", os.Getpid(), filepath.Join(dir, "state"))) {
		t.Fatalf("a second agent: %v", err)
	}
	check(t, first.stop())
	a, err := openFake(second)
	check(t, err)
	a.Close()
}

func TestDeadAgentsSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir, "")
	socket, err := o.Config.Socket()
	check(t, err)
	check(t, os.MkdirAll(filepath.Dir(socket), 0o700))
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	check(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	r := start(t, o, openFake)
	_, err = r.client.Status(within(t))
	check(t, err)
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700, filepath.Join(dir, "state", "audit.jsonl"): 0o600, filepath.Join(dir, "state"): 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
}

func TestStartErrorsSayWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	port := taken.Addr().String()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string, o *Options)
		want    []string
	}{
		"port in use": {func(t *testing.T, _ string, o *Options) { o.Config.Proxy.Listen = port }, []string{port, "[proxy] listen", "kortti.toml", "in use"}},
		"no runtime directory": {func(t *testing.T, _ string, o *Options) {
			t.Setenv("XDG_RUNTIME_DIR", "")
			o.Config.Control.Socket = ""
		}, []string{"XDG_RUNTIME_DIR", "[control] socket"}},
		"a file in the socket's place": {func(t *testing.T, dir string, _ *Options) {
			check(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
			check(t, os.WriteFile(filepath.Join(dir, "run", "agent.sock"), nil, 0o600))
		}, []string{"is no socket"}},
		"a directory that others can write": {func(t *testing.T, dir string, _ *Options) {
			check(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
			check(t, os.Chmod(filepath.Join(dir, "run"), 0o777))
		}, []string{"can be written by others", "[control] socket"}},
		"damaged consents": {func(t *testing.T, dir string, _ *Options) {
			check(t, os.MkdirAll(filepath.Join(dir, "state"), 0o700))
			check(t, os.WriteFile(filepath.Join(dir, "state", "consents.json"), []byte("{"), 0o600))
		}, []string{"consents.json", "delete the file"}},
		"damaged choices": {func(t *testing.T, dir string, _ *Options) {
			check(t, os.MkdirAll(filepath.Join(dir, "state"), 0o700))
			check(t, os.WriteFile(filepath.Join(dir, "state", "choices.json"), []byte(`{"a.fi":"x"}`), 0o600))
		}, []string{"choices.json", "delete the file"}},
		"damaged profiles": {func(t *testing.T, dir string, _ *Options) {
			check(t, os.MkdirAll(filepath.Join(dir, "state"), 0o700))
			check(t, os.WriteFile(filepath.Join(dir, "state", "profiles.json"), []byte("{}"), 0o600))
		}, []string{"profiles.json", "delete the file"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := options(t, dir, "")
			c.prepare(t, dir, &o)
			a, err := openFake(o)
			if err == nil {
				a.Close()
				t.Fatal("it started")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
			if name == "port in use" { // what was opened before is closed
				o.Config.Proxy.Listen = "127.0.0.1:0"
				a, err := openFake(o)
				check(t, err)
				a.Close()
			}
		})
	}
}

// TestOtherUsersAreRefused takes the check of the kernel's word alone: modes of
// files do not count.
func TestOtherUsersAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	inner, err := net.Listen("unix", path)
	check(t, err)
	ln := &ownListener{Listener: inner, uid: uint32(os.Getuid()) + 1, log: slog.New(slog.DiscardHandler)}
	accepted := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		accepted <- err
	}()
	conn, err := net.Dial("unix", path)
	check(t, err)
	defer conn.Close()
	check(t, conn.SetReadDeadline(time.Now().Add(patience)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of another user: %v", err)
	}
	ln.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it was accepted: %v", err)
	}
}

// TestOtherUsersCurl is the same from outside, where the test may become
// another user: root, as in the container that runs the tests.
func TestOtherUsersCurl(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("not root: only TestOtherUsersAreRefused looks at this")
		return
	}
	dir := t.TempDir()
	r := start(t, options(t, dir, ""), openFake)
	curl := func() (string, error) {
		cmd := exec.CommandContext(within(t), "curl", "-sS", "--max-time", "10", "--unix-socket", r.Socket(), "http://kortti/v1/status")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := curl(); err == nil {
		t.Errorf("the file's mode lets another user in: %s", out)
	}
	for path := filepath.Dir(r.Socket()); path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		check(t, os.Chmod(path, 0o755))
	}
	check(t, os.Chmod(r.Socket(), 0o666))
	if out, err := curl(); err == nil || strings.Contains(out, "version") || !strings.Contains(r.log.String(), "uid=65534") {
		t.Errorf("another user got an answer: %s %v\n%s", out, err, r.log)
	}
	if _, err := r.client.Status(within(t)); err != nil {
		t.Error(err)
	}
}

func TestClientTellsThatNoAgentRuns(t *testing.T) {
	o := options(t, t.TempDir(), "")
	socket, err := o.Config.Socket()
	check(t, err)
	if _, err := control.New(socket).Status(within(t)); !errors.Is(err, control.ErrNotRunning) {
		t.Error(err)
	}
}
