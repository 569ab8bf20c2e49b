package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/softhsm"
)

// patience bounds the wait for what must come.
const patience = 20 * time.Second

// running is a real agent, a process of its own, with a test card.
type running struct {
	dir, socket, proxy string
	client             *control.Client
	card               *softhsm.Card
	log                strings.Builder // of the agent, when it has ended
}

// startAgent makes a test card and runs `kortti agent` with it, and with hosts
// in its configuration, until the test ends.
func startAgent(t *testing.T, hosts string) *running {
	t.Helper()
	r := &running{dir: t.TempDir()}
	r.run(t, "testcard", "create", "--dir", filepath.Join(r.dir, "cards"))
	var err error
	if r.card, err = softhsm.Open(filepath.Join(r.dir, "cards", "card")); err != nil {
		t.Fatal(err)
	}
	r.socket = filepath.Join(r.dir, "run", "agent.sock")
	config := filepath.Join(r.dir, "kortti.toml")
	text := fmt.Sprintf("[proxy]\nlisten = \"127.0.0.1:0\"\n[control]\nsocket = %q\n[card]\nmodules = [%q]\n%s", r.socket, r.card.Module(), hosts)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := r.command("agent", "-v", "--config", config)
	agent.Stderr = &r.log
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that is killed leaves none behind
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		if err := agent.Wait(); err != nil || t.Failed() {
			t.Errorf("the agent: %v\n%s", err, r.log.String())
		}
	})
	r.client = control.New(r.socket)
	t.Cleanup(r.client.Close)
	eventually(t, "the agent is ready", func() bool {
		status, err := r.client.Status(t.Context())
		r.proxy = status.Proxy
		return err == nil && len(status.Cards) == 1
	})
	return r
}

// command is kortti with the test's folder as its home.
func (r *running) command(args ...string) *exec.Cmd {
	cmd := exec.Command("kortti", args...)
	cache, err := os.UserCacheDir()
	if err == nil {
		cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+cache) // the compiled shim
	}
	cmd.Env = append(cmd.Env, "HOME="+r.dir, "PATH="+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
	return cmd
}

func (r *running) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kortti %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// logins is how often the card was asked for its PIN.
func (r *running) logins(t *testing.T) uint64 {
	t.Helper()
	counts, err := r.card.Counts()
	if err != nil {
		t.Fatal(err)
	}
	return counts["C_Login"]
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("this never came: %s", what)
		}
	}
}
