//go:build linux

package tray_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/tests/desktop"
	"github.com/kortti-id/kortti/tests/programs"
)

// The icon follows the card, and its menu unlocks it: by a person's keys in a real
// window, with one login. The panel goes and comes back.
func TestIcon(t *testing.T) {
	bus := desktop.NewBus(t)
	panel := bus.NewPanel()
	d := newDisplay(t)
	a := newAgent(t)
	tray := exec.Command(programs.Path("kortti-tray"), "--socket", a.socket)
	tray.Env = append(os.Environ(), "DISPLAY="+d.name, "LC_ALL=en_GB.UTF-8", "DBUS_SESSION_BUS_ADDRESS="+bus.Address, "HOME="+t.TempDir())
	d.background(tray)
	label := a.label()
	programs.Until(t, "the icon is there", panel.HasIcon)
	programs.Until(t, "the menu says that the card is ready", func() bool { return panel.Shows("The card is ready.") && panel.Shows("Unlock: "+label) })
	for _, page := range []string{"Cards", "Sites", "Activity", "Settings", "Problems", "Quit"} {
		if !panel.Shows(page) {
			t.Errorf("the menu has no %q: %+v", page, panel.Menu())
		}
	}
	ready := panel.Icon()

	panel.Click("Unlock: " + label)
	pin := d.window("PIN")
	d.do("xdotool", "windowfocus", "--sync", pin, "type", "--delay", "20", testPIN)
	d.do("xdotool", "key", "Return")
	programs.Until(t, "the card is unlocked", func() bool { return a.state() == control.Unlocked })
	programs.Until(t, "the menu says so", func() bool { return panel.Shows("The card is unlocked.") && panel.Shows("Lock: "+label) })
	unlocked := panel.Icon()
	if n := a.count("C_Login"); n != 1 {
		t.Errorf("one PIN entered should be one C_Login, not %d", n)
	}

	panel.Close()
	panel = bus.NewPanel()
	programs.Until(t, "the icon comes back with the panel", panel.HasIcon)
	if panel.Icon() != unlocked {
		t.Error("the icon is another one after the panel has come back")
	}

	a.pull()
	programs.Until(t, "the menu says that the card is gone", func() bool { return panel.Shows("No card in the reader.") || panel.Shows("No card reader was found.") })
	if none := panel.Icon(); none == ready || none == unlocked || ready == unlocked {
		t.Errorf("states share an icon: ready %.8s, unlocked %.8s, none %.8s", ready, unlocked, none)
	}

	panel.Click("Settings")
	d.window("Kortti")
	d.screenshot("tray-settings")
	panel.Click("Quit")
	if err := tray.Wait(); err != nil {
		t.Errorf("quitting ended in %v", err)
	}
}

// When the desktop's D-Bus goes, the tray goes on in its window.
func TestBusEnds(t *testing.T) {
	bus := desktop.NewBus(t)
	panel := bus.NewPanel()
	d := newDisplay(t)
	a := newAgent(t)
	tray := exec.Command(programs.Path("kortti-tray"), "--socket", a.socket)
	tray.Env = append(os.Environ(), "DISPLAY="+d.name, "LC_ALL=en_GB.UTF-8", "DBUS_SESSION_BUS_ADDRESS="+bus.Address, "HOME="+t.TempDir())
	d.background(tray)
	programs.Until(t, "the icon is there", panel.HasIcon)
	d.do("xdotool", "windowfocus", "--sync", d.window("Kortti"), "key", "alt+F4")
	d.untilGone("Kortti")
	bus.Stop()
	a.pull()
	d.window("Kortti")
	a.insert()
	programs.Until(t, "the card is back", func() bool { return a.state() == control.Locked })
	if _, err := a.client.Unlock(t.Context(), control.CardSelection{}); err != nil {
		t.Fatal(err)
	}
	d.do("xdotool", "windowfocus", "--sync", d.window("PIN"), "type", "--delay", "20", testPIN)
	d.do("xdotool", "key", "Return")
	programs.Until(t, "the card is unlocked", func() bool { return a.state() == control.Unlocked })
}
