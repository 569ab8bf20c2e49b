package house

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a folder that is all of PATH: real tools by link, others as fakes.
type machine struct {
	t   *testing.T
	bin string
}

func newMachine(t *testing.T, fakes map[string]string) *machine {
	t.Helper()
	m := &machine{t, t.TempDir()}
	for _, tool := range []string{"sh", "awk", "cat", "dirname", "env", "grep", "head", "mktemp", "rm", "sed", "sort", "tail", "tr"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(m.bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range fakes {
		if err := os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// run runs one of the scripts in tests/setup, which must end with that code.
func (m *machine) run(code int, script string, args ...string) (stdout, stderr string) {
	m.t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(sh, append([]string{filepath.Join("..", "setup", script)}, args...)...)
	cmd.Env = []string{"PATH=" + m.bin, "CALLS=" + filepath.Join(m.bin, "calls"), "TMPDIR=" + m.t.TempDir()}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		m.t.Errorf("%s: exit code %d, want %d\n%s%s", script, got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// calls is what the fakes wrote down.
func (m *machine) calls() string {
	b, err := os.ReadFile(filepath.Join(m.bin, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(b)
}

func TestSetupScriptsArePlainShell(t *testing.T) {
	scripts, err := filepath.Glob("../setup/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	shells := []string{"sh"}
	if _, err := exec.LookPath("dash"); err == nil {
		shells = append(shells, "dash")
	}
	for _, script := range scripts {
		for _, shell := range shells {
			if out, err := exec.Command(shell, "-n", script).CombinedOutput(); err != nil {
				t.Errorf("%s -n %s: %v\n%s", shell, script, err, out)
			}
		}
	}
}

func TestGoVersionIsChecked(t *testing.T) {
	gomod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var minor int // of the Go that go.mod asks for
	if _, err := fmt.Sscanf(string(gomod[bytes.Index(gomod, []byte("\ngo 1.")):]), "\ngo 1.%d", &minor); err != nil {
		t.Fatal(err)
	}
	need, before := fmt.Sprintf("1.%d", minor), fmt.Sprintf("1.%d.9", minor-1)
	for name, tt := range map[string]struct {
		version string // what go says; "" = no go
		code    int
		want    string
	}{
		"none":        {"", 1, "Kortti needs Go NEED or newer, and no 'go' was found.\nInstall it from https://go.dev/dl and put its bin folder on PATH.\n"},
		"old":         {"go version go1.19 linux/amd64", 1, "Kortti needs Go NEED or newer, and this machine has Go 1.19 (BIN/go).\nInstall a newer one from https://go.dev/dl and put its bin folder first on PATH.\n"},
		"a little":    {"go version go" + before + " linux/amd64", 1, "this machine has Go " + before + " ("},
		"broken":      {"what?", 1, "this machine has Go of an unknown version ("},
		"right":       {"go version go" + need + ".0 linux/amd64", 0, ""},
		"newer":       {"go version go1.100.1 linux/amd64", 0, ""},
		"development": {"go version go1.100-devel_0123456 Mon Nov 23 linux/amd64", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fakes := map[string]string{}
			if tt.version != "" {
				fakes["go"] = `[ "$*" = version ] && [ "$GOTOOLCHAIN" = local ] && echo "` + tt.version + `"`
			}
			m := newMachine(t, fakes)
			stdout, stderr := m.run(tt.code, "go.sh")
			stderr = strings.NewReplacer(m.bin, "BIN", "Go "+need+" or", "Go NEED or").Replace(stderr)
			if stdout != "" || !strings.Contains(stderr, tt.want) || tt.want == "" && stderr != "" {
				t.Errorf("want %q, got:\n%s%s", tt.want, stdout, stderr)
			}
		})
	}
}

// Fakes of a Debian machine. Those of apt-get and sudo write down their calls.
const (
	noPackages   = `exit 1`
	allPackages  = `echo installed`
	aptGet       = `echo "apt-get $*" >>"$CALLS"`
	root, person = `echo 0`, `echo 1000`
)

func TestPackagesAreInstalledAfterAWord(t *testing.T) {
	m := newMachine(t, map[string]string{"dpkg-query": noPackages, "apt-get": aptGet, "id": root})
	stdout, stderr := m.run(0, "packages.sh", "demo")
	if want := "Installing packages to build the programs (C compiler) and to run the demo (SoftHSM test cards, curl):\n  gcc libc6-dev libsofthsm2 curl ca-certificates\n"; stdout != want || stderr != "" {
		t.Errorf("want %q, got:\n%s%s", want, stdout, stderr)
	}
	if want := "apt-get -q -y -o Dpkg::Use-Pty=0 update\napt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends gcc libc6-dev libsofthsm2 curl ca-certificates\n"; m.calls() != want {
		t.Errorf("want %q, got %q", want, m.calls())
	}

	m = newMachine(t, map[string]string{"dpkg-query": noPackages, "apt-get": aptGet, "id": person, "sudo": `echo sudo >>"$CALLS"; exec "$@"`})
	m.run(0, "packages.sh", "demo")
	if strings.Count(m.calls(), "sudo\napt-get") != 2 {
		t.Errorf("not by sudo: %q", m.calls())
	}
}

func TestNothingIsInstalledWhenAllIsThere(t *testing.T) {
	for _, target := range []string{"demo", "test"} {
		m := newMachine(t, map[string]string{"dpkg-query": allPackages, "apt-get": aptGet, "id": person})
		if stdout, stderr := m.run(0, "packages.sh", target); stdout+stderr+m.calls() != "" {
			t.Errorf("%s: %s%s%s", target, stdout, stderr, m.calls())
		}
	}
}

func TestPackagesThatCannotBeInstalled(t *testing.T) {
	for name, tt := range map[string]struct {
		fakes  map[string]string
		target string
		code   int
		want   string
	}{
		"wrong use": {nil, "all", 2, "use: packages.sh demo | test\n"},
		"no apt-get": {nil, "demo", 1, "Packages are needed to build the programs (C compiler) and to run the demo (SoftHSM test cards, curl),\n" +
			"but this machine has no apt-get to install them with. Install what Debian calls:\n  gcc libc6-dev libsofthsm2 curl ca-certificates\n"},
		"no apt-get, but the tools": {map[string]string{"cc": "", "curl": ""}, "demo", 0, ""},
		"neither root nor sudo": {map[string]string{"dpkg-query": noPackages, "apt-get": aptGet, "id": person}, "demo", 1,
			"Packages are needed to build the programs (C compiler) and to run the demo (SoftHSM test cards, curl),\n" +
				"but you are not root and there is no sudo. Have them installed:\n  apt-get install gcc libc6-dev libsofthsm2 curl ca-certificates\n"},
		"apt-get fails": {map[string]string{"dpkg-query": noPackages, "apt-get": `echo "E: Unable to locate package gcc" >&2; exit 100`, "id": root}, "demo", 1,
			"E: Unable to locate package gcc\nE: Unable to locate package gcc\nThe packages could not be installed. The lines above say why; then run the same command again.\n"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, tt.fakes)
			if _, stderr := m.run(tt.code, "packages.sh", tt.target); stderr != tt.want || m.calls() != "" {
				t.Errorf("want %q, got:\n%s%s", tt.want, stderr, m.calls())
			}
		})
	}
}
