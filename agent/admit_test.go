package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/proxy"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

const listed = "[[host]]\nname = \"a.example.fi\"\n[[host]]\nname = \"always.example.fi\"\nconsent = \"always\"\n"

var yes, no = true, false

// admitting starts a request of an unknown program.
func (r *rig) admitting(ctx context.Context, connection uint32, host string) <-chan error {
	end := make(chan error, 1)
	go func() {
		_, err := r.admit(ctx, proxy.Asked{Peer: peer.Peer{Inode: connection}, Host: host})
		end <- err
	}()
	return end
}

// unlocking is what a request does that needs a locked card.
func (r *rig) unlocking(ctx context.Context, req tlsclient.UnlockRequest) error {
	return r.asking(ctx, func() error {
		if c, _, ok := r.cards.Snapshot().Find(req.Identity.Fingerprint); ok && c.State == card.Unlocked {
			return nil
		}
		return r.unlock(ctx, req)
	})
}

// choosing is what a request does that leaves several certificates.
func (r *rig) choosing(ctx context.Context, host string, candidates []tlsclient.Identity) (f card.Fingerprint, err error) {
	err = r.asking(ctx, func() (err error) {
		f, err = r.choose(ctx, host, candidates, tlsclient.Explanation{})
		return err
	})
	return f, err
}

func TestConsent(t *testing.T) {
	r := startFake(t, newFakeCards(person(t, 0)), listed)
	// With consent = "always" nobody is asked, and nobody need be there.
	check(t, <-r.admitting(within(t), 1, "always.example.fi"))
	if err := <-r.admitting(within(t), 1, "a.example.fi"); !errors.Is(err, prompt.ErrNoFrontEnd) {
		t.Fatal(err)
	}
	if err := <-r.admitting(within(t), 1, "other.example.fi"); !errors.Is(err, tlsclient.ErrNotAllowed) {
		t.Fatal(err)
	}

	stream := r.attend(t)
	end := r.admitting(within(t), 1, "a.example.fi:8443")
	p := next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptConsent || p.Host != "a.example.fi" || p.Program != "unknown program" || p.Name != "ÄILI TESTINEN" || len(p.Candidates) != 1 {
		t.Errorf("%+v", p)
	}
	// What cannot be proved is not remembered, whatever the person ticks.
	check(t, r.answer(t, p.ID, control.Answer{Allow: &yes, Remember: true}))
	check(t, <-end)
	list, err := r.client.Consents(within(t))
	check(t, err)
	if len(list) != 1 || list[0].Remembered || list[0].Host != "a.example.fi" {
		t.Errorf("%+v", list)
	}
	check(t, <-r.admitting(within(t), 1, "a.example.fi")) // not asked again

	check(t, r.client.DeleteConsent(within(t), list[0].ID))
	ctx, cancel := context.WithCancel(within(t))
	end = r.admitting(ctx, 1, "a.example.fi")
	p = next(t, stream, control.EventPrompt).Prompt
	cancel() // the program gives up, and its prompt goes
	if ev := next(t, stream, control.EventPromptClosed); ev.Prompt.ID != p.ID {
		t.Error(ev)
	}
	<-end

	end = r.admitting(within(t), 2, "a.example.fi") // another program
	p = next(t, stream, control.EventPrompt).Prompt
	check(t, r.answer(t, p.ID, control.Answer{Allow: &no}))
	if err := <-end; !errors.Is(err, prompt.ErrDenied) {
		t.Error(err)
	}
	// Nor may it ask again by opening another connection.
	for _, connection := range []uint32{2, 3} {
		if err := <-r.admitting(within(t), connection, "a.example.fi"); !errors.Is(err, prompt.ErrPaused) {
			t.Error(err)
		}
	}
	if want := "[consent consent-ended consent-denied]"; fmt.Sprint(r.decisions(t)) != want {
		t.Errorf("%v, want %s", r.decisions(t), want)
	}
}

func TestConsentEndsWithTheCard(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, listed)
	f := card.FingerprintOf(person(t, 0).Raw).String()
	kept := consent.Key{Program: "/usr/bin/curl", Host: "a.example.fi", Certificate: f}
	check(t, r.consents.Allow(true, kept))
	check(t, r.consents.Allow(false, consent.Key{Program: "x", Host: "a.example.fi", Certificate: f}))
	cards.pull("A")
	waitFor(t, "the consent to end", func() bool { return len(r.consents.List()) == 1 })
	if !r.consents.Allowed(kept) {
		t.Error("the remembered consent ended too")
	}
}

// TestConnectionsOfAnEarlierUnlock are of no use, whatever the agent has heard.
func TestConnectionsOfAnEarlierUnlock(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, listed)
	id := tlsclient.Identity{Fingerprint: card.FingerprintOf(person(t, 0).Raw)}
	may := func(want error) {
		t.Helper()
		if err := r.permit(within(t), "always.example.fi", "443", id); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	unlock := func() {
		cards.change("A", card.WasUnlocked, func(c *card.Card) { c.State = card.Unlocked })
		id.Epoch = r.cards.Snapshot().Epoch
	}
	unlock()
	may(nil)
	cards.change("A", card.WasLocked, func(c *card.Card) { c.State = card.Locked })
	may(card.ErrLocked)
	old := id
	unlock()
	may(nil)
	id = old
	may(card.ErrLocked)
	cards.pull("A")
	may(card.ErrRemoved)
}

