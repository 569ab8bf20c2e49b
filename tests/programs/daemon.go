package programs

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience is how long a test waits for a state.
const patience = 30 * time.Second

// Daemon starts a program, waits until it listens on an address, ends it with a
// signal when the test ends, and shows what it said if the test failed. A program
// that ends by itself makes the test fail.
func Daemon(t testing.TB, cmd *exec.Cmd, end os.Signal, network, address string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(cmd.Args[0])
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(end); err != nil {
			t.Errorf("%s has ended by itself: %v", name, err)
		}
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
	Until(t, name+" listens", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s does not run:\n%s", name, out.String())
		default:
		}
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Until waits for a state.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// FreeAddr is a loopback address that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
