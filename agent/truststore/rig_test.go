package truststore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// tools finds none but the tools: browsers of the machine that runs the tests
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

// twin is another root with the name and the constraint of one that is there.
func twin(t *testing.T, of *x509.Certificate) *x509.Certificate {
	t.Helper()
	return selfSigned(t, &x509.Certificate{
		Subject: of.Subject, PermittedDNSDomainsCritical: true, PermittedDNSDomains: of.PermittedDNSDomains,
	})
}

// stranger is a root of somebody else.
func stranger(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	return selfSigned(t, &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: []string{"Somebody"}}})
}

func selfSigned(t *testing.T, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.IsCA, template.BasicConstraintsValid = true, true
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	return c
}

// addByHand puts a certificate into a database as a person would.
func addByHand(t *testing.T, s Store, c *x509.Certificate, nickname, flags string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "by-hand.der")
	check(t, os.WriteFile(file, c.Raw, 0o600))
	certutil(t, "-A", "-d", "sql:"+s.Path, "-n", nickname, "-t", flags, "-i", file)
}

// list is what certutil shows of a database: nickname and flags, sorted.
func list(t *testing.T, s Store) []string {
	t.Helper()
	var out []string
	for _, r := range parseList([]byte(certutil(t, "-L", "-d", "sql:"+s.Path))) {
		out = append(out, r.nickname+" "+r.flags)
	}
	slices.Sort(out)
	return out
}

func wantList(t *testing.T, s Store, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := list(t, s); !slices.Equal(got, want) {
		t.Errorf("the database holds %q, want %q", got, want)
	}
}

// line is what list shows of a root that is as it should be.
func line(c *x509.Certificate) string { return nickname(c) + " C,," }

func all(Entry) bool { return true }

func ofHost(host string) func(Entry) bool {
	return func(e Entry) bool { return e.Host() == host }
}

func certs(list ...*x509.Certificate) []*x509.Certificate { return list }

// fake makes the machine use a script instead of certutil. $REAL is the real one.
func (m *Machine) fake(t *testing.T, script string) {
	t.Helper()
	real, err := exec.LookPath("certutil")
	check(t, err)
	path := filepath.Join(t.TempDir(), "certutil")
	check(t, os.WriteFile(path, []byte("#!/bin/sh\nREAL="+real+"\n"+script), 0o700))
	m.Look = func(name string) (string, error) {
		if name == "certutil" {
			return path, nil
		}
		return tools(name)
	}
}
