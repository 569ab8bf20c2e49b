// Package tray_test runs the tray app in a real X server, with a real agent
// and a test card.
package tray_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/tests/programs"
)

func TestMain(m *testing.M) { programs.Main(m, "./cmd/kortti", "./cmd/kortti-tray") }

const testPIN = "1234"

func TestTrayAsksForThePIN(t *testing.T) {
	d := newDisplay(t)
	a := newAgent(t)
	a.tray(d, "unix:path=/nonexistent") // without a desktop's D-Bus
	d.window("Kortti")
	programs.Until(t, "the tray has said that it answers prompts", func() bool {
		_, err := a.client.Unlock(t.Context(), control.CardSelection{})
		return err == nil
	})
	pin := d.window("PIN")
	d.screenshot("tray-pin")
	d.do("xdotool", "windowfocus", "--sync", pin, "type", "--delay", "20", testPIN)
	d.do("xdotool", "key", "Return")
	programs.Until(t, "the card is unlocked", func() bool { return a.state() == control.Unlocked })
	d.untilGone("PIN")
	d.screenshot("tray-unlocked")
	if n := a.count("C_Login"); n != 1 {
		t.Errorf("one PIN entered should be one C_Login, not %d", n)
	}
	if err := a.client.Lock(t.Context(), control.CardSelection{}); err != nil {
		t.Fatal(err)
	}
	programs.Until(t, "the card is locked", func() bool { return a.state() == control.Locked })
}

func TestTrayWithoutDisplaySaysSo(t *testing.T) {
	tray := exec.Command(programs.Path("kortti-tray"))
	tray.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := tray.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "there is no display") {
		t.Errorf("without a display: %v\n%s", err, out)
	}
}

// agent is a running `kortti agent` with a test card.
type agent struct {
	t      *testing.T
	dir    string
	socket string
	client *control.Client
}

// newAgent starts one, with more settings than the card's.
func newAgent(t *testing.T, settings ...string) *agent {
	t.Helper()
	a := &agent{t: t, dir: t.TempDir()}
	a.socket = filepath.Join(a.dir, "agent.sock")
	out, err := exec.Command(programs.Path("kortti"), "testcard", "create", "--dir", a.dir+"/cards", "--pin", testPIN, "--json").Output()
	if err != nil {
		t.Fatalf("make a test card: %v", err)
	}
	var made struct{ Module string }
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[card]\nmodules = [%q]\n[proxy]\nlisten = \"127.0.0.1:0\"\n[control]\nsocket = %q\n", made.Module, a.socket) + strings.Join(settings, "")
	file := filepath.Join(a.dir, "kortti.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(programs.Path("kortti"), "agent", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+a.dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.client = control.New(a.socket)
	t.Cleanup(func() {
		a.client.Close()
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	programs.Until(t, "the agent sees the card", func() bool { return a.state() == control.Locked })
	return a
}

// tray starts the tray app of this agent's, in English, until the test ends.
func (a *agent) tray(d *display, bus string) *exec.Cmd {
	a.t.Helper()
	tray := exec.Command(programs.Path("kortti-tray"), "--socket", a.socket)
	tray.Env = append(os.Environ(), "DISPLAY="+d.name, "LC_ALL=en_GB.UTF-8", "DBUS_SESSION_BUS_ADDRESS="+bus, "HOME="+a.t.TempDir())
	d.background(tray)
	return tray
}

// state is the card's state; "" where there is none or no agent.
func (a *agent) state() control.State {
	s, err := a.client.Status(context.Background())
	if err != nil || len(s.Cards) != 1 {
		return ""
	}
	return s.Cards[0].State
}

// label is the card's, as menus show it.
func (a *agent) label() string {
	a.t.Helper()
	s, err := a.client.Status(context.Background())
	if err != nil || len(s.Cards) != 1 {
		a.t.Fatalf("%+v, %v", s.Cards, err)
	}
	return s.Cards[0].Label
}

// pull takes the card out of its reader, insert puts it back.
func (a *agent) pull()   { a.t.Helper(); a.testcard("pull") }
func (a *agent) insert() { a.t.Helper(); a.testcard("insert") }

func (a *agent) testcard(what string) {
	a.t.Helper()
	if out, err := exec.Command(programs.Path("kortti"), "testcard", what, "--dir", a.dir+"/cards").CombinedOutput(); err != nil {
		a.t.Fatalf("%v: %s", err, out)
	}
}

// count is one of the shim's counters.
func (a *agent) count(name string) uint64 {
	a.t.Helper()
	out, err := exec.Command(programs.Path("kortti"), "testcard", "list", "--dir", a.dir+"/cards", "--json").Output()
	if err != nil {
		a.t.Fatal(err)
	}
	var cards []struct{ Counts map[string]uint64 }
	if err := json.Unmarshal(out, &cards); err != nil || len(cards) != 1 {
		a.t.Fatalf("%v in %s", err, out)
	}
	return cards[0].Counts[name]
}
