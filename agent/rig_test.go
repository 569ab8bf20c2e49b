package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/screen"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tlsclient"
)

func TestMain(m *testing.M) {
	card.RunIfChild()
	os.Exit(m.Run())
}

// patience is for what is waited for; it is never slept.
const patience = 30 * time.Second

const rightPIN = "1234"

// nowhere is the address of a bus that is not there: the screen of whoever runs
// the tests is none of theirs.
const nowhere = "unix:path=/nonexistent/bus"

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// fakeCards are cards without any process: the seam below the agent.
type fakeCards struct {
	events chan card.Event

	mu      sync.Mutex // guards what follows
	readers []card.Reader
	epoch   uint64
	refuse  []error // what the next logins end in; then they succeed
	logins  int

	idleLock time.Duration // as it was last changed
}

// newFakeCards makes one card for each certificate.
func newFakeCards(certs ...*x509.Certificate) *fakeCards {
	f := &fakeCards{events: make(chan card.Event, 100)}
	for i, c := range certs {
		f.insert(string(rune('A'+i)), c)
	}
	return f
}

func (f *fakeCards) insert(id string, c *x509.Certificate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	f.readers = append(f.readers, card.Reader{Name: "Reader " + id, Card: &card.Card{
		ID: id, Label: "card " + id, Epoch: f.epoch, PIN: card.PINState{Initialized: true, Min: 4, Max: 12},
		Certificates: []card.Certificate{{Fingerprint: card.FingerprintOf(c.Raw), DER: c.Raw, X509: c, Login: true, KeyType: "P-384"}},
	}})
	f.tell(card.Event{Kind: card.Inserted, Card: id})
}

func (f *fakeCards) tell(ev card.Event) {
	select {
	case f.events <- ev:
	default: // nobody has subscribed yet
	}
}

// change replaces a card by a copy that edit has changed, with a new epoch.
func (f *fakeCards) change(id string, kind card.EventKind, edit func(*card.Card)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	for i, r := range f.readers {
		if r.Card != nil && r.Card.ID == id {
			c := *r.Card
			c.Epoch = f.epoch
			edit(&c)
			f.readers[i].Card = &c
		}
	}
	f.tell(card.Event{Kind: kind, Card: id, Reason: "test"})
}

func (f *fakeCards) pull(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	for i, r := range f.readers {
		if r.Card != nil && r.Card.ID == id {
			f.readers[i].Card = nil
		}
	}
	f.tell(card.Event{Kind: card.Removed, Card: id})
}

func (f *fakeCards) Wait(context.Context) error { return nil }
func (f *fakeCards) Close() error               { return nil }

func (f *fakeCards) Snapshot() card.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return card.Snapshot{
		Modules: []card.ModuleInfo{{Path: "/broken.so", Err: card.ErrModuleCrashed}},
		Readers: append([]card.Reader(nil), f.readers...), Epoch: f.epoch,
	}
}

func (f *fakeCards) Subscribe() (<-chan card.Event, func()) { return f.events, func() {} }

func (f *fakeCards) Unlock(_ context.Context, fp card.Fingerprint, pin *card.PIN, opts card.UnlockOptions) error {
	c, _, ok := f.Snapshot().Find(fp)
	if !ok {
		return card.ErrNoCard
	}
	if c.PIN.FinalTry && !opts.ConfirmFinal {
		return card.ErrFinalTry
	}
	defer pin.Wipe()
	f.mu.Lock()
	f.logins++
	var err error
	if len(f.refuse) > 0 {
		err, f.refuse = f.refuse[0], f.refuse[1:]
	}
	f.mu.Unlock()
	if err != nil {
		return &card.Error{Op: "unlock the card", Function: "C_Login", Code: 0xA0, Err: err}
	}
	f.change(c.ID, card.WasUnlocked, func(c *card.Card) { c.State = card.Unlocked })
	return nil
}

func (f *fakeCards) Lock(id, reason string) error {
	for _, r := range f.Snapshot().Readers {
		if r.Card != nil && r.Card.State == card.Unlocked && (id == "" || r.Card.ID == id) {
			f.change(r.Card.ID, card.WasLocked, func(c *card.Card) { c.State = card.Locked })
		}
	}
	return nil
}

func (f *fakeCards) SetIdleLock(after time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idleLock = after
}

