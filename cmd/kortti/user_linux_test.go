package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// stranger is another user of the machine: nobody.
const stranger = 65534

// A second user of the machine gets nothing: neither from the proxy, for listed
// hosts or others, nor from the control socket, even where somebody opened up
// its modes. What the same programs get as the agent's own user shows that the
// refusal is for who they are.
func TestSecondUserGetsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("not run: needs root, to start programs of another user")
		return
	}
	r := startAgent(t, "[[host]]\nname = \"card.kortti.test\"\naddress = \"127.0.0.1:1\"\nconsent = \"always\"\n")
	for path := r.socket; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := as(stranger, "test", "-w", r.socket); err != nil {
		t.Fatalf("the file modes still keep others out, so this test could see nothing: %v %s", err, out)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("open to all")) }))
	t.Cleanup(other.Close)

	viaProxy := []string{"--proxy", "http://" + r.proxy, "--noproxy", ""}
	for _, tt := range []struct {
		what string
		args []string
		own  string // in what the agent's own user gets
	}{
		{"a listed host", append(viaProxy, "--insecure", "https://card.kortti.test/"), "kortti: "},
		{"another host, tunnelled", append(viaProxy, "--proxytunnel", other.URL), "open to all"},
		{"another host, plain", append(viaProxy, other.URL), "open to all"},
		{"the proxy's own pages", []string{"http://" + r.proxy + "/proxy.pac"}, "FindProxyForURL"},
		{"the control socket", []string{"--unix-socket", r.socket, "http://kortti/v1/status"}, `"pid"`},
		{"the cards", []string{"--unix-socket", r.socket, "http://kortti/v1/cards"}, `"certificates"`},
	} {
		own, err := curl(0, tt.args)
		if !strings.Contains(own, tt.own) {
			t.Errorf("%s, own user: %v\n%s", tt.what, err, own)
		}
		got, err := curl(stranger, tt.args)
		t.Logf("%s, another user: %v %s", tt.what, err, got)
		if strings.Contains(got, tt.own) || err == nil && !strings.Contains(got, "403") {
			t.Errorf("%s, another user: %v\n%s", tt.what, err, got)
		}
	}
	if conn, err := net.Dial("unix", r.socket); err != nil {
		t.Errorf("the agent's own user can no longer connect: %v", err)
	} else {
		conn.Close()
	}
}

// curl runs curl as a user; what it prints ends with the status of the answer
// and of the proxy's.
func curl(uid uint32, args []string) (string, error) {
	return as(uid, "curl", append([]string{"--silent", "--show-error", "--max-time", "20", "--write-out", " %{http_code} %{http_connect}"}, args...)...)
}

func as(uid uint32, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
