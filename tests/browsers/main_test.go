// Package browsers_test has real browsers and other programs log in with a card
// through a real agent: Chromium and Firefox, curl, git, Python, Node, WebSocket
// clients. Everything is in a root file system and in namespaces of its own,
// without any way to another network.
package browsers_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kortti-id/kortti/softhsm"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
)

// patience bounds the wait for what takes a second at most on a machine that has
// time.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if pcscd.Room() == "" {
		if err := compileCard(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	pcscd.MainWithPrograms(m, []string{"./cmd/kortti", "./cmd/kortti-server"}, rootfs.Bookworm, rootfs.Sid)
}

// compileCard puts the library of test cards into the user's cache: there is no
// compiler in the room.
func compileCard() error {
	dir, err := os.MkdirTemp("", "kortti-card-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	_, err = softhsm.Create(dir, softhsm.Spec{})
	return err
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor polls for a state.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
