package truststore

import (
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// debian is a system store below a folder of the test's own, with Debian's real
// update-ca-certificates.
func debian(t *testing.T) (s Store, certsDir string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"anchors", "certs", "hooks"} {
		check(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	check(t, os.WriteFile(filepath.Join(dir, "conf"), []byte("# none\n"), 0o644))
	certsDir = filepath.Join(dir, "certs")
	real := systems[len(systems)-1]
	return Store{
		Kind: System, Path: filepath.Join(dir, "anchors"), Owner: real.owner, Present: true,
		update: append(slices.Clone(real.update), "--localcertsdir", filepath.Join(dir, "anchors"), "--etccertsdir", certsDir,
			"--certsconf", filepath.Join(dir, "conf"), "--hooksdir", filepath.Join(dir, "hooks")),
	}, certsDir
}

// finish does what root has to do where the tests are not run by root.
func finish(t *testing.T, r Result) {
	t.Helper()
	if os.Geteuid() == 0 && len(r.Commands) > 0 {
		t.Errorf("root left to do: %v", r.Commands)
	}
	for _, c := range r.Commands {
		path, err := tools(c.Argv[0])
		check(t, err)
		if out, err := exec.Command(path, c.Argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
}

func TestSystem(t *testing.T) {
	m := newMachine(t)
	s, certsDir := debian(t)
	bundle := func() string {
		text, err := os.ReadFile(filepath.Join(certsDir, "ca-certificates.crt"))
		check(t, err)
		return string(text)
	}
	other := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger(t, "Company").Raw}))
	check(t, os.WriteFile(filepath.Join(s.Path, "company.crt"), []byte(other), 0o644))

	old, now := newRoot(t, "a.test"), newRoot(t, "a.test")
	r, err := m.Install(within(t), s, certs(old, newRoot(t, "*.b.test")), false)
	check(t, err)
	finish(t, r)
	if got := strings.Count(bundle(), "BEGIN CERTIFICATE"); got != 3 || len(r.Added) != 2 {
		t.Errorf("%d certificates in the bundle: %+v", got, r)
	}
	// The same root a second time under another name, as made by hand.
	oldPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Raw}))
	check(t, os.WriteFile(filepath.Join(s.Path, "mine.crt"), []byte(oldPEM), 0o644))
	// A bundle of somebody's that holds ours too is theirs.
	check(t, os.WriteFile(filepath.Join(s.Path, "zz-both.crt"), []byte(other+oldPEM), 0o644))

	r, err = m.Install(within(t), s, certs(now), false)
	check(t, err)
	finish(t, r)
	if len(r.Removed) != 2 || len(r.Added) != 1 {
		t.Errorf("%+v", r)
	}
	r, err = m.Uninstall(within(t), s, all, false)
	check(t, err)
	finish(t, r)
	if len(r.Removed) != 2 {
		t.Errorf("%+v", r)
	}
	left, err := os.ReadDir(s.Path)
	check(t, err)
	if len(left) != 2 || bundle() != other+other+oldPEM {
		t.Errorf("left: %v\n%s", left, bundle())
	}
	links, err := os.ReadDir(certsDir)
	check(t, err)
	for _, l := range links {
		if strings.Contains(l.Name(), "kortti") || strings.Contains(l.Name(), "mine") {
			t.Errorf("left: %s", l.Name())
		}
	}
}

// Whoever is not root is told what root must run.
func TestSystemAsAnotherUser(t *testing.T) {
	m := newMachine(t)
	s, _ := debian(t)
	var r Result
	var err error
	a := newRoot(t, "a.test")
	asNobody(t, m, func() { r, err = m.Install(within(t), s, certs(a), false) })
	check(t, err)
	if r.Done || len(r.Commands) != 2 || !strings.HasPrefix(r.Commands[0].String(), "sudo install -m 644 ") ||
		!strings.HasPrefix(r.Commands[1].String(), "sudo update-ca-certificates --fresh") {
		t.Errorf("%+v", r)
	}
	if left, _ := os.ReadDir(s.Path); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestNoSystemStore(t *testing.T) {
	m := newMachine(t)
	if _, err := m.Install(within(t), *m.System, certs(newRoot(t, "a.test")), false); !errors.Is(err, ErrSystem) || Hint(err) == "" {
		t.Errorf("err = %v", err)
	}
	r, err := m.Uninstall(within(t), *m.System, all, false)
	if err != nil || len(r.Removed) != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestTidy(t *testing.T) {
	m := newMachine(t)
	a, b := newRoot(t, "a.test"), newRoot(t, "::1")
	for _, c := range certs(a, b) {
		_, err := m.file(c)
		check(t, err)
	}
	check(t, os.WriteFile(filepath.Join(m.Files, "mine.txt"), nil, 0o600))
	m.Tidy(certs(b))
	left, err := os.ReadDir(m.Files)
	check(t, err)
	if len(left) != 2 || left[0].Name() != fileName(b) {
		t.Errorf("%v", left)
	}
}
