//go:build linux

package tray_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/fineid/fineidtest"
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
	tray := a.tray(d, bus.Address)
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

const site = "asiointi.kortti.test"

// A program's first login: the windows ask for consent, for a certificate and for
// the PIN, keys answer, the site knows the holder, and the card that is pulled ends it.
func TestLogin(t *testing.T) {
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pki.ServerCert(site)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pki.WebRootsPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := desktop.NewBus(t)
	panel := bus.NewPanel()
	d := newDisplay(t)
	a := newAgent(t, fmt.Sprintf("[[host]]\nname = %q\naddress = %q\ntls_roots = %q\n", site, server.Listener.Addr(), roots))
	a.tray(d, bus.Address)
	programs.Until(t, "the card is ready", func() bool { return panel.HasIcon() && panel.Shows("The card is ready.") })
	ready := panel.Icon()

	program := a.program()
	type result struct {
		name string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		name, err := get(program)
		done <- result{name, err}
	}()
	consent := d.window("May it use your card.")
	d.screenshot("tray-consent")
	d.do("xdotool", "windowfocus", "--sync", consent, "key", "--delay", "50", "Return", "Tab", "Tab", "Tab", "space")
	choice := d.window("Which certificate.") // the site names no issuers, so nothing is chosen for the person
	d.screenshot("tray-choice")
	d.do("xdotool", "windowfocus", "--sync", choice, "key", "--delay", "50", "Tab", "space", "Tab", "Tab", "space")
	pin := d.window("PIN")
	d.do("xdotool", "windowfocus", "--sync", pin, "type", "--delay", "20", testPIN)
	d.do("xdotool", "key", "Return")
	if r := <-done; r.err != nil || !strings.Contains(r.name, "SPECIMEN-KORTTI") {
		t.Fatalf("%q, %v", r.name, r.err)
	}
	programs.Until(t, "the icon says so", func() bool { return panel.Shows("The card is unlocked.") && panel.Icon() != ready })
	if name, err := get(program); err != nil || name == "" {
		t.Errorf("a second time: %q, %v", name, err)
	}
	if logins, signatures := a.count("C_Login"), a.count("C_Sign"); logins != 1 || signatures != 1 {
		t.Errorf("%d logins and %d signatures for two requests", logins, signatures)
	}
	panel.Click("Activity")
	d.window("Kortti")
	d.screenshot("tray-activity")
	a.pull()
	programs.Until(t, "the icon says that the card is gone", func() bool { return panel.Shows("No card in the reader.") && panel.Icon() != ready })
	if name, err := get(program); err == nil {
		t.Errorf("without a card: %q", name)
	}
}

// program is one that goes through the agent's proxy.
func (a *agent) program() *http.Client {
	a.t.Helper()
	status, err := a.client.Status(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	root, err := a.client.Trust(a.t.Context(), site)
	if err != nil {
		a.t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(root.PEM))
	transport := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: status.Proxy}),
		TLSClientConfig: &tls.Config{RootCAs: trusted},
	}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// get is whom the site knows.
func get(program *http.Client) (string, error) {
	resp, err := program.Get("https://" + site + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// When the desktop's D-Bus goes, the tray goes on in its window.
func TestBusEnds(t *testing.T) {
	bus := desktop.NewBus(t)
	panel := bus.NewPanel()
	d := newDisplay(t)
	a := newAgent(t)
	a.tray(d, bus.Address)
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
