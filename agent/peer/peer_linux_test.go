package peer

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair makes a loopback connection and returns its near (accepted) and far end.
func pair(t *testing.T, listen, dial string) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c, err := net.Dial("tcp", net.JoinHostPort(dial, port))
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); c.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

func ends(c *net.TCPConn) (local, remote netip.AddrPort) {
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func lookup(f *Finder, near *net.TCPConn) (Peer, error) { return f.Lookup(ends(near)) }

func TestLookup(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := NewFinder()
	for _, c := range []struct{ name, listen, dial string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 on a listener of both", "[::]:0", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, _ := pair(t, c.listen, c.dial)
			p, err := lookup(f, near)
			if err != nil {
				t.Fatal(err)
			}
			if p.UID != uint32(os.Getuid()) || p.Inode == 0 {
				t.Errorf("uid %d inode %d", p.UID, p.Inode)
			}
			if got := p.Program(); got.PID != os.Getpid() || got.Path != self {
				t.Errorf("program %+v, want pid %d %s", got, os.Getpid(), self)
			}
		})
	}
}

// A program may speak IPv4 through an IPv6 socket; the kernel then keeps mapped
// addresses.
func TestLookupMapped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := unix.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := unix.Connect(fd, &to); err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if p, err := lookup(NewFinder(), near.(*net.TCPConn)); err != nil || p.Program().PID != os.Getpid() {
		t.Errorf("%+v %v", p, err)
	}
}

func TestLookupRefusesOthers(t *testing.T) {
	near, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
	// A uid that is not ours must be refused whoever runs the test.
	if _, err := lookup(&Finder{uid: uint32(os.Getuid()) + 1}, near); !errors.Is(err, ErrRefused) {
		t.Errorf("another uid: %v", err)
	}
	if os.Getuid() != 0 {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	curl := exec.Command("curl", "--silent", "--max-time", "20", "http://"+l.Addr().String()+"/")
	curl.Dir = "/"
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := curl.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lookup(NewFinder(), conn.(*net.TCPConn)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "65534") {
		t.Errorf("a child of uid 65534: %v", err)
	}
	conn.Close()
	curl.Wait() // it fails: nobody answered
}

func TestOwnedBy(t *testing.T) {
	for s, ok := range map[socket]bool{
		{state: tcpEstablished, uid: 0, inode: 7}:    true,
		{state: tcpEstablished, uid: 0, inode: 0}:    false, // closed
		{state: tcpEstablished, uid: 1000, inode: 7}: false,
		{state: 10, uid: 0, inode: 7}:                false, // listening
		{state: tcpFinWait1, uid: 0, inode: 7}:       true,  // it only listens to the answer now
		{state: tcpFinWait2, uid: 0, inode: 7}:       true,
		{state: tcpFinWait2, uid: 0, inode: 0}:       false, // closed
		{state: tcpFinWait1, uid: 1000, inode: 7}:    false,
		{state: 6, uid: 0, inode: 7}:                 false, // TIME_WAIT
		{}:                                           false,
	} {
		if err := s.ownedBy(0); (err == nil) != ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestLookupRefusesClosed(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, near, far *net.TCPConn)
	}{
		{"closed", func(t *testing.T, near, far *net.TCPConn) { far.Close() }},
		{"reset", func(t *testing.T, near, far *net.TCPConn) { far.SetLinger(0); far.Close() }},
	} {
		for _, addr := range []string{"127.0.0.1", "::1"} {
			t.Run(c.name+" "+addr, func(t *testing.T) {
				near, far := pair(t, net.JoinHostPort(addr, "0"), addr)
				c.end(t, near, far)
				near.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := near.Read(make([]byte, 1)); err == nil {
					t.Fatal("read something")
				}
				if p, err := lookup(NewFinder(), near); !errors.Is(err, ErrRefused) {
					t.Errorf("%+v %v", p, err)
				}
			})
		}
	}
}

func TestLookupRefusesStrangers(t *testing.T) {
	near, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
	local, remote := ends(near)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listening := l.Addr().(*net.TCPAddr).AddrPort()
	for name, pair := range map[string][2]netip.AddrPort{
		"no such connection":  {local, netip.AddrPortFrom(remote.Addr(), 1)},
		"a listening socket":  {local, listening},
		"mixed families":      {local, netip.AddrPortFrom(netip.IPv6Loopback(), remote.Port())},
		"no address":          {local, netip.AddrPort{}},
		"somebody's far away": {local, netip.MustParseAddrPort("192.0.2.1:443")},
	} {
		if p, err := NewFinder().Lookup(pair[0], pair[1]); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %+v %v", name, p, err)
		}
	}
}

