package rootfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/tests/rootfs"
)

func TestCommandRunsInTheRootFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := rootfs.Command(t.Context(), t, dir, "sh", "-c",
		"cat "+rootfs.Shared+"/in; echo; echo from inside > "+rootfs.Shared+"/out; nginx -v 2>&1; echo pid $$").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"from outside", "nginx version", "pid 1\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(got) != "from inside\n" {
		t.Errorf("the shared folder did not bring the file out: %q, %v", got, err)
	}
}
