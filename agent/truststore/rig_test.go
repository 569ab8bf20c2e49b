package truststore

import (
	"context"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/roots"
)

// patience is for what is waited for.
const patience = 60 * time.Second

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// nothing finds none but the tools: browsers of the machine that runs the tests
// are none of theirs.
func tools(name string) (string, error) {
	switch name {
	case "certutil", "mkdir", "rm", "install", "update-ca-certificates":
		return exec.LookPath(name)
	}
	return "", exec.ErrNotFound
}

// newMachine is a home folder of the test's own, with an odd name and no system
// store.
func newMachine(t *testing.T) *Machine {
	home := filepath.Join(t.TempDir(), "home of [*] d'Artagnan")
	check(t, os.Mkdir(home, 0o700))
	return &Machine{Home: home, Files: filepath.Join(t.TempDir(), "trust"), Look: tools, System: &Store{Kind: System, Owner: "system"}}
}

// newRoot makes the root of a host; each call another one.
func newRoot(t testing.TB, host string) *x509.Certificate {
	t.Helper()
	store, err := roots.Open(t.TempDir(), nil)
	check(t, err)
	root, err := store.Get(host)
	check(t, err)
	return root.Certificate
}

// makeDatabase makes an NSS database below the home folder.
func (m *Machine) makeDatabase(t *testing.T, below string) Store {
	t.Helper()
	path := filepath.Join(m.Home, below)
	check(t, os.MkdirAll(path, 0o700))
	certutil(t, "-N", "-d", "sql:"+path, "--empty-password")
	return Store{Kind: NSS, Path: path, Owner: "test", Browser: chromiumName, Present: true}
}

// certutil runs the real one, as a person would.
func certutil(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("certutil", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("certutil %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (m *Machine) write(t *testing.T, below, text string) {
	t.Helper()
	path := filepath.Join(m.Home, below)
	check(t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(t, os.WriteFile(path, []byte(text), 0o600))
}
