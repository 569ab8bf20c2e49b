package main

import (
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// kortti prompt --pinentry asks by the real pinentry-curses, on its terminal.
func TestPinentryOnATerminal(t *testing.T) {
	r := startAgent(t, "[[host]]\nname = \"card.kortti.test\"\naddress = \"127.0.0.1:1\"\nconsent = \"ask\"\n")
	cmd := r.command("prompt", "--socket", r.socket, "--pinentry=pinentry-curses")
	cmd.Env = append(cmd.Env, "TERM=xterm", "LC_ALL=C.UTF-8")
	s := onTerminal(t, cmd)
	s.waitFor("Waiting for the agent's questions")
	raise := func() {
		t.Helper()
		if _, err := r.client.Unlock(t.Context(), control.CardSelection{}); err != nil {
			t.Fatal(err)
		}
	}
	asked := func(n int) {
		t.Helper()
		eventually(t, "a question", func() bool { return strings.Count(s.text(), "PIN of") == n })
	}
	// What is typed before the program has finished drawing it throws away.
	answer := func(keys, until string) {
		t.Helper()
		typed := time.Time{}
		eventually(t, until, func() bool {
			if time.Since(typed) > time.Second && !strings.Contains(s.text(), until) {
				s.enter(keys)
				typed = time.Now()
			}
			return strings.Contains(s.text(), until)
		})
	}
	raise()
	asked(1)
	answer("9999\r", "wrong PIN")
	raise()
	asked(2)
	answer("1234\r", "The card is unlocked.")
	if n := r.logins(t); n != 2 {
		t.Errorf("%d logins", n)
	}

	// A question that is closed elsewhere goes from the screen.
	var requests sync.WaitGroup
	requests.Go(func() {
		curl := exec.Command("curl", "-sS", "-k", "--max-time", "60", "--proxy", "http://"+r.proxy, "https://card.kortti.test/")
		out, _ := curl.CombinedOutput()
		t.Logf("curl: %s", out)
	})
	s.waitFor("card.kortti.test?")
	if err := r.card.Pull(); err != nil {
		t.Fatal(err)
	}
	s.waitFor("the question is not open any more")
	requests.Wait()
	eventually(t, "the terminal as it was", s.echoes)
	s.enter("\x03")
	s.end(exitDone, "^C")
}

// A pinentry program that cannot be used is told of before anybody waits for it.
func TestPinentryThatIsNone(t *testing.T) {
	r := startAgent(t, "")
	cmd := r.command("prompt", "--socket", r.socket, "--pinentry")
	cmd.Env = append(cmd.Env, "KORTTI_PINENTRY=/nonexistent/pinentry")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "start pinentry") || !strings.Contains(string(out), "Install one, such as pinentry-gnome3") {
		t.Errorf("%v %s", err, out)
	}
}