func (f *fakeCards) Counters() card.Counters { return card.Counters{Signatures: 7} }

func (f *fakeCards) tries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins
}

// refuseWith sets what the next logins end in.
func (f *fakeCards) refuseWith(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = errs
}

// Identities makes the fake a tlsclient.Source with cards that never sign.
func (f *fakeCards) Identities() []tlsclient.Identity { return nil }

func (f *fakeCards) Signer(card.Fingerprint, string) (crypto.Signer, error) {
	return nil, card.ErrLocked
}

// people are certificates of invented people, made once.
var people = sync.OnceValues(func() ([]*x509.Certificate, error) {
	pki, err := fineidtest.New(fineidtest.Options{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for _, name := range []string{"ÄILI", "ÅKE"} {
		issued, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{GivenName: name, Surname: "TESTINEN"})
		if err != nil {
			return nil, err
		}
		list = append(list, issued.Certificate)
	}
	return list, nil
})

func person(t *testing.T, i int) *x509.Certificate {
	t.Helper()
	list, err := people()
	check(t, err)
	return list[i]
}

// rig is an agent that runs until the test ends.
type rig struct {
	*Agent
	client *control.Client
	dir    string
	log    *logBuffer
	stop   func() error
}

// options write text as kortti.toml below dir, with everything in dir.
func options(t *testing.T, dir, text string) Options {
	t.Helper()
	path := filepath.Join(dir, "kortti.toml")
	text = "[proxy]\nlisten = \"127.0.0.1:0\"\n[control]\nsocket = \"" + filepath.Join(dir, "run", "agent.sock") + "\"\n" + text
	check(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := config.Load(path)
	check(t, err)
	return Options{Config: cfg, StateDir: filepath.Join(dir, "state"), Home: dir, Version: "test", Buses: screen.Buses{System: nowhere, Session: nowhere}}
}

// startFake runs an agent with fake cards.
func startFake(t *testing.T, cards *fakeCards, text string) *rig {
	t.Helper()
	return startWith(t, options(t, t.TempDir(), text), cards)
}

// startWith is startFake with options.
func startWith(t *testing.T, o Options, cards *fakeCards) *rig {
	t.Helper()
	return start(t, o, func(o Options) (*Agent, error) {
		return assemble(o, func(card.Config) (cardsSeam, tlsclient.Source, error) { return cards, cards, nil })
	})
}

type cardsSeam = cards

func start(t *testing.T, o Options, open func(Options) (*Agent, error)) *rig {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	r := &rig{dir: filepath.Dir(o.Config.File), log: new(logBuffer)}
	o.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	r.Agent, err = open(o)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.client = control.New(r.Socket())
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return errors.New("the agent does not end")
		}
	})
	t.Cleanup(func() {
		check(t, r.stop())
		r.client.Close()
		if _, err := os.Stat(r.Socket()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
		waitFor(t, "goroutines to be as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
	return r
}

// attend opens a front end's stream.
func (r *rig) attend(t *testing.T) *control.Stream {
	t.Helper()
	s, err := r.client.Events(within(t), true)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// next waits for an event of a kind.
func next(t *testing.T, s *control.Stream, kind control.EventKind) control.Event {
	t.Helper()
	for {
		ev, err := s.Next()
		check(t, err)
		if ev.Kind == kind {
			return ev
		}
	}
}

// answer leases a prompt and answers it.
func (r *rig) answer(t *testing.T, id string, a control.Answer) error {
	t.Helper()
	lease, err := r.client.Lease(within(t), id)
	check(t, err)
	a.LeaseToken = lease
	_, err = r.client.Answer(within(t), id, a)
	return err
}

func pin(s string) control.Secret { return control.Secret(s) }

// wantCode checks an error of the control API.
func wantCode(t *testing.T, err error, code string) *control.Error {
	t.Helper()
	var e *control.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("err = %v (%#v), want code %s", err, err, code)
	}
	return e
}

// decisions are the audit file's, oldest first.
func (r *rig) decisions(t *testing.T) []string {
	t.Helper()
	records, err := r.client.Audit(within(t), 0)
	check(t, err)
	var list []string
	for _, rec := range records {
		list = append(list, rec.Decision)
	}
	return list
}

// logBuffer is a log that the test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