// A card that is put in after the request was admitted was not consented to.
func TestConsentBeforeThePIN(t *testing.T) {
	cards := newFakeCards()
	r := startFake(t, cards, listed)
	stream := r.attend(t)
	ctx, err := r.admit(within(t), proxy.Asked{Peer: peer.Peer{Inode: 1}, Host: "a.example.fi"})
	check(t, err)
	cards.insert("A", person(t, 0))
	end := make(chan error, 1)
	go func() {
		end <- r.unlocking(ctx, tlsclient.UnlockRequest{Host: "a.example.fi", Port: "443",
			Identity: tlsclient.Identity{Fingerprint: card.FingerprintOf(person(t, 0).Raw)}})
	}()
	p := next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptConsent {
		t.Fatalf("asked for %s before the consent", p.Kind)
	}
	check(t, r.answer(t, p.ID, control.Answer{Allow: &yes}))
	p = next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptPIN || p.Host != "a.example.fi" || p.Program != "unknown program" {
		t.Fatalf("%+v", p)
	}
	cards.refuseWith(card.ErrWrongPIN)
	wantCode(t, r.answer(t, p.ID, control.Answer{PIN: pin("9999")}), control.CodePINWrong)
	again := next(t, stream, control.EventPrompt).Prompt // the request still waits
	if again.ID == p.ID || again.Message == "" || again.Host != "a.example.fi" {
		t.Errorf("%+v", again)
	}
	check(t, r.answer(t, again.ID, control.Answer{PIN: pin(rightPIN)}))
	check(t, <-end)
	if cards.tries() != 2 {
		t.Errorf("%d logins", cards.tries())
	}
}

func TestCancelledPIN(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, listed)
	stream := r.attend(t)
	req := tlsclient.UnlockRequest{Host: "always.example.fi", Port: "443", Identity: tlsclient.Identity{Fingerprint: card.FingerprintOf(person(t, 0).Raw)}}
	end := make(chan error, 1)
	go func() { end <- r.unlocking(within(t), req) }()
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, r.answer(t, p.ID, control.Answer{Cancel: true}))
	if err := <-end; !errors.Is(err, card.ErrPINCancelled) {
		t.Error(err)
	}
	if err := r.unlocking(within(t), req); !errors.Is(err, prompt.ErrPaused) {
		t.Error(err)
	}
	if _, err := r.client.Unlock(within(t), control.CardSelection{}); err != nil || cards.tries() != 0 {
		t.Error("the person may unlock at once:", err)
	}
}

func TestChoice(t *testing.T) {
	cards := newFakeCards(person(t, 0), person(t, 1))
	dir := t.TempDir()
	open := func(o Options) (*Agent, error) {
		return assemble(o, func(card.Config) (cardsSeam, tlsclient.Source, error) { return cards, cards, nil })
	}
	r := start(t, options(t, dir, listed), open)
	stream := r.attend(t)
	var candidates []tlsclient.Identity
	for i := range 2 {
		candidates = append(candidates, tlsclient.Identity{Fingerprint: card.FingerprintOf(person(t, i).Raw)})
	}
	type choice struct {
		f   card.Fingerprint
		err error
	}
	end := make(chan choice, 1)
	go func() {
		f, err := r.choosing(within(t), "a.example.fi", candidates)
		end <- choice{f, err}
	}()
	p := next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptCertificate || len(p.Candidates) != 2 || p.Candidates[1].Name != "ÅKE TESTINEN" {
		t.Fatalf("%+v", p)
	}
	check(t, r.answer(t, p.ID, control.Answer{Certificate: p.Candidates[1].SHA256, Remember: true}))
	got := <-end
	check(t, got.err)
	if got.f != candidates[1].Fingerprint {
		t.Errorf("chose %s", got.f)
	}
	check(t, r.stop())

	r = start(t, options(t, dir, listed), open) // remembered, with nobody to ask
	f, err := r.choosing(within(t), "a.example.fi", candidates)
	if err != nil || f != candidates[1].Fingerprint {
		t.Error(f, err)
	}
	if e := r.eligible("a.example.fi", "443"); len(e) != 1 || e[0] != f {
		t.Errorf("eligible: %v", e)
	}
	if e := r.eligible("always.example.fi", "443"); len(e) != 2 {
		t.Errorf("eligible without a choice: %v", e)
	}
	if _, err := r.choosing(within(t), "a.example.fi", candidates[:1]); !errors.Is(err, prompt.ErrNoFrontEnd) {
		t.Errorf("the chosen one is not there: %v", err)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		hint   bool
	}{
		{&card.Error{Op: "unlock", Err: card.ErrWrongPIN}, 403, control.CodePINWrong, true},
		{fmt.Errorf("x: %w", card.ErrLocked), 503, control.CodeLocked, true},
		{&tlsclient.ChoiceError{Err: tlsclient.ErrNoCertificate}, 503, "no-certificate", true},
		{prompt.ErrNoFrontEnd, 503, control.CodeNoFrontEnd, true},
		{&config.FixedError{What: "a", File: "f"}, 409, control.CodeConfigWins, true},
		{&tlsclient.UpstreamError{Host: "a:443", Op: "connect", Err: errors.New("refused")}, 502, "upstream-unreachable", true},
		{&tlsclient.UpstreamError{Host: "a:443", Op: "request", Err: context.DeadlineExceeded}, 504, "timeout", false},
		{errors.New("odd"), 500, "failed", false},
	} {
		e := explain(c.err)
		if e.Status != c.status || e.Code != c.code || (e.Hint != "") != c.hint || e.Message == "" {
			t.Errorf("%v: %+v", c.err, e)
		}
	}
}

// FuzzParseChoices feeds the reader with damaged files.
func FuzzParseChoices(f *testing.F) {
	f.Add([]byte(`{"a.fi":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		byHost, err := parseChoices(raw)
		for host, fp := range byHost {
			if _, bad := card.ParseFingerprint(fp); err == nil && (bad != nil || host == "") {
				t.Fatalf("%q: %q", host, fp)
			}
		}
	})
}
