//go:build linux

// Package desktop gives tests a desktop's D-Bus: real bus daemons that live in
// the tests' root file system, with stand-ins for logind and for screen savers
// on them. It never touches the machine's own buses. Linux only.
package desktop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/kortti-id/kortti/tests/rootfs"
)

// patience bounds the wait for what must come.
const patience = 30 * time.Second

// Nowhere is the address of a bus that is not there.
const Nowhere = "unix:path=/nonexistent/bus"

// config lets everybody on the bus do everything: who may what is not its point.
const config = `<busconfig>
<listen>unix:path=%s</listen>
<policy context="default">
  <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
  <allow send_requested_reply="true"/><allow receive_requested_reply="true"/><allow eavesdrop="true"/>
</policy>
</busconfig>
`

// Bus is a bus daemon that runs until the test ends, but for Stop.
type Bus struct {
	// Address is the same after a restart.
	Address string

	t    testing.TB
	dir  string
	stop func()
}

// NewBus starts a bus.
func NewBus(t testing.TB) *Bus {
	t.Helper()
	b := &Bus{t: t, dir: t.TempDir(), stop: func() {}}
	b.Address = "unix:path=" + dbus.EscapeBusAddressValue(b.socket())
	if err := os.WriteFile(filepath.Join(b.dir, "bus.conf"), fmt.Appendf(nil, config, rootfs.Shared+"/bus"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.stop() })
	b.Start()
	return b
}

func (b *Bus) socket() string { return filepath.Join(b.dir, "bus") }

// Start starts the daemon again after Stop, and waits until it takes connections.
func (b *Bus) Start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var said bytes.Buffer
	cmd := rootfs.Command(ctx, b.t, b.dir, "dbus-daemon", "--nofork", "--config-file="+rootfs.Shared+"/bus.conf")
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves none behind
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		var exit *exec.ExitError
		if err := <-ended; err != nil && !errors.As(err, &exit) {
			b.t.Errorf("dbus-daemon: %v\n%s", err, said.String())
		}
	})
	WaitFor(b.t, "the bus", func() bool {
		conn, err := dbus.Connect(b.Address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// Stop ends the daemon; every connection is lost.
func (b *Bus) Stop() {
	b.t.Helper()
	b.stop()
	if err := os.Remove(b.socket()); err != nil {
		b.t.Fatal(err)
	}
}

// Connect is a program on the bus, until the test ends.
func (b *Bus) Connect() *dbus.Conn {
	b.t.Helper()
	conn, err := dbus.Connect(b.Address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// take makes conn the owner of a name.
func take(t testing.TB, conn *dbus.Conn, name string) {
	t.Helper()
	reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("take the name %s: %v, %v", name, reply, err)
	}
}

// WaitFor waits until ok.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("this never came: %s", what)
		}
	}
}
