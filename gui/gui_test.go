package gui

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"
	"fyne.io/fyne/v2/widget"

	"github.com/kortti-id/kortti/agent/control"
)

const goodPIN = "1234"

// fakeAgent speaks the control API on a real Unix socket, with one card.
type fakeAgent struct {
	mu       sync.Mutex
	cards    control.Cards
	prompt   *control.Prompt
	answers  []map[string]any // as they came over the wire
	hosts    []control.Host
	audit    []control.AuditRecord
	settings control.Settings
	trust    control.TrustStatus
	findings []control.Finding
	events   chan control.Event
	gone     chan struct{} // closed ends the event stream, as when the agent ends
}

func newFakeAgent(t *testing.T) (*fakeAgent, *control.Client) {
	t.Helper()
	a := &fakeAgent{
		events: make(chan control.Event, 16),
		gone:   make(chan struct{}),
		cards: control.Cards{Readers: []control.Reader{{Name: "Reader 0", Card: &control.Card{
			ID: "card-1", Label: "HENKILOKORTTI", State: control.Locked, PIN: control.PIN{Min: 4, Max: 12},
			Certificates: []control.Certificate{{
				SHA256: strings.Repeat("ab", 32), Name: "SPECIMEN-KORTTI LIISA ÅKE", Login: true,
				Issuer: "Kortti TEST Citizen Certificates - G1E", NotAfter: time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC),
			}},
		}}}},
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: a.handler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	c := control.New(socket)
	t.Cleanup(func() { c.Close(); srv.Close(); <-done })
	return a, c
}

func (a *fakeAgent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/cards", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		_ = json.NewEncoder(w).Encode(a.cards)
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case ev := <-a.events:
				b, _ := json.Marshal(ev)
				fmt.Fprintf(w, "event: %s\ndata: %s\n\n", ev.Kind, b)
				w.(http.Flusher).Flush()
			case <-a.gone:
				return
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("POST /v1/unlock", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(a.raise(control.Prompt{ID: "p1", Kind: control.PromptPIN, Card: "card-1", CardLabel: "HENKILOKORTTI", MinPIN: 4}))
	})
	mux.HandleFunc("POST /v1/pin/change", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(a.raise(control.Prompt{ID: "p2", Kind: control.PromptPINChange, Card: "card-1", CardLabel: "HENKILOKORTTI", MinPIN: 4}))
	})
	mux.HandleFunc("POST /v1/pin/unblock", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(a.raise(control.Prompt{ID: "p3", Kind: control.PromptPINUnblock, Card: "card-1", CardLabel: "HENKILOKORTTI", MinPIN: 4, FinalTry: true}))
	})
	mux.HandleFunc("POST /v1/lock", func(w http.ResponseWriter, _ *http.Request) {
		a.setState(control.Locked)
		fmt.Fprint(w, "{}")
	})
	mux.HandleFunc("POST /v1/prompts/{id}", a.answer)
	answerJSON := func(pattern string, answer func(r *http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			a.mu.Lock()
			defer a.mu.Unlock()
			_ = json.NewEncoder(w).Encode(answer(r))
		})
	}
	answerJSON("GET /v1/status", func(*http.Request) any {
		return control.Status{Counters: control.Counters{Signatures: 3, SignaturesAvoided: 120, Requests: 140}}
	})
	answerJSON("GET /v1/hosts", func(*http.Request) any { return a.hosts })
	answerJSON("PUT /v1/hosts/{name}", func(r *http.Request) any {
		var h control.Host
		_ = json.NewDecoder(r.Body).Decode(&h)
		h.Name, h.Managed = r.PathValue("name"), true
		a.hosts = append(a.hosts, h)
		return h
	})
	answerJSON("DELETE /v1/hosts/{name}", func(r *http.Request) any {
		a.hosts = slices.DeleteFunc(a.hosts, func(h control.Host) bool { return h.Name == r.PathValue("name") })
		return struct{}{}
	})
	answerJSON("GET /v1/why", func(r *http.Request) any {
		return control.Why{Host: r.FormValue("host"), Asked: true, Rows: []control.WhyRow{{Subject: "SPECIMEN-KORTTI LIISA ÅKE", Kept: true, Rule: "The host accepts its issuer."}}}
	})
	answerJSON("GET /v1/audit", func(*http.Request) any { return a.audit })
	answerJSON("GET /v1/settings", func(*http.Request) any { return a.settings })
	answerJSON("PUT /v1/settings", func(r *http.Request) any {
		var change control.SettingsChange
		_ = json.NewDecoder(r.Body).Decode(&change)
		a.settings.IdleLock = *change.IdleLock
		return a.settings
	})
	answerJSON("GET /v1/trust", func(*http.Request) any { return a.trust })
	answerJSON("POST /v1/trust", func(r *http.Request) any {
		var q control.TrustRequest
		_ = json.NewDecoder(r.Body).Decode(&q)
		a.trust.Stores[0].Roots[0].State = map[string]control.TrustState{control.TrustInstall: control.TrustTrusted, control.TrustUninstall: control.TrustMissing}[q.Action]
		return control.TrustResult{Restart: []string{"Firefox"}}
	})
	answerJSON("GET /v1/doctor", func(*http.Request) any { return control.Doctor{Findings: a.findings} })
	return mux
}

