package proxy

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A real program of another user. Only root can start one; for anybody else
// package peer's tests stand in with another number.
func TestOtherUsersCurlIsRefused(t *testing.T) {
	r := newRig(t, never(t))
	curl := exec.Command("curl", "--silent", "--max-time", "20", "--noproxy", "", "--proxy", "http://"+r.addr, "--write-out", "%{http_connect} %{errormsg}", "https://card.test/")
	curl.Dir = "/"
	want := "200 " // our own, with no trust in the root
	if syscall.Getuid() == 0 {
		curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		want = "403 "
	}
	out, err := curl.Output()
	if err == nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v %s", err, out)
	}
}