// A program that was deleted, as under a path that leads to another file, is
// not called by that path.
func TestProgramUnknown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(curl)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(moved, data, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(moved, "--silent", "--max-time", "20", "http://"+l.Addr().String()+"/")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f := NewFinder()
	p, err := lookup(f, conn.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Program(); got.PID != cmd.Process.Pid || got.Path != moved || got.String() != moved {
		t.Errorf("before: %+v", got)
	}
	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(moved, []byte("another"), 0o700); err != nil {
		t.Fatal(err)
	}
	if p, err = lookup(f, conn.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	if got := p.Program(); got.PID != cmd.Process.Pid || got.Path != "" || got.String() != Unknown {
		t.Errorf("after: %+v", got)
	}
	conn.Close()
	cmd.Wait() // it fails: nobody answered
	if got := f.processes.find(uint32(os.Getuid()), p.Inode); got.PID != 0 || got.String() != Unknown {
		t.Errorf("an ended program: %+v", got)
	}
}

func TestProvedPath(t *testing.T) {
	running, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{self: self, "/bin/sh": "", self + " (deleted)": "", "": ""} {
		if got := proved(path, running); got != want {
			t.Errorf("%q: %q", path, got)
		}
	}
}

func TestUnixUID(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if uid, err := UnixUID(a); err != nil || uid != uint32(os.Getuid()) {
		t.Errorf("%d %v", uid, err)
	}
	near, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
	if uid, err := UnixUID(near); err == nil {
		t.Errorf("TCP: uid %d", uid)
	}
	p1, p2 := net.Pipe()
	defer p1.Close()
	defer p2.Close()
	if uid, err := UnixUID(p1); err == nil {
		t.Errorf("pipe: uid %d", uid)
	}
}

// diagAnswer is the kernel's answer about a connection, and that connection.
func diagAnswer() (answer []byte, own, far netip.AddrPort) {
	own, far = netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8079")
	request := diagRequest(own, far)
	answer = make([]byte, diagHeaderLen+diagAnswerLen)
	copy(answer, request[:diagHeaderLen])
	answer[0] = byte(len(answer))
	answer[16], answer[17] = unix.AF_INET, tcpEstablished
	copy(answer[20:], request[diagHeaderLen+8:][:48])
	return answer, own, far
}

// An answer about another connection is not taken.
func TestDiagAnswer(t *testing.T) {
	answer, own, far := diagAnswer()
	if s, err := parseDiagAnswer(answer, own, far); err != nil || s.state != tcpEstablished {
		t.Errorf("%+v %v", s, err)
	}
	for _, i := range []int{4, 16, 20, 21, 22, 23, 24, 27, 40, 43} { // kind, family, ports, addresses
		other := slices.Clone(answer)
		other[i] ^= 8
		if s, err := parseDiagAnswer(other, own, far); !errors.Is(err, ErrRefused) {
			t.Errorf("byte %d changed: %+v %v", i, s, err)
		}
	}
}

func FuzzDiagAnswer(f *testing.F) {
	answer, own, far := diagAnswer()
	f.Add(answer)
	f.Add(answer[:40])
	f.Add([]byte{36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseDiagAnswer(b, own, far); err == nil && (len(b) < len(answer) || string(b[20:24]) != string(answer[20:24])) {
			t.Errorf("taken: %x", b)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	f := NewFinder()
	for b.Loop() {
		if _, err := lookup(f, a.(*net.TCPConn)); err != nil {
			b.Fatal(err)
		}
	}
}

// A program may shut its writing side down and wait for the answer.
func TestHalfClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	program, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := program.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if n, err := near.Read(make([]byte, 1)); n != 0 || err == nil { // its FIN has come
		t.Fatal(n, err)
	}
	pair := func(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
	owner, err := NewFinder().Lookup(pair(near.LocalAddr()), pair(near.RemoteAddr()))
	if err != nil {
		t.Fatal(err)
	}
	if p := owner.Program(); p.PID != os.Getpid() || p.Started == 0 || p.Started != started("/proc/self") {
		t.Errorf("%+v", p)
	}
}

func TestStarted(t *testing.T) {
	if n := started(t.TempDir()); n != 0 {
		t.Error(n)
	}
	for stat, want := range map[string]uint64{
		"7 (a) b) (c) R 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1\n": 12345,
		"7 (a": 0, "": 0, "7 (a) R 1": 0,
		"7 (a) R 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 x 1 1\n": 0,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/stat", []byte(stat), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := started(dir); got != want {
			t.Errorf("%q: %d, want %d", stat, got, want)
		}
	}
}
