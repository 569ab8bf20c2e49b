package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// manager plays the user's systemd: it listens, starts the agent with the
// sockets, and hears what the agent tells.
type manager struct {
	t            *testing.T
	dir          string
	proxy        *net.TCPListener
	socket       *net.UnixListener
	notify       *net.UnixConn
	socketPath   string
	notification []byte
}

func newManager(t *testing.T) *manager {
	t.Helper()
	// A signal that is ignored, as nohup leaves it, would be for the agent too.
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangUps) })
	m := &manager{t: t, dir: t.TempDir(), notification: make([]byte, 4096)}
	m.socketPath = filepath.Join(m.dir, "run", "agent.sock")
	must(t, os.Mkdir(filepath.Dir(m.socketPath), 0o700))
	var err error
	m.proxy, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	t.Cleanup(func() { m.proxy.Close() })
	m.socket, err = net.ListenUnix("unix", &net.UnixAddr{Name: m.socketPath, Net: "unix"})
	must(t, err)
	t.Cleanup(func() { m.socket.Close() })
	must(t, os.Chmod(m.socketPath, 0o600))
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { m.notify.Close() })
	m.configure("")
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (m *manager) configure(more string) {
	m.t.Helper()
	text := fmt.Sprintf("[proxy]\nlisten = %q\n[control]\nsocket = %q\n[card]\nmodules = [\"/nowhere/module.so\"]\n%s", m.proxy.Addr(), m.socketPath, more)
	must(m.t, os.WriteFile(filepath.Join(m.dir, "kortti.toml"), []byte(text), 0o600))
}

