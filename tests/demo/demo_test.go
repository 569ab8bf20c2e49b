// Package demo_test runs `kortti demo`, which is `make demo`, as a person would.
package demo_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/tests/programs"
)

func TestMain(m *testing.M) {
	programs.Main(m, "./cmd/kortti", "./cmd/kortti-server", "./examples/relyingparty")
}

// The demo's last line is what outsiders rely on.
var lastLine = regexp.MustCompile(`^demo: ok user=(\S+) signatures=(\d+) requests=(\d+)$`)

func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	cmd := demo(tmp)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	t.Logf("the demo took %v and said:\n%s", time.Since(began).Round(100*time.Millisecond), out.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	m := lastLine.FindStringSubmatch(lines[len(lines)-1])
	if m == nil {
		t.Fatalf("the last line is %q", lines[len(lines)-1])
	}
	if _, err := fineid.ParseSATU(m[1]); err != nil {
		t.Errorf("the user is no SATU: %v", err)
	}
	if m[2] != "2" {
		t.Errorf("two hosts should cost two signatures, not %s", m[2])
	}
	var requests int
	if _, err := fmt.Sscan(m[3], &requests); err != nil || requests < 50 {
		t.Errorf("the demo should make at least 50 requests, not %s", m[3])
	}
	nothingLeft(t, tmp)
}

// The demo leaves nothing behind wherever it is interrupted: each line that it
// prints is a place to stop.
func TestDemoInterrupted(t *testing.T) {
	for _, tt := range []struct {
		after  string
		signal os.Signal
	}{
		{"PKI", os.Interrupt},
		{"card", syscall.SIGTERM},
		{"agent", os.Interrupt},
		{"curl", os.Interrupt},
		{"pull", syscall.SIGTERM},
	} {
		t.Run(tt.after, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			cmd := demo(tmp)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out := begin(t, cmd)
			for out.Scan() {
				if strings.HasPrefix(out.Text(), tt.after+" ") {
					_ = cmd.Process.Signal(tt.signal)
					break
				}
			}
			for out.Scan() { // drain it
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("an interrupted demo should exit with 1, not %v", cmd.ProcessState)
			}
			if !strings.Contains(errs.String(), "interrupted") {
				t.Errorf("it does not say that it was interrupted: %s", errs.String())
			}
			nothingLeft(t, tmp)
		})
	}
}

func TestDemoKeeps(t *testing.T) {
	tmp := t.TempDir()
	cmd := demo(tmp, "--keep")
	cmd.Stderr = os.Stderr
	out := begin(t, cmd)
	var socket, proxy, prompt string
	var commands []string // those of the third terminal
	for out.Scan() {
		if line, indented := strings.CutPrefix(out.Text(), "  "); indented && strings.Contains(line, " prompt ") {
			prompt = line
		} else if indented && prompt != "" {
			commands = append(commands, line)
		}
		if f := strings.Fields(out.Text()); len(f) == 3 && f[0] == "control" && f[1] == "socket" {
			socket = f[2]
		} else if len(f) == 2 && f[0] == "proxy" {
			proxy = f[1]
		}
		if strings.HasPrefix(out.Text(), "A browser needs") {
			break
		}
	}
	status, err := exec.Command(programs.Path("kortti"), "status", "--socket", socket).CombinedOutput()
	if err != nil || !strings.Contains(string(status), proxy) {
		t.Errorf("`kortti status --socket %s` says: %s (%v)", socket, status, err)
	}
	if answer := followed(t, prompt, commands); !strings.HasSuffix(answer, "Hello, Liisa Specimen-Kortti!\n") {
		t.Errorf("what the demo says to do ends with %q:\n%s", answer, strings.Join(commands, "\n"))
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for out.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("a demo that was kept and then ended should exit with 0: %v", err)
	}
	nothingLeft(t, tmp)
}

