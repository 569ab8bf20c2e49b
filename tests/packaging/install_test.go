// Package packaging_test installs Kortti as a person does, below a folder of the
// test's own.
package packaging_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/tests/programs"
)

// files are those below a folder.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all = append(all, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInstall(t *testing.T) {
	root, home := t.TempDir(), t.TempDir()
	run := func(target string) string {
		t.Helper()
		cmd := exec.Command("make", "--no-print-directory", target)
		cmd.Dir = programs.Root()
		cmd.Env = append(os.Environ(), "DESTDIR="+root, "PREFIX=/home/liisa/.local", "AUTOSTART=/home/liisa/.config/autostart", "MAKEFLAGS=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
		return string(out)
	}
	run("install")
	first := files(t, root)
	run("install")
	if again := files(t, root); !slices.Equal(first, again) || len(first) < 11 {
		t.Errorf("installed %v, and again %v", first, again)
	}
	prefix := filepath.Join(root, "home/liisa/.local")
	for _, name := range []string{"kortti", "kortti-server", "kortti-tray"} {
		args := []string{"version"}
		if name == "kortti-tray" {
			args = []string{"-h"}
		}
		cmd := exec.Command(filepath.Join(prefix, "bin", name), args...)
		cmd.Env = []string{"HOME=" + home}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for _, name := range []string{"share/man/man1/kortti.1", "share/man/man5/kortti.toml.5"} {
		text, err := os.ReadFile(filepath.Join(prefix, name))
		if err != nil || !strings.Contains(string(text), ".TH ") {
			t.Errorf("%s is no manual page: %v", name, err)
		}
	}
	for _, name := range []string{"home/liisa/.local/share/applications", "home/liisa/.config/autostart"} {
		entry, err := os.ReadFile(filepath.Join(root, name, "id.kortti.tray.desktop"))
		if err != nil || !strings.Contains(string(entry), "\nExec=/home/liisa/.local/bin/kortti-tray\n") {
			t.Errorf("%s starts another program: %v\n%s", name, err, entry)
		}
	}
	run("uninstall")
	if left := files(t, root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if made := files(t, home); len(made) > 0 {
		t.Errorf("made in the home: %v", made)
	}
}
