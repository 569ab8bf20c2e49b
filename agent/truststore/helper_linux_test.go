package truststore

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// asNobody runs f as a user that may not do everything: in a thread of its own,
// which ends with it. What f starts runs as that user too. f makes no folders of
// the test's.
func asNobody(t *testing.T, m *Machine, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	for folder := m.Home; folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		check(t, os.Chmod(folder, 0o755))
	}
	check(t, os.MkdirAll(m.Files, 0o755))
	check(t, os.Chown(m.Files, nobody, nobody))
	for folder := filepath.Dir(m.Files); folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		check(t, os.Chmod(folder, 0o755))
	}
	done := make(chan unix.Errno)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		defer func() { done <- errno }() // also where f ends the goroutine
		if errno == 0 {
			f()
		}
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

func runShell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func waitForPID(t *testing.T, file string) (pid int) {
	t.Helper()
	waitFor(t, file, func() bool { return exists(file) })
	text, err := os.ReadFile(file)
	check(t, err)
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	check(t, err)
	return pid
}

// isZombie says whether a process has ended and nobody has asked for it yet.
func isZombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// A browser is told by the name of its program.
func TestRunning(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	check(t, err)
	program, err := os.ReadFile(sleep)
	check(t, err)
	path := filepath.Join(t.TempDir(), "waterfox-bin")
	check(t, os.WriteFile(path, program, 0o700))
	runs := func() bool { return strings.Contains(strings.Join(Running(), " "), "Waterfox") }
	if runs() {
		t.Fatal("a Waterfox runs on this machine")
	}
	cmd := exec.Command(path, "1000")
	check(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if !runs() {
		t.Errorf("not seen: %q", Running())
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "a", "a b", "it's", "$HOME", "`x`", "a\nb", `\`, "*", "Työ", "~", "-n", "a=b", "sql:/home/x y/.pki"} {
		out, err := exec.Command("sh", "-c", "printf %s "+quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q is %q for a shell: %v", s, out, err)
		}
	}
}
