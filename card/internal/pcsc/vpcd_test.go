//go:build linux && cgo

package pcsc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kortti-id/kortti/tests/rootfs"
)

// The tests run against a real pcscd with virtual readers. Their ports (35963
// and 35964) are fixed, so the test binary starts itself again with a network of
// its own, and with processes of its own, which end with it however it ends.
const inNamespace = "KORTTI_TEST_NAMESPACE"

// socketDir holds pcscd's socket, by a name that must stay: the library reads
// it only once.
var socketDir string

func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) == "" {
		os.Exit(enterNamespace())
	}
	if err := raiseLoopback(); err != nil {
		panic(err)
	}
	var err error
	if socketDir, err = os.MkdirTemp("", "pcsc"); err != nil {
		panic(err)
	}
	os.Setenv("PCSCLITE_CSOCK_NAME", filepath.Join(socketDir, "pcscd.comm"))
	status := m.Run()
	os.RemoveAll(socketDir)
	os.Exit(status)
}

func enterNamespace() int {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	args := []string{"--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() != 0 {
		args = append(args, "--map-root-user", "--map-auto")
	}
	cmd := exec.Command("unshare", append(append(args, self), os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		panic(err)
	}
	return cmd.ProcessState.ExitCode()
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

// The two virtual readers of one line in pcscd's configuration.
const (
	readerName  = "Virtual PCD 00 00"
	readerTwo   = "Virtual PCD 00 01"
	readerPort  = "127.0.0.1:35963"
	readerSetup = `FRIENDLYNAME "Virtual PCD"
DEVICENAME /dev/null:0x8C7B
LIBPATH /usr/lib/pcsc/drivers/serial/libifdvpcd.so
CHANNELID 0x8C7B
`
)

// start runs pcscd in the tests' root file system until the returned function
// is called or the test ends, and returns when it can be reached.
func start(t *testing.T) (stop func()) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(socketDir, "reader.conf"), []byte(readerSetup), 0o644))
	ctx, cancel := context.WithCancel(context.Background())
	cmd := rootfs.Command(ctx, t, socketDir, "sh", "-c",
		"mkdir /run/pcscd; mount --bind "+rootfs.Shared+" /run/pcscd; exec pcscd --foreground -c "+rootfs.Shared)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	check(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		cancel()
		cmd.Wait()
		os.Remove(filepath.Join(socketDir, "pcscd.comm"))
		os.Remove(filepath.Join(socketDir, "pcscd.pid"))
		if t.Failed() {
			t.Logf("pcscd:\n%s", &output)
		}
	})
	t.Cleanup(stop)
	eventually(t, "pcscd answers", func() bool {
		c, err := Establish()
		if err == nil {
			check(t, c.Close())
		}
		return err == nil
	})
	return stop
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a state.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// virtualCard is a card in the first virtual reader. It knows two commands:
// VERIFY (00 20), which it always accepts, and 80 CA, which is answered with
// whether a PIN is verified. It counts what the reader does to it.
type virtualCard struct {
	conn    net.Conn
	atr     []byte
	ended   chan struct{}
	mu      sync.Mutex // guards what follows
	resets  int
	powered int
	pin     bool
}

var cardATR = []byte{0x3b, 0x7f, 0x96, 0, 0, 0x80, 0x31, 0xb8, 0x65, 0xb0, 0x85, 0x05, 0, 0x11, 0x12, 0x24, 0x60, 0x82, 0x90, 0}

// insert puts a card in and waits until pcscd has seen it.
func insert(t *testing.T, c *Context) *virtualCard {
	t.Helper()
	conn, err := net.Dial("tcp", readerPort)
	check(t, err)
	card := &virtualCard{conn: conn, atr: cardATR, ended: make(chan struct{})}
	go card.serve()
	t.Cleanup(card.pull)
	waitFor(t, c, func(s ReaderState) bool { return s.Present && len(s.ATR) > 0 })
	return card
}

func (v *virtualCard) pull() {
	v.conn.Close()
	<-v.ended
}

// serve speaks vpcd's protocol: messages with a length of two bytes, of which
// those of one byte are for the reader.
func (v *virtualCard) serve() {
	defer close(v.ended)
	for {
		var size [2]byte
		if _, err := io.ReadFull(v.conn, size[:]); err != nil {
			return
		}
		message := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(v.conn, message); err != nil {
			return
		}
		if answer := v.answer(message); answer != nil {
			v.conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		}
	}
}

func (v *virtualCard) answer(message []byte) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(message) == 1 {
		switch message[0] {
		case 0:
			v.pin = false
		case 1:
			v.powered++
			v.pin = false
		case 2:
			v.resets++
			v.pin = false
		case 4:
			return v.atr
		}
		return nil
	}
	switch {
	case bytes.HasPrefix(message, []byte{0x00, 0x20}):
		v.pin = true
		return []byte{0x90, 0x00}
	case bytes.HasPrefix(message, []byte{0x80, 0xca}) && v.pin:
		return []byte{1, 0x90, 0x00}
	case bytes.HasPrefix(message, []byte{0x80, 0xca}):
		return []byte{0, 0x90, 0x00}
	}
	return []byte{0x6d, 0x00}
}

func (v *virtualCard) state() (resets int, pin bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.resets, v.pin
}

// waitFor waits until the first reader is as wanted.
func waitFor(t *testing.T, c *Context, wanted func(ReaderState) bool) []ReaderState {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	now, err := c.Readers()
	for ; err == nil; now, err = c.Wait(ctx, now) {
		if len(now) > 0 && wanted(now[0]) {
			return now
		}
	}
	t.Fatalf("the reader never was as wanted: %v (last %+v)", err, now)
	return nil
}
