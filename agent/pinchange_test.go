package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

const (
	newPIN   = "567890"
	rightPUK = "12345678"
)

// ChangePIN and UnblockPIN end as the next login would.
func (f *fakeCards) ChangePIN(_ context.Context, fp card.Fingerprint, old, new *card.PIN, opts card.UnlockOptions) error {
	return f.setPIN(fp, opts, func(p card.PINState) bool { return p.FinalTry })
}

func (f *fakeCards) UnblockPIN(_ context.Context, fp card.Fingerprint, puk, new *card.PIN, opts card.UnlockOptions) error {
	return f.setPIN(fp, opts, func(p card.PINState) bool { return p.PUKFinalTry })
}

func (f *fakeCards) setPIN(fp card.Fingerprint, opts card.UnlockOptions, final func(card.PINState) bool) error {
	c, _, ok := f.Snapshot().Find(fp)
	switch {
	case !ok:
		return card.ErrNoCard
	case final(c.PIN) && !opts.ConfirmFinal:
		return card.ErrFinalTry
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logins++
	if len(f.refuse) > 0 {
		err := f.refuse[0]
		f.refuse = f.refuse[1:]
		return err
	}
	return nil
}

func TestNewPINOverTheAPI(t *testing.T) {
	w := newWorld(t, "")
	stream := w.attend(t)
	left := func() int {
		n, err := w.card.TriesLeft()
		check(t, err)
		return n
	}
	all := left()

	p, err := w.client.ChangePIN(within(t), control.CardSelection{})
	check(t, err)
	if p.Kind != control.PromptPINChange || p.Name != "ÄILI TESTINEN" || p.FinalTry || p.MinPIN != 4 {
		t.Errorf("%+v", p)
	}
	if ev := next(t, stream, control.EventPrompt); ev.Prompt.ID != p.ID {
		t.Errorf("%+v", ev.Prompt)
	}
	again, err := w.client.ChangePIN(within(t), control.CardSelection{})
	if err != nil || again.ID != p.ID {
		t.Errorf("a second call: %+v %v", again, err)
	}
	wantCode(t, w.answer(t, p.ID, control.Answer{PIN: pin("4321"), NewPIN: pin(newPIN)}), control.CodePINWrong)
	for answer, code := range map[string]string{
		"4321 " + newPIN:          control.CodePINRepeated,
		rightPIN + " " + rightPIN: control.CodePINNew,
		rightPIN + " 123":         control.CodePINNew,
		"123 " + newPIN:           control.CodePINLength,
	} {
		p, err = w.client.ChangePIN(within(t), control.CardSelection{})
		check(t, err)
		old, fresh, _ := strings.Cut(answer, " ")
		wantCode(t, w.answer(t, p.ID, control.Answer{PIN: pin(old), NewPIN: pin(fresh)}), code)
	}
	if n := left(); n != all-1 {
		t.Fatalf("one wrong PIN took %d tries", all-n)
	}
	p, err = w.client.ChangePIN(within(t), control.CardSelection{})
	check(t, err)
	if !p.CountLow {
		t.Error("the prompt does not tell of the wrong PIN")
	}
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN), NewPIN: pin(newPIN)}))

	p, err = w.client.UnblockPIN(within(t), control.CardSelection{})
	check(t, err)
	wantCode(t, w.answer(t, p.ID, control.Answer{PUK: pin("87654321"), NewPIN: pin(rightPIN)}), control.CodePUKWrong)
	p, err = w.client.UnblockPIN(within(t), control.CardSelection{})
	check(t, err)
	if p.Kind != control.PromptPINUnblock || p.CountLow {
		t.Errorf("%+v", p)
	}
	check(t, w.answer(t, p.ID, control.Answer{PUK: pin(rightPUK), NewPIN: pin("246802")}))
	p, err = w.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin("246802")}))

	want := "[pin-kept pin-kept pin-kept pin-kept pin-kept pin-changed pin-kept pin-unblocked unlock]"
	if got := fmt.Sprint(w.decisions(t)); got != want {
		t.Errorf("audit: %s, want %s", got, want)
	}
	file, err := os.ReadFile(filepath.Join(w.dir, "state", "audit.jsonl"))
	check(t, err)
	for _, secret := range []string{"4321", newPIN, rightPUK, "246802"} {
		if strings.Contains(w.log.String(), secret) || strings.Contains(string(file), `"`+secret) {
			t.Errorf("%q is in the log or the audit file", secret)
		}
	}
}

