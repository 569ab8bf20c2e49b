package peer

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestApplication(t *testing.T) {
	const user = "0::/user.slice/user-1000.slice/user@1000.service/"
	for text, want := range map[string]Sandbox{
		user + "app.slice/app-flatpak-org.mozilla.firefox-2312.scope\n":                      {Flatpak, "org.mozilla.firefox"},
		user + `app.slice/app-flatpak-org.my\x2dapp.App-17.scope`:                            {Flatpak, "org.my-app.App"},
		user + "app.slice/snap.firefox.firefox-4a7c3b1e-0b5c-4f0e-9d3e-1e5f7b2c9a10.scope\n": {Snap, "firefox"},
		"0::/system.slice/snap.lxd.daemon.service\n":                                         {Snap, "lxd"},
		"12:pids:/x\n1:name=systemd:/y\n" + user + "app.slice/app-flatpak-a.b.C-1.scope":     {Flatpak, "a.b.C"},
		user + "user.slice/libpod-0123.scope/app-flatpak-org.mozilla.firefox-1.scope":        {Kind: Container}, // of the container's own making
		user + "user.slice/libpod-0123.scope\n":                                              {Kind: Container},
		user + "app.slice/app-gnome-firefox-2312.scope":                                      {Kind: Container},
		user + "app.slice/app-flatpak-org.mozilla.firefox-x.scope":                           {Kind: Container},
		user + "app.slice/app-flatpak-<script>-1.scope":                                      {Kind: Container},
		user + "app.slice/snap.":                                                             {Kind: Container},
		"0::/\n":                                                                             {Kind: Container},
		"":                                                                                   {Kind: Container},
		"1:name=systemd:/":                                                                   {Kind: Container},
	} {
		if got := application(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// FuzzApplication feeds the reader of /proc/PID/cgroup.
func FuzzApplication(f *testing.F) {
	f.Add("0::/user.slice/user@1000.service/app.slice/app-flatpak-org.mozilla.firefox-2312.scope\n")
	f.Add("0::/a.slice/snap.x.y.service\n0::")
	f.Fuzz(func(t *testing.T, text string) {
		if got := application(text); got.App != "" && !isAppName(got.App) || (got.App == "") != (got.Kind == Container) {
			t.Fatalf("%+v", got)
		}
	})
}

// connected starts a shell script in a mount namespace of its own, whose program
// connects to us, and returns who that is.
func connected(t *testing.T, script string, args ...string) (p Peer, pid int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-euc", script, "sh", "http://" + l.Addr().String() + "/"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
		close(accepted)
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case conn := <-accepted:
		t.Cleanup(func() {
			conn.Close()
			<-ended // it fails: nobody has answered
		})
		p, err := lookup(NewFinder(), conn.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		return p, cmd.Process.Pid
	case err := <-ended:
		t.Fatalf("it did not connect: %v %s", err, said.String())
	}
	panic("unreachable")
}

// A program in a user and mount namespace of its own can stand under the path of
// any other: /proc/PID/exe then reads as that path.
func TestImpostor(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	if curl, err = filepath.EvalSymlinks(curl); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(curl)
	if err != nil {
		t.Fatal(err)
	}
	impostor := filepath.Join(t.TempDir(), "impostor")
	if err := os.WriteFile(impostor, data, 0o700); err != nil {
		t.Fatal(err)
	}
	const run = `exec "$2" --silent --max-time 20 "$1"`
	victim := filepath.Join(t.TempDir(), "wget") // not the machine's own: it is mounted over
	if err := os.WriteFile(victim, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, pid := connected(t, `mount --bind "$3" "$2"; `+run, victim, impostor)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != victim {
		t.Fatalf("the impostor is not seen under the path: %q %v", exe, err)
	}
	if got := p.Program(); got.PID != pid || got.Path != "" || got.Sandbox.Kind != Container || got.String() != Unknown {
		t.Errorf("%+v", got)
	}
	// The true file is called by its name, and is told to be in a sandbox.
	p, pid = connected(t, run, curl)
	if got := p.Program(); got.PID != pid || got.Path != curl || got.Sandbox != (Sandbox{Kind: Container}) {
		t.Errorf("%+v", got)
	}
}

// TestOwnFiles: whoever sees the same files as we do is in no sandbox.
func TestOwnFiles(t *testing.T) {
	if got := sandbox("/proc/self"); got != (Sandbox{}) {
		t.Errorf("%+v", got)
	}
}
