package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestChildrenAreHardened looks at the processes that hold PKCS#11 modules while
// the card is unlocked: nothing of the person's environment that makes modules
// talk or load other code reaches them, and a crash leaves no memory on disk.
func TestChildrenAreHardened(t *testing.T) {
	watched := []string{"OPENSC_DEBUG", "PKCS11SPY", "LD_LIBRARY_PATH", "LD_PRELOAD", "P11_KIT_DEBUG"}
	for _, name := range watched {
		if name != "LD_PRELOAD" { // the programs of the test would look for it
			t.Setenv(name, "/nonexistent")
		}
	}
	w := newWorld(t, "consent = \"always\"\n")
	w.unlockNow(t)
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	check(t, err)
	var children []string
	for _, path := range tasks {
		if list, err := os.ReadFile(path); err == nil { // else the thread has ended
			children = append(children, strings.Fields(string(list))...)
		}
	}
	looked := 0
	for _, pid := range children {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%s/limits", pid))
		if err != nil {
			continue // a lister that has ended
		}
		looked++
		if !slices.ContainsFunc(strings.Split(string(limits), "\n"), func(line string) bool {
			f := strings.Fields(strings.TrimPrefix(line, "Max core file size"))
			return strings.HasPrefix(line, "Max core file size") && len(f) > 1 && f[0] == "0" && f[1] == "0"
		}) {
			t.Errorf("a child may leave its memory in a file:\n%s", limits)
		}
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%s/environ", pid))
		if err != nil {
			continue // it has ended meanwhile
		}
		for _, v := range strings.Split(string(environment), "\x00") {
			if name, _, _ := strings.Cut(v, "="); slices.Contains(watched, name) {
				t.Errorf("a child has %s", v)
			}
		}
		if in, err := os.Readlink(fmt.Sprintf("/proc/%s/fd/0", pid)); err == nil && in != os.DevNull {
			t.Errorf("a child reads %s", in)
		}
	}
	if looked == 0 {
		t.Error("an unlocked card without a signer")
	}
}