func TestNewPINAnswersThatDoNotFit(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	open := map[control.PromptKind]func(context.Context, control.CardSelection) (control.Prompt, error){
		control.PromptPIN: r.client.Unlock, control.PromptPINChange: r.client.ChangePIN, control.PromptPINUnblock: r.client.UnblockPIN,
	}
	full := map[control.PromptKind]control.Answer{
		control.PromptPIN:        {PIN: pin("1")},
		control.PromptPINChange:  {PIN: pin("1"), NewPIN: pin("2")},
		control.PromptPINUnblock: {PUK: pin("1"), NewPIN: pin("2")},
	}
	yes := true
	for kind, ask := range open {
		p, err := ask(within(t), control.CardSelection{})
		check(t, err)
		lease, err := r.client.Lease(within(t), p.ID)
		check(t, err)
		for other, a := range full {
			if other == kind {
				continue
			}
			a.LeaseToken = lease
			a.PIN, a.PUK, a.NewPIN = append(control.Secret(nil), a.PIN...), append(control.Secret(nil), a.PUK...), append(control.Secret(nil), a.NewPIN...)
			_, err := r.client.Answer(within(t), p.ID, a)
			wantCode(t, err, control.CodeBadRequest)
		}
		for _, a := range []control.Answer{{PIN: pin("1"), PUK: pin("2"), NewPIN: pin("3")}, {NewPIN: pin("1")}, {Allow: &yes}, {}} {
			a.LeaseToken = lease
			_, err := r.client.Answer(within(t), p.ID, a)
			wantCode(t, err, control.CodeBadRequest)
		}
		_, err = r.client.Answer(within(t), p.ID, control.Answer{LeaseToken: lease, Cancel: true})
		check(t, err)
	}
	if n := cards.tries(); n != 0 {
		t.Errorf("%d PINs were tried", n)
	}
}

func TestNewPINOnTheFinalTry(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	cards.change("A", card.PINRefused, func(c *card.Card) { c.PIN.FinalTry, c.PIN.PUKFinalTry = true, true })
	for _, kind := range []control.PromptKind{control.PromptPINChange, control.PromptPINUnblock} {
		ask, given := r.client.ChangePIN, func(a control.Answer) control.Answer { a.PIN = pin(rightPIN); return a }
		if kind == control.PromptPINUnblock {
			ask, given = r.client.UnblockPIN, func(a control.Answer) control.Answer { a.PUK = pin(rightPUK); return a }
		}
		p, err := ask(within(t), control.CardSelection{})
		check(t, err)
		if !p.FinalTry {
			t.Errorf("%s says nothing of the final try", kind)
		}
		lease, err := r.client.Lease(within(t), p.ID)
		check(t, err)
		_, err = r.client.Answer(within(t), p.ID, given(control.Answer{LeaseToken: lease, NewPIN: pin(newPIN)}))
		wantCode(t, err, control.CodePINFinalTry)
		_, err = r.client.Answer(within(t), p.ID, given(control.Answer{LeaseToken: lease, NewPIN: pin(newPIN), ConfirmFinal: true}))
		check(t, err)
	}
	cards.change("A", card.PINRefused, func(c *card.Card) { c.PIN.Locked, c.PIN.PUKLocked = true, true })
	_, err := r.client.ChangePIN(within(t), control.CardSelection{})
	wantCode(t, err, control.CodePINLocked)
	_, err = r.client.UnblockPIN(within(t), control.CardSelection{})
	if e := wantCode(t, err, control.CodePUKLocked); e.Hint == "" {
		t.Error("no hint")
	}
}

func TestNewPINOnThePad(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	cards.change("A", card.Inserted, func(c *card.Card) { c.PIN.PinPad = true })
	p, err := r.client.ChangePIN(within(t), control.CardSelection{})
	check(t, err)
	yes := true
	check(t, r.answer(t, p.ID, control.Answer{Allow: &yes}))
	p, err = r.client.UnblockPIN(within(t), control.CardSelection{})
	check(t, err)
	cards.pull("A")
	waitFor(t, "the prompt to go with the card", func() bool { open, _ := r.client.Prompts(within(t)); return len(open) == 0 })
}
