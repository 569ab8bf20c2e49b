package gui

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

// entry is the first field to type into.
func entry(t *testing.T, o fyne.CanvasObject) *widget.Entry {
	t.Helper()
	var found *widget.Entry
	var walk func(fyne.CanvasObject)
	walk = func(o fyne.CanvasObject) {
		switch o := o.(type) {
		case *widget.Entry:
			found = o
		case *fyne.Container:
			for _, child := range o.Objects {
				walk(child)
			}
		}
	}
	walk(o)
	if found == nil {
		t.Fatal("no field")
	}
	return found
}

// visit selects a page by its title.
func (h *harness) visit(title string) {
	h.t.Helper()
	i := slices.IndexFunc(h.all, func(p *page) bool { return p.Text == title })
	if i < 0 {
		h.t.Fatalf("no page %q", title)
	}
	h.tabs.SelectIndex(i)
}

func TestHosts(t *testing.T) {
	agent, client := newFakeAgent(t)
	agent.hosts = []control.Host{{Name: "tjanst.example.fi"}}
	h := run(t, client, TextsFor("en"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	h.visit("Sites")
	h.until("the host is listed", h.showing("tjanst.example.fi · set in kortti.toml"))
	if !button(t, h.window.Content(), "Remove").Disabled() {
		t.Error("a host of the configuration file can be removed")
	}
	field := entry(t, h.seen().Content)
	test.Type(field, "ftp://asiointi.example.fi")
	test.Tap(button(t, h.window.Content(), "Add"))
	if !h.showing("That is not the address of a site.")() {
		t.Error("a wrong address is taken")
	}
	field.SetText("")
	test.Type(field, " https://Asiointi.Example.fi:8443/login?next=/ ")
	field.OnSubmitted("")
	h.until("the host is added", h.showing("asiointi.example.fi:8443"))
	approved(t, h.window, "hosts")
	if !h.showing("then start them again")() || field.Text != "" {
		t.Error("it is not said what comes next")
	}
	agent.mu.Lock()
	agent.hosts = agent.hosts[1:]
	agent.mu.Unlock()
	agent.events <- control.Event{Kind: control.EventHost, Host: "tjanst.example.fi"}
	h.until("a host that has gone elsewhere goes here", func() bool { return !h.showing("tjanst.example.fi")() })
	test.Tap(button(t, h.window.Content(), "Why?"))
	h.until("why is said", func() bool { return h.window.Canvas().Overlays().Top() != nil })
	if text := strings.Join(shown(h.window.Canvas().Overlays().Top()), "\n"); !strings.Contains(text, "Would be sent: SPECIMEN-KORTTI LIISA ÅKE. The host accepts its issuer.") {
		t.Errorf("%s", text)
	}
	h.window.Canvas().Overlays().Top().Hide()
	test.Tap(button(t, h.window.Content(), "Remove"))
	h.until("the host is removed", h.showing("No sites yet."))
}

func TestHostOf(t *testing.T) {
	for text, want := range map[string]string{
		"https://asiointi.example.fi/x?y#z": "asiointi.example.fi", "asiointi.example.fi": "asiointi.example.fi",
		"https://a.example:443": "a.example", "A.Example:8443/": "a.example:8443", "*.example.fi": "*.example.fi",
		"http://a.example": "", "": "", "https://": "", "hello": "", "ftp://a.example": "", "https://a.example:x": "", "javascript://a.b": "",
	} {
		got, err := hostOf(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func FuzzHostOf(f *testing.F) {
	f.Add("https://asiointi.example.fi:8443/login")
	f.Add("*.example.fi")
	f.Fuzz(func(t *testing.T, text string) {
		host, err := hostOf(text)
		if err == nil && (host == "" || strings.ContainsAny(host, "/?#@ ")) {
			t.Errorf("%q is the host %q", text, host)
		}
	})
}

func TestActivityIsLive(t *testing.T) {
	agent, client := newFakeAgent(t)
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)
	agent.audit = []control.AuditRecord{
		{Time: at, Decision: "consent", Host: "asiointi.example.fi", Program: "/usr/bin/curl"},
		{Time: at.Add(time.Second), Decision: "signature", Host: "asiointi.example.fi"},
	}
	h := run(t, client, TextsFor("sv"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	h.visit("Händelser")
	h.until("it is listed", h.showing("Loggade in på asiointi.example.fi."))
	text := strings.Join(shown(h.window.Content()), "\n")
	if strings.Index(text, "Loggade in") > strings.Index(text, "/usr/bin/curl får använda") {
		t.Errorf("the newest is not first:\n%s", text)
	}
	if !strings.Contains(text, "Underskrifter: 3 · undvikna: 120 · förfrågningar: 140") {
		t.Errorf("no counters:\n%s", text)
	}
	approved(t, h.window, "activity-sv")
	agent.mu.Lock()
	agent.audit = append(agent.audit, control.AuditRecord{Time: at.Add(time.Minute), Decision: "new-kind", Host: "toinen.example.fi"})
	agent.mu.Unlock()
	agent.events <- control.Event{Kind: control.EventSignature}
	h.until("what happens meanwhile is shown", h.showing("new-kind toinen.example.fi"))
}

func TestSettings(t *testing.T) {
	agent, client := newFakeAgent(t)
	agent.settings = control.Settings{IdleLock: "15m0s", Proxy: "127.0.0.1:8079", ConfigFile: "kortti.toml"}
	agent.trust = control.TrustStatus{
		Roots:  []control.Root{{Host: "asiointi.example.fi"}},
		Stores: []control.TrustStore{{Kind: "firefox", Owner: "Firefox", Present: true, Roots: []control.TrustedRoot{{Host: "asiointi.example.fi", State: control.TrustMissing}}}},
	}
	h := run(t, client, TextsFor("fi"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	h.visit("Asetukset")
	h.until("the store is shown", h.showing("Firefox: luottaa palveluihin 0/1"))
	approved(t, h.window, "settings-fi")
	test.Tap(button(t, h.window.Content(), "Luota kaikissa selaimissa"))
	h.until("the root is installed", h.showing("Firefox: luottaa kaikkiin palveluihin"))
	if !h.showing("Käynnistä uudelleen: Firefox.")() {
		t.Error("the browser's restart is not said")
	}
	var choice *widget.Select
	var walk func(fyne.CanvasObject)
	walk = func(o fyne.CanvasObject) {
		switch o := o.(type) {
		case *widget.Select:
			choice = o
		case *fyne.Container:
			for _, child := range o.Objects {
				walk(child)
			}
		case *widget.Form:
			for _, item := range o.Items {
				walk(item.Widget)
			}
		case fyne.Widget:
			for _, child := range test.WidgetRenderer(o).Objects() {
				walk(child)
			}
		}
	}
	walk(h.seen().Content)
	if choice.Selected != "15 minuuttiin" {
		t.Errorf("shown: %q", choice.Selected)
	}
	choice.SetSelected("tuntiin")
	h.until("it is in force", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.settings.IdleLock == "1h0m0s"
	})
}

func TestHealth(t *testing.T) {
	agent, client := newFakeAgent(t)
	agent.findings = []control.Finding{
		{Severity: control.SeverityOK, Title: "pcscd runs"},
		{Severity: control.SeverityError, Title: "The module is too old for this card", Detail: "OpenSC 0.23", Fix: "Install Atostek ID."},
	}
	h := run(t, client, TextsFor("en"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	h.visit("Problems")
	h.until("the finding is shown", h.showing("Install Atostek ID."))
	approved(t, h.window, "health")
	if h.showing("pcscd runs")() {
		t.Error("what is well is among the problems")
	}
	agent.mu.Lock()
	agent.findings = agent.findings[:1]
	agent.mu.Unlock()
	test.Tap(button(t, h.window.Content(), "Look again"))
	h.until("all is well", h.showing("Everything is well."))
}

// A card that needs a person is told of once.
func TestNotification(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	test.AssertNotificationSent(t, fyne.NewNotification("Kortti", "The card needs attention."), func() {
		agent.setState(control.LockNotConfirmed)
		h.until("it is shown", h.showing("Pull it out."))
	})
	test.AssertNotificationSent(t, nil, func() {
		agent.setState(control.LockNotConfirmed)
		h.until("it is shown again", func() bool { return len(agent.events) == 0 })
	})
}

// A prompt says when it ends, and that few tries are left.
func TestPromptSaysUntilWhen(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	ends := time.Date(2030, 1, 2, 12, 0, 0, 0, time.Local)
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptPIN, CardLabel: "HENKILOKORTTI", CountLow: true, Expires: ends})
	w := h.prompted()
	text := strings.Join(shown(w.window.Content()), "\n")
	if !strings.Contains(text, "Answer before "+ends.Local().Format(time.TimeOnly)) || !strings.Contains(text, "few tries are left") {
		t.Errorf("%s", text)
	}
	approved(t, w.window, "pin-count-low")
}
