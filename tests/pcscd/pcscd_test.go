package pcscd

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/tests/rootfs"
)

func TestMain(m *testing.M) { Main(m, rootfs.Bookworm, rootfs.Sid) }

// A room has a real service that can be killed and started again, its own OpenSC,
// and the package's folder.
func TestRoom(t *testing.T) {
	s := Start(t)
	out, err := exec.Command("opensc-tool", "--list-readers").CombinedOutput()
	if err != nil || !strings.Contains(string(out), Reader0) || !strings.Contains(string(out), Reader1) {
		t.Errorf("%v\n%s", err, out)
	}
	info, err := exec.Command("opensc-tool", "--info").CombinedOutput()
	want := map[rootfs.Suite]string{rootfs.Bookworm: "OpenSC 0.23", rootfs.Sid: "OpenSC 0.27"}[Room()]
	if err != nil || !strings.HasPrefix(string(info), want) {
		t.Errorf("%v\n%s", err, info)
	}
	if _, err := os.Stat("pcscd.go"); err != nil {
		t.Errorf("the working directory is not the package's: %v", err)
	}
	s.Stop()
	if out, err := exec.Command("opensc-tool", "--list-readers").CombinedOutput(); err == nil && strings.Contains(string(out), Reader0) {
		t.Errorf("there are readers without a service:\n%s", out)
	}
	Start(t)
}