// command is the agent with the sockets; systemd knows the process's number only
// when it is there, which a shell stands for here.
func (m *manager) command(files ...*os.File) *exec.Cmd {
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec kortti agent --config "$0"`, filepath.Join(m.dir, "kortti.toml"))
	cmd.Env = []string{
		"HOME=" + m.dir, "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0", "NOTIFY_SOCKET=" + filepath.Join(m.dir, "notify"),
		fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES=" + strings.TrimSuffix(strings.Repeat("kortti.socket:", len(files)), ":"),
	}
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (m *manager) sockets() []*os.File {
	m.t.Helper()
	var files []*os.File
	for _, l := range []interface{ File() (*os.File, error) }{m.proxy, m.socket} {
		f, err := l.File()
		must(m.t, err)
		m.t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files
}

// hears returns the next notification.
func (m *manager) hears() string {
	m.t.Helper()
	must(m.t, m.notify.SetReadDeadline(time.Now().Add(patience)))
	n, err := m.notify.Read(m.notification)
	must(m.t, err)
	return string(m.notification[:n])
}

// TestSocketActivation runs the agent as systemd does, twice: what connects
// before it runs is answered, it tells of its state, and leaves the sockets alone.
func TestSocketActivation(t *testing.T) {
	m := newManager(t)
	c := control.New(m.socketPath)
	defer c.Close()
	for range 2 {
		early, err := net.Dial("unix", m.socketPath)
		must(t, err)
		defer early.Close()
		_, err = io.WriteString(early, "GET /v1/status HTTP/1.1\r\nHost: kortti\r\n\r\n")
		must(t, err)
		cmd := m.command(m.sockets()...)
		var said strings.Builder
		cmd.Stderr = &said
		must(t, cmd.Start())
		if s := m.hears(); s != "READY=1\nSTATUS=The proxy is at "+m.proxy.Addr().String()+"." {
			t.Errorf("%q", s)
		}
		resp, err := http.ReadResponse(bufio.NewReader(early), nil)
		must(t, err)
		resp.Body.Close()
		if status, err := c.Status(t.Context()); err != nil || status.PID != cmd.Process.Pid || status.Proxy != m.proxy.Addr().String() || resp.StatusCode != 200 {
			t.Errorf("%s; %+v %v", resp.Status, status, err)
		}
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
		must(t, err)
		if !strings.Contains(string(environment), "LISTEN_FDS=2") {
			t.Error("the agent was not started as systemd does")
		}

		m.configure("[[host]]\nname = \"a.example.fi\"\n")
		must(t, cmd.Process.Signal(syscall.SIGHUP))
		var usec int64
		if s := m.hears(); !strings.HasPrefix(s, "RELOADING=1\n") {
			t.Errorf("%q", s)
		} else if _, err := fmt.Sscanf(s, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec <= 0 {
			t.Errorf("%q %v", s, err)
		}
		if s := m.hears(); !strings.HasPrefix(s, "READY=1\n") {
			t.Errorf("%q", s)
		}
		if hosts, err := c.Hosts(t.Context()); err != nil || len(hosts) != 1 {
			t.Errorf("%v %v", hosts, err)
		}
		m.configure("[host]\n")
		must(t, cmd.Process.Signal(syscall.SIGHUP))
		m.hears()
		if s := m.hears(); !strings.HasPrefix(s, "READY=1\nSTATUS=The proxy is at ") || !strings.Contains(s, "cannot be used") || strings.Count(s, "\n") != 1 {
			t.Errorf("%q", s)
		}
		if hosts, err := c.Hosts(t.Context()); err != nil || len(hosts) != 1 {
			t.Errorf("%v %v", hosts, err)
		}
		m.configure("")

		must(t, cmd.Process.Signal(syscall.SIGTERM))
		if s := m.hears(); s != "STOPPING=1" {
			t.Errorf("%q", s)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, said.String())
		}
		if _, err := os.Stat(m.socketPath); err != nil {
			t.Errorf("systemd's socket is gone: %v", err)
		}
	}
}

// TestSocketsThatDoNotFit has systemd listen where the configuration does not
// say: programs would wait there for ever.
func TestSocketsThatDoNotFit(t *testing.T) {
	m := newManager(t)
	other, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer other.Close()
	f, err := other.File()
	must(t, err)
	defer f.Close()
	out, err := m.command(append(m.sockets(), f)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "systemd listens on "+other.Addr().String()) || !strings.Contains(string(out), "kortti service install") {
		t.Errorf("%v %s", err, out)
	}
	must(t, os.Chmod(m.socketPath, 0o666))
	out, err = m.command(m.sockets()...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "SocketMode=0600") {
		t.Errorf("%v %s", err, out)
	}
}

// TestKilledAgent kills an agent with its sockets open; the next one starts in
// its place, and no child is left of the first.
func TestKilledAgent(t *testing.T) {
	m := newManager(t)
	must(t, m.proxy.Close())
	must(t, m.socket.Close()) // this agent opens its own
	c := control.New(m.socketPath)
	defer c.Close()
	begin := func() *exec.Cmd {
		cmd := m.command()
		cmd.SysProcAttr.Setpgid = true
		must(t, cmd.Start())
		if s := m.hears(); !strings.HasPrefix(s, "READY=1") {
			t.Fatal(s)
		}
		return cmd
	}
	first := begin()
	must(t, first.Process.Kill())
	_ = first.Wait()
	if _, err := os.Stat(m.socketPath); err != nil {
		t.Fatalf("the killed agent has tidied up, so this tests nothing: %v", err)
	}
	eventually(t, "its children have ended", func() bool { return syscall.Kill(-first.Process.Pid, 0) == syscall.ESRCH })
	second := begin()
	if status, err := c.Status(t.Context()); err != nil || status.PID != second.Process.Pid {
		t.Errorf("%+v %v", status, err)
	}
	must(t, second.Process.Signal(syscall.SIGTERM))
	must(t, second.Wait())
}

// TestUnsolicitedAnswers has a host say something on a connection that no
// request waits on: it comes into no log.
func TestUnsolicitedAnswers(t *testing.T) {
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true, BaseURL: "http://127.0.0.1:1"})
	must(t, err)
	cert, err := pki.ServerCert("site.kortti.test")
	must(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	must(t, err)
	var host sync.WaitGroup
	defer host.Wait()
	defer l.Close()
	answered, gone := make(chan struct{}), make(chan error, 1)
	host.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			gone <- err
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-answered
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nSet-Cookie: s3cret\r\nContent-Length: 6\r\n\r\ns3cret")
		_, err = in.ReadByte()
		gone <- err
	})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	must(t, os.WriteFile(roots, pki.WebRootsPEM(), 0o600))
	var r *running
	t.Cleanup(func() { // after the agent's end
		if log := r.log.String(); strings.Contains(log, "s3cret") || strings.Contains(log, "idle HTTP channel") {
			t.Errorf("%s", log)
		}
	})
	r = startAgent(t, fmt.Sprintf("[[host]]\nname = \"site.kortti.test\"\naddress = %q\ntls_roots = %q\nconsent = \"always\"\n", l.Addr(), roots))
	if out := r.run(t, "get", "--socket", r.socket, "https://site.kortti.test/"); out != "" {
		t.Errorf("%q", out)
	}
	close(answered)
	if err := <-gone; !errors.Is(err, io.EOF) {
		t.Errorf("the agent's end of the connection: %v", err)
	}
	eventually(t, "the connection is closed", func() bool {
		status, err := r.client.Status(t.Context())
		return err == nil && status.Counters.Connections == 0
	})
}
