package systemd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const patience = 30 * time.Second

// TestMain plays a service where systemd is played by a test.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "service" {
		service()
		return
	}
	os.Exit(m.Run())
}

// service greets once on each socket that it was passed, and then shows what
// another program gets to see of them.
func service() {
	sockets, err := Sockets()
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	for _, s := range sockets {
		conn, err := s.Listener.Accept()
		if err != nil {
			fmt.Println("error:", err)
			return
		}
		fmt.Fprintln(conn, "I am", s.Name)
		conn.Close()
		s.Listener.Close()
	}
	out, err := exec.Command("sh", "-c", "env; ls -l /proc/$$/fd").CombinedOutput()
	fmt.Printf("%s%d sockets %v\n", out, len(sockets), err)
}

// run starts the service as systemd does, with its own process in LISTEN_PID
// unless owner is another.
func run(t *testing.T, owner string, files []*os.File, env ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=`+owner+` exec "$0" service`, self)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}, env...)
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file is a descriptor of something that closes with the test.
func file(t *testing.T, of interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := of.File()
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func tcp(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// Connections made before the service runs wait for it; what it starts gets
// neither the sockets nor the variables.
func TestSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	defer control.Close()
	proxy := tcp(t)
	var waiting []net.Conn
	for _, l := range []net.Listener{control, proxy} {
		conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
		check(t, err)
		defer conn.Close()
		check(t, conn.SetDeadline(time.Now().Add(patience)))
		waiting = append(waiting, conn)
	}
	out, err := run(t, "$$", []*os.File{file(t, control), file(t, proxy)}, "LISTEN_FDS=2", "LISTEN_FDNAMES=control:proxy", "LISTEN_PIDFDID=7")
	if err != nil || !strings.Contains(out, "2 sockets <nil>") {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(out, "LISTEN") || strings.Contains(out, "socket:") {
		t.Errorf("another program sees:\n%s", out)
	}
	for i, want := range []string{"I am control\n", "I am proxy\n"} {
		if got, err := bufio.NewReader(waiting[i]).ReadString('\n'); got != want {
			t.Errorf("%q %v", got, err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the service took systemd's socket away:", err)
	}
}

func TestSocketsThatAreNone(t *testing.T) {
	plain, err := os.Open(os.DevNull)
	check(t, err)
	defer plain.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	defer udp.Close()
	l := tcp(t)
	conn, err := net.Dial("tcp", l.Addr().String())
	check(t, err)
	defer conn.Close()
	for name, c := range map[string]struct {
		owner string
		files []*os.File
		env   string
		want  string
	}{
		"nothing":          {"$$", nil, "X=1", "0 sockets <nil>"},
		"another's":        {"1", []*os.File{file(t, l)}, "LISTEN_FDS=1", "0 sockets <nil>"},
		"a file":           {"$$", []*os.File{plain}, "LISTEN_FDS=1", "it is no socket"},
		"a datagram":       {"$$", []*os.File{file(t, udp)}, "LISTEN_FDS=1", "ListenStream="},
		"a connection":     {"$$", []*os.File{file(t, conn.(*net.TCPConn))}, "LISTEN_FDS=1", "Accept=no"},
		"fewer":            {"$$", []*os.File{file(t, l)}, "LISTEN_FDS=5", "it is no socket"},
		"no number":        {"$$", nil, "LISTEN_FDS=x", "LISTEN_FDS"},
		"too many":         {"$$", nil, "LISTEN_FDS=65", "from 0 to 64"},
		"not a process":    {"x", nil, "LISTEN_FDS=1", "no process"},
		"names":            {"$$", nil, "LISTEN_FDS=2\x00LISTEN_FDNAMES=one", "not 2 names"},
		"names of nothing": {"$$", nil, "LISTEN_FDS=0\x00LISTEN_FDNAMES=one", "0 sockets <nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, c.owner, c.files, strings.Split(c.env, "\x00")...)
			if err != nil || !strings.Contains(out, c.want) || strings.Contains(out, "LISTEN_FDS=") {
				t.Errorf("%v, want %q:\n%s", err, c.want, out)
			}
		})
	}
}

func TestNotifier(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@kortti-test-%d", os.Getpid())} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		check(t, err)
		defer conn.Close()
		check(t, conn.SetDeadline(time.Now().Add(patience)))
		t.Setenv("NOTIFY_SOCKET", name)
		t.Setenv("WATCHDOG_USEC", "1")
		n, err := NewNotifier()
		check(t, err)
		if os.Getenv("NOTIFY_SOCKET")+os.Getenv("WATCHDOG_USEC") != "" {
			t.Error("the variables are left for other programs")
		}
		got := func() string {
			b := make([]byte, 1000)
			k, err := conn.Read(b)
			check(t, err)
			return string(b[:k])
		}
		check(t, n.Ready("two\nlines"))
		if s := got(); s != "READY=1\nSTATUS=two lines" {
			t.Errorf("%q", s)
		}
		check(t, n.Reloading())
		var usec int64
		if s := got(); !strings.HasPrefix(s, "RELOADING=1\n") {
			t.Errorf("%q", s)
		} else if _, err := fmt.Sscanf(s, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec <= 0 {
			t.Errorf("%q %v", s, err)
		}
		check(t, n.Stopping())
		if s := got(); s != "STOPPING=1" {
			t.Errorf("%q", s)
		}
		conn.Close()
		if name[0] == '@' {
			if err := n.Stopping(); err == nil {
				t.Error("nobody listens, and that is no error")
			}
		}
	}
	n, err := NewNotifier() // the variable is gone
	if n != nil || err != nil || n.Ready("") != nil || n.Reloading() != nil || n.Stopping() != nil {
		t.Error(n, err)
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
	if _, err := NewNotifier(); err == nil || !strings.Contains(err.Error(), "vsock") {
		t.Error(err)
	}
}

func TestJournal(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewJournalHandler(&out, slog.LevelDebug)).With("host", "a.fi")
	log.Debug("one", "n", 1)
	log.Info("two\nlines")
	log.Warn("three", "error", errors.New("it broke"))
	log.WithGroup("g").Error("four", "level", "x")
	want := "<7>msg=one host=a.fi n=1\n<6>msg=\"two\\nlines\" host=a.fi\n<4>msg=three host=a.fi error=\"it broke\"\n<3>msg=four host=a.fi g.level=x\n"
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	slog.New(NewJournalHandler(&out, slog.LevelInfo)).Debug("quiet")
	if out.Len() != 0 {
		t.Errorf("%s", out.String())
	}

	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	defer w.Close()
	t.Setenv("JOURNAL_STREAM", "")
	if IsJournal(w) {
		t.Error("no variable, and yet a journal")
	}
	out.Reset()
	cmd := exec.Command("stat", "-L", "-c", "%d:%i", "/proc/self/fd/0")
	cmd.Stdin, cmd.Stdout = w, &out
	check(t, cmd.Run())
	t.Setenv("JOURNAL_STREAM", strings.TrimSpace(out.String()))
	if !IsJournal(w) {
		t.Errorf("JOURNAL_STREAM %s is not seen", out.String())
	}
	other, err := os.Open(os.DevNull)
	check(t, err)
	defer other.Close()
	if IsJournal(other) {
		t.Error("another file is taken for the journal")
	}
}

// FuzzParse: no variables make more or fewer names than sockets.
func FuzzParse(f *testing.F) {
	f.Add("42", "2", "a:b")
	f.Add("42", "1", "")
	f.Add("41", "x", ":")
	f.Add("42", "-1", "a")
	f.Fuzz(func(t *testing.T, pid, number, given string) {
		n, names, err := parse(func(name string) string {
			return map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": number, "LISTEN_FDNAMES": given}[name]
		}, 42)
		if n < 0 || n > maxSockets || len(names) != n || err != nil && n != 0 {
			t.Fatal(n, names, err)
		}
	})
}