// followed does what the demo says: prompt in one terminal, with the PIN, and
// the commands in another. It returns what these print.
func followed(t *testing.T, prompt string, commands []string) string {
	t.Helper()
	front := exec.Command("sh", "-c", "exec "+prompt)
	front.Stdin = strings.NewReader("1234\n")
	says, err := front.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := front.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(says)
	if !lines.Scan() { // it is waiting for questions
		t.Errorf("%q says nothing", prompt)
	}
	answer, err := exec.Command("sh", "-ec", strings.Join(commands, "\n")).Output()
	if err != nil {
		t.Error(err)
	}
	_ = front.Process.Kill()
	for lines.Scan() {
	}
	_ = front.Wait()
	return string(answer)
}

// Killed outright, the demo cannot tidy up its folder, but no program of it
// may live on.
func TestDemoKilled(t *testing.T) {
	tmp := t.TempDir()
	cmd := demo(tmp, "--keep")
	out := begin(t, cmd)
	for out.Scan() && !strings.HasPrefix(out.Text(), "A browser needs") {
	}
	if len(using(t, tmp)) == 0 {
		t.Fatal("no program of the demo was found, so this test can see nothing")
	}
	_ = cmd.Process.Kill()
	for out.Scan() {
	}
	_ = cmd.Wait()
	waitGone(t, tmp)
}

func TestMissingProgramIsNamed(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile(programs.Path("kortti"))
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(dir, "kortti")
	if err := os.WriteFile(alone, b, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(alone, "demo").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make build") {
		t.Errorf("a missing program should be named with what to do: %v\n%s", err, out)
	}
}

// What a machine may lack is named before anything is built on it, with the
// package that brings it.
func TestMissingPackageIsNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		programs []string // what PATH still has
		hide     string   // folders that look empty
		want     string
	}{
		"C compiler": {programs: []string{"curl"}, want: "kortti demo: kortti testcard: test cards need a C compiler (cc), which is not installed: install the packages gcc and libc6-dev (Debian: apt install gcc libc6-dev)\n"},
		"curl":       {programs: []string{"cc"}, want: "kortti demo: the demo logs in with curl, which is not installed: install the package curl (Debian: apt install curl)\n"},
		"SoftHSM":    {programs: []string{"cc", "curl"}, hide: "/usr/lib*/softhsm /usr/lib/*/softhsm", want: "kortti demo: kortti testcard: test cards need SoftHSM (libsofthsm2.so), which is not installed: install the package softhsm2 (Debian: apt install softhsm2)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			tmp, bin, cache := t.TempDir(), t.TempDir(), t.TempDir()
			for _, program := range tt.programs {
				path, err := exec.LookPath(program)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, program)); err != nil {
					t.Fatal(err)
				}
			}
			cmd := demo(tmp)
			if tt.hide != "" { // in a mount namespace of its own
				const hide = `for d in $1; do [ ! -d "$d" ] || mount -t tmpfs tmpfs "$d" || exit; done; PATH=$2 exec "$3" demo`
				args := []string{"--mount", "sh", "-c", hide, "sh", tt.hide, bin, programs.Path("kortti")}
				if os.Getuid() != 0 {
					args = append([]string{"--map-root-user"}, args...)
				}
				inside := exec.Command("unshare", args...)
				inside.Env = cmd.Env
				cmd = inside
			} else {
				cmd.Env = append(cmd.Env, "PATH="+bin)
			}
			cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+cache)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || errs.String() != tt.want {
				t.Errorf("%v; want %q, got:\n%s", cmd.ProcessState, tt.want, errs.String())
			}
			nothingLeft(t, tmp)
		})
	}
}

func demo(tmp string, args ...string) *exec.Cmd {
	cmd := exec.Command(programs.Path("kortti"), append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	return cmd
}

func begin(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return bufio.NewScanner(out)
}

func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	waitGone(t, tmp)
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("left behind: %s", e.Name())
	}
}

// waitGone waits until no process works in the demo's folder any more.
func waitGone(t *testing.T, tmp string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		left := using(t, tmp)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running:\n%s", strings.Join(left, "\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// using lists the processes whose folder, or whose words, are under tmp.
func using(t *testing.T, tmp string) (found []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		words, _ := os.ReadFile(dir + "/cmdline")
		cwd, _ := os.Readlink(dir + "/cwd")
		if strings.HasPrefix(cwd, tmp) || bytes.Contains(words, []byte(tmp)) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(words), "\x00", " "))
		}
	}
	return found
}