func (a *fakeAgent) raise(p control.Prompt) control.Prompt {
	a.mu.Lock()
	a.prompt = &p
	a.mu.Unlock()
	a.events <- control.Event{Kind: control.EventPrompt, Prompt: &p}
	return p
}

func (a *fakeAgent) setState(s control.State) {
	a.mu.Lock()
	a.cards.Readers[0].Card.State = s
	a.mu.Unlock()
	a.events <- control.Event{Kind: control.EventLock}
}

func (a *fakeAgent) answer(w http.ResponseWriter, r *http.Request) {
	var m map[string]any
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if m["lease"] == true {
		fmt.Fprint(w, `{"lease_token":"lease-1"}`)
		return
	}
	a.mu.Lock()
	a.answers = append(a.answers, m)
	p := a.prompt
	a.mu.Unlock()
	if pin, ok := m["pin"]; ok && pin != goodPIN {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"code":"pin-wrong","message":"wrong PIN"}}`)
		return
	}
	a.events <- control.Event{Kind: control.EventPromptClosed, Prompt: p}
	if _, ok := m["pin"]; ok {
		a.setState(control.Unlocked)
	}
	fmt.Fprint(w, `{"done":true}`)
}

func (a *fakeAgent) answered() []map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]map[string]any(nil), a.answers...)
}

// harness runs a GUI on the test's own goroutine: Fyne's test driver has no
// call thread, so what would run there is queued and run by until.
type harness struct {
	*GUI
	t     *testing.T
	queue chan func()
}

func run(t *testing.T, agent Agent, texts Texts) *harness {
	t.Helper()
	h := &harness{GUI: New(test.NewTempApp(t), agent, nil, texts), t: t, queue: make(chan func(), 64)}
	h.ui = func(f func()) { h.queue <- f }
	stop := h.start(context.Background())
	t.Cleanup(stop)
	return h
}

// until runs what is queued until cond holds.
func (h *harness) until(what string, cond func() bool) {
	h.t.Helper()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case f := <-h.queue:
			f()
		case <-deadline:
			h.t.Fatalf("waited in vain until %s; the window shows:\n%s", what, strings.Join(shown(h.window.Content()), "\n"))
		}
	}
}

func (h *harness) showing(text string) func() bool {
	return func() bool { return strings.Contains(strings.Join(shown(h.window.Content()), "\n"), text) }
}

func (h *harness) prompted() *promptWindow {
	h.t.Helper()
	h.until("a prompt opens", func() bool { return len(h.prompts) == 1 })
	for _, w := range h.prompts {
		return w
	}
	return nil
}

// shown is every text of a tree of widgets, as a person would read it.
func shown(o fyne.CanvasObject) (texts []string) {
	switch o := o.(type) {
	case *widget.Label:
		if o.Visible() {
			texts = append(texts, o.Text)
		}
	case *widget.Button:
		texts = append(texts, "["+o.Text+"]")
	case *widget.Card:
		texts = append(texts, o.Title, o.Subtitle)
		texts = append(texts, shown(o.Content)...)
	case *widget.Check:
		texts = append(texts, "( ) "+o.Text)
	case *fyne.Container:
		for _, child := range o.Objects {
			texts = append(texts, shown(child)...)
		}
	case fyne.Widget:
		for _, child := range test.WidgetRenderer(o).Objects() {
			texts = append(texts, shown(child)...)
		}
	}
	return texts
}

func button(t *testing.T, o fyne.CanvasObject, text string) *widget.Button {
	t.Helper()
	var found *widget.Button
	var walk func(fyne.CanvasObject)
	walk = func(o fyne.CanvasObject) {
		switch o := o.(type) {
		case *widget.Button:
			if o.Text == text {
				found = o
			}
		case *widget.Card:
			walk(o.Content)
		case *fyne.Container:
			for _, child := range o.Objects {
				walk(child)
			}
		case fyne.Widget:
			for _, child := range test.WidgetRenderer(o).Objects() {
				walk(child)
			}
		}
	}
	walk(o)
	if found == nil {
		t.Fatalf("no button %q among:\n%s", text, strings.Join(shown(o), "\n"))
	}
	return found
}

func TestShowsTheCardAndUnlocksIt(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI LIISA ÅKE"))
	if !h.showing("Kortti TEST Citizen Certificates - G1E · valid until 2030-01-02")() {
		t.Errorf("the certificate is not described:\n%s", strings.Join(shown(h.window.Content()), "\n"))
	}
	approved(t, h.window, "card")
	test.Tap(button(t, h.window.Content(), "Unlock"))
	w := h.prompted()
	test.Type(w.pin, "12 34") // a space is no part of a PIN
	approved(t, w.window, "pin")
	test.Tap(w.ok)
	h.until("the card is unlocked", h.showing("Unlocked: programs can log in with it."))
	if got := agent.answered(); len(got) != 1 || got[0]["pin"] != goodPIN || got[0]["lease_token"] != "lease-1" {
		t.Errorf("the agent should get one answer with the PIN under the lease, not %v", got)
	}
	if len(h.prompts) != 0 {
		t.Error("the prompt's window is still open")
	}
	test.Tap(button(t, h.window.Content(), "Lock"))
	h.until("the card is locked again", h.showing("Locked."))
}

func TestWrongPINIsSaidAndSentOnce(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("fi"))
	h.until("the card is shown", h.showing("Lukittu."))
	test.Tap(button(t, h.window.Content(), "Avaa"))
	w := h.prompted()
	test.Type(w.pin, "9999")
	test.Tap(w.ok)
	test.Tap(w.ok) // an impatient second click
	w.pin.OnSubmitted("9999")
	h.until("the error is said", h.showing("Väärä tunnusluku."))
	if got := agent.answered(); len(got) != 1 {
		t.Errorf("one entry should be one answer, not %d", len(got))
	}
	if w.pin.Text != "" {
		t.Error("the PIN stays in the field")
	}
}

func TestShortPINIsNotSent(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptPIN, CardLabel: "HENKILOKORTTI", MinPIN: 4})
	w := h.prompted()
	test.Type(w.pin, "123")
	w.pin.OnSubmitted("123")
	if !w.ok.Disabled() || len(agent.answered()) != 0 {
		t.Error("a PIN that is too short was sent")
	}
}

func TestFinalTryNeedsConfirmation(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("sv"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptPIN, CardLabel: "HENKILOKORTTI", Host: "tjanst.example.fi", FinalTry: true, MinPIN: 4})
	w := h.prompted()
	approved(t, w.window, "final-try-sv")
	test.Type(w.pin, goodPIN)
	if !w.ok.Disabled() {
		t.Fatal("the final try can be sent without confirmation")
	}
	w.final.SetChecked(true)
	test.Tap(w.ok)
	h.until("the answer is there", func() bool { return len(agent.answered()) == 1 })
	if agent.answered()[0]["confirm_final"] != true {
		t.Errorf("the confirmation did not arrive: %v", agent.answered())
	}
}

func TestUnknownCardIsToldOf(t *testing.T) {
	a, c := newFakeAgent(t)
	a.cards = control.Cards{PCSC: control.PCSC{Readers: []control.PCSCReader{
		{Name: "Reader 0", Present: true, Kind: "FINEID citizen card", Unrecognized: true, Fix: "Install Atostek ID."}, {Name: "Reader 1"},
	}}}
	h := run(t, c, english())
	h.until("the card is told of", h.showing("Reader 0: FINEID citizen card. Install Atostek ID."))
	if h.showing("Reader 1")() {
		t.Error("an empty reader is told of")
	}
}

func TestEscapeCancels(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptPIN, CardLabel: "HENKILOKORTTI"})
	h.prompted().pin.TypedKey(&fyne.KeyEvent{Name: fyne.KeyEscape})
	h.until("the answer is there", func() bool { return len(agent.answered()) == 1 })
	if got := agent.answered()[0]; got["cancel"] != true || got["pin"] != nil {
		t.Errorf("Escape should cancel: %v", got)
	}
}

// Escape ends a question without a field too, and Enter answers none by chance.
func TestKeysOfConsent(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptConsent, Program: "/usr/bin/curl", Host: "asiointi.example.fi"})
	w := h.prompted()
	typed := w.window.Canvas().OnTypedKey()
	typed(&fyne.KeyEvent{Name: fyne.KeyReturn})
	typed(&fyne.KeyEvent{Name: fyne.KeyEscape})
	h.until("the answer is there", func() bool { return len(agent.answered()) == 1 })
	if got := agent.answered()[0]; got["cancel"] != true || got["allow"] != nil {
		t.Errorf("%v", got)
	}
}

func TestConsentAndChoice(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptConsent, Program: "/usr/bin/curl", Name: "LIISA", Host: "asiointi.example.fi"})
	w := h.prompted()
	approved(t, w.window, "consent")
	if q := strings.Join(shown(w.window.Content()), "\n"); !strings.Contains(q, "/usr/bin/curl wants to use the card of LIISA to log in to asiointi.example.fi.") {
		t.Errorf("the question does not say who asks for what:\n%s", q)
	}
	test.Tap(button(t, w.window.Content(), "Deny"))
	h.until("the answer is there", func() bool { return len(agent.answered()) == 1 && len(h.prompts) == 0 })
	if agent.answered()[0]["allow"] != false {
		t.Errorf("Deny should not allow: %v", agent.answered()[0])
	}

	two := []control.Certificate{{SHA256: strings.Repeat("01", 32), Name: "A"}, {SHA256: strings.Repeat("02", 32), Name: "B"}}
	agent.raise(control.Prompt{ID: "p2", Kind: control.PromptCertificate, Host: "asiointi.example.fi", Candidates: two})
	w = h.prompted()
	approved(t, w.window, "choice")
	if !w.ok.Disabled() {
		t.Error("nothing is chosen, yet it can be sent")
	}
	w.choice.SetSelected(w.choice.Options[1])
	test.Tap(w.ok)
	h.until("the answer is there", func() bool { return len(agent.answered()) == 2 })
	if agent.answered()[1]["certificate"] != two[1].SHA256 {
		t.Errorf("the wrong certificate was sent: %v", agent.answered()[1])
	}
}

func TestAgentGoesAndComesBack(t *testing.T) {
	agent, client := newFakeAgent(t)
	h := run(t, client, TextsFor("en"))
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	agent.raise(control.Prompt{ID: "p1", Kind: control.PromptPIN})
	h.prompted()
	agent.mu.Lock()
	gone := agent.gone
	agent.mu.Unlock()
	close(gone)
	h.until("it says that the agent is gone", h.showing("The agent is not running."))
	approved(t, h.window, "no-agent")
	if len(h.prompts) != 0 {
		t.Error("a prompt stays open without an agent")
	}
}

// An agent that does not run is started, once; one that has been heard meanwhile
// and goes is started again.
func TestAgentIsStarted(t *testing.T) {
	fake, client := newFakeAgent(t)
	agent := &absentAgent{Agent: client}
	agent.absent.Store(true)
	starts := make(chan struct{}, 8)
	h := &harness{t: t, queue: make(chan func(), 64)}
	h.GUI = New(test.NewTempApp(t), agent, func() error { starts <- struct{}{}; return nil }, TextsFor("en"))
	h.ui = func(f func()) { h.queue <- f }
	t.Cleanup(h.start(context.Background()))
	h.until("it is looked for three times", func() bool { return agent.asked.Load() >= 3 })
	if len(starts) != 1 {
		t.Errorf("started %d times", len(starts))
	}
	agent.absent.Store(false)
	h.until("the card is shown", h.showing("SPECIMEN-KORTTI"))
	agent.absent.Store(true)
	close(fake.gone)
	h.until("it is started again after it has gone", func() bool { return len(starts) == 2 })
}

// absentAgent does not run for a while.
type absentAgent struct {
	Agent
	asked  atomic.Int32
	absent atomic.Bool
}

func (a *absentAgent) Events(ctx context.Context, prompts bool) (*control.Stream, error) {
	a.asked.Add(1)
	if a.absent.Load() {
		return nil, control.ErrNotRunning
	}
	return a.Agent.Events(ctx, prompts)
}

func TestSituations(t *testing.T) {
	card := func(s control.State, pinLocked bool) control.Cards {
		return control.Cards{Readers: []control.Reader{{Card: &control.Card{State: s, PIN: control.PIN{Locked: pinLocked}}}}}
	}
	for _, tt := range []struct {
		cards control.Cards
		err   error
		want  situation
	}{
		{control.Cards{}, control.ErrNotRunning, noAgent},
		{control.Cards{}, nil, noReader},
		{control.Cards{Readers: []control.Reader{{}}}, nil, noCard},
		{card(control.Locked, false), nil, ready},
		{card(control.Unlocked, false), nil, unlocked},
		{card(control.LockNotConfirmed, false), nil, attention},
		{card(control.Locked, true), nil, attention},
	} {
		if got := situationOf(tt.cards, tt.err); got != tt.want {
			t.Errorf("situation of %+v, %v: %d, want %d", tt.cards, tt.err, got, tt.want)
		}
		if icon(tt.want).Content() == nil {
			t.Errorf("situation %d has no icon", tt.want)
		}
	}
}

// Every language must say everything that English says.
// A program that runs others, or is not known, is called so.
func TestNotesOnPrograms(t *testing.T) {
	for _, locale := range []string{"en", "fi", "sv"} {
		texts := TextsFor(locale)
		if texts.Note(control.Prompt{}) != "" {
			t.Errorf("%s: a note on nothing", locale)
		}
		for _, note := range []control.ProgramNote{control.NoteUnknown, control.NoteInterpreter, control.NoteRemote, control.NoteSandbox} {
			if texts.Note(control.Prompt{ProgramNote: note}) == "" {
				t.Errorf("%s: nothing on %s", locale, note)
			}
		}
	}
}

func TestTextsAreWhole(t *testing.T) {
	en := fmt.Sprintf("%+v", english())
	for _, locale := range []string{"fi_FI.UTF-8", "sv"} {
		texts := TextsFor(locale)
		if fmt.Sprintf("%+v", texts) == en {
			t.Errorf("%s is English", locale)
		}
		for i, s := range texts.situations {
			if s == "" {
				t.Errorf("%s: situation %d has no text", locale, i)
			}
		}
		for decision := range englishPages().decisions {
			if texts.pages.decisions[decision] == "" {
				t.Errorf("%s: the decision %s has no text", locale, decision)
			}
		}
		for i, field := range reflect.VisibleFields(reflect.TypeFor[pageTexts]()) {
			if reflect.ValueOf(texts.pages).Field(i).IsZero() {
				t.Errorf("%s: %s has no text", locale, field.Name)
			}
		}
		for code := range english().errs {
			if texts.errs[code] == "" {
				t.Errorf("%s: the error %s has no text", locale, code)
			}
		}
	}
}
