package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// errUnlocked tells that there is no PIN to ask for.
var errUnlocked = &control.Error{Code: control.CodeUnlocked, Status: 409, Message: "the card is unlocked already"}

// unlock says that the person must be asked for the PIN of a locked card before
// the programs that wait for it can go on: tlsclient.Config.Unlock.
func (a *Agent) unlock(ctx context.Context, req tlsclient.UnlockRequest) error {
	// A card that was put in after the request was admitted was not part of
	// that consent.
	if err := a.requireConsent(ctx, req.Host, req.Port, req.Identity.Fingerprint); err != nil {
		return err
	}
	return &mustAsk{func(who asker) (prompt.Question, error) {
		q, err := a.pinQuestion(req.Identity.Fingerprint, req.Host, who.program())
		if errors.Is(err, errUnlocked) {
			return q, errAnswered
		}
		return q, err
	}}
}

// openUnlock raises a PIN prompt because the person wants the card unlocked.
func (a *Agent) openUnlock(sel control.CardSelection) (control.Prompt, error) {
	f, err := a.selected(sel)
	if err != nil {
		return control.Prompt{}, err
	}
	q, err := a.pinQuestion(f, "", consent.Program{})
	if err != nil {
		return control.Prompt{}, err
	}
	return a.desk.Open(q)
}

// pinQuestion makes the question for a certificate's PIN, from what the card
// says now; host is empty when the person asks. Where no PIN can
// help it is an error, and nobody is asked.
func (a *Agent) pinQuestion(f card.Fingerprint, host string, program consent.Program) (prompt.Question, error) {
	c, cert, ok := a.cards.Snapshot().Find(f)
	switch {
	case !ok:
		return prompt.Question{}, card.ErrRemoved
	case c.State == card.Unlocked:
		return prompt.Question{}, errUnlocked
	case c.State == card.LockNotConfirmed:
		return prompt.Question{}, card.ErrLockNotConfirmed
	case c.PIN.Locked:
		return prompt.Question{}, card.ErrPINLocked
	}
	q := prompt.Question{
		Key:   fmt.Sprintf("pin %s %d", f, c.Epoch),
		Epoch: c.Epoch,
		Prompt: control.Prompt{
			Kind: control.PromptPIN, Card: c.ID, CardLabel: c.Label,
			Certificate: f.String(), Name: certificateOf(cert).Name, Host: host,
			PinPad: c.PIN.PinPad, FinalTry: c.PIN.FinalTry, CountLow: c.PIN.CountLow, ToBeChanged: c.PIN.ToBeChanged,
			MinPIN: c.PIN.Min, MaxPIN: c.PIN.Max,
		},
	}
	if host != "" {
		q.Program, q.ProgramNote = program.Shown(), program.Note()
	}
	q.Over = func() bool {
		now, _, ok := a.cards.Snapshot().Find(f)
		return !ok || now.Epoch != q.Epoch
	}
	q.Try = func(ctx context.Context, answer control.Answer) error { return a.login(ctx, q.Prompt, f, answer) }
	q.Again = func(err error) (prompt.Question, bool) { return a.askAgain(f, host, program, err) }
	return q, nil
}

// login is the one try that an answer stands for.
func (a *Agent) login(ctx context.Context, p control.Prompt, f card.Fingerprint, answer control.Answer) error {
	var pin *card.PIN // nil: it is typed on the reader
	if !p.PinPad {
		pin = card.NewPIN(answer.PIN)
	}
	// Nobody can have confirmed what the prompt did not say.
	err := a.cards.Unlock(ctx, f, pin, card.UnlockOptions{ConfirmFinal: answer.ConfirmFinal && p.FinalTry})
	record := control.AuditRecord{Decision: audit.Unlock, Card: p.Card, Certificate: p.Certificate}
	if err != nil {
		record.Decision, record.Reason = audit.UnlockRefused, explain(err).Code
	}
	a.audit.Write(record)
	return err
}

// askAgain asks for the PIN once more after one that the person can correct.
func (a *Agent) askAgain(f card.Fingerprint, host string, program consent.Program, err error) (prompt.Question, bool) {
	for _, correctable := range []error{card.ErrWrongPIN, card.ErrPINRefusedBefore, card.ErrPINLength, card.ErrFinalTry} {
		if !errors.Is(err, correctable) {
			continue
		}
		q, failed := a.pinQuestion(f, host, program)
		if failed != nil {
			return prompt.Question{}, false
		}
		q.Message = explain(err).Error()
		return q, true
	}
	return prompt.Question{}, false
}

// selected finds the one certificate that a selection means.
func (a *Agent) selected(sel control.CardSelection) (card.Fingerprint, error) {
	if sel.Certificate != "" {
		f, err := card.ParseFingerprint(sel.Certificate)
		if err != nil {
			return f, badRequest(err.Error())
		}
		return f, nil
	}
	snapshot := a.cards.Snapshot()
	var found []card.Fingerprint
	for _, r := range snapshot.Readers {
		if r.Card == nil || sel.Card != "" && r.Card.ID != sel.Card {
			continue
		}
		for _, c := range r.Card.Certificates {
			if c.Login {
				found = append(found, c.Fingerprint)
				break // one login unlocks the card
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return card.Fingerprint{}, &control.Error{Code: control.CodeWhichCard, Status: 409, Message: "several cards could be unlocked", Hint: "Name the card."}
	case len(snapshot.Readers) == 0:
		return card.Fingerprint{}, card.ErrNoReader
	case !a.anyCard():
		return card.Fingerprint{}, noCardAtAll
	case sel.Card != "":
		return card.Fingerprint{}, &control.Error{Code: control.CodeNoCard, Status: 503, Message: "no inserted card with a certificate for login has this id", Hint: "See the cards with: kortti cards"}
	}
	return card.Fingerprint{}, noLoginCard
}

// lock locks the selected card, or all, and returns when nothing of it is left.
func (a *Agent) lock(sel control.CardSelection) error {
	id := sel.Card
	if sel.Certificate != "" {
		f, err := card.ParseFingerprint(sel.Certificate)
		if err != nil {
			return badRequest(err.Error())
		}
		c, _, ok := a.cards.Snapshot().Find(f)
		if !ok {
			return card.ErrNoCard
		}
		id = c.ID
	}
	if _, ok := a.cards.Snapshot().Card(id); id != "" && !ok {
		return card.ErrNoCard
	}
	return a.lockCards(id, "locked by the person")
}

// anyCard reports whether any reader holds a card.
func (a *Agent) anyCard() bool {
	return slices.ContainsFunc(a.cards.Snapshot().Readers, func(r card.Reader) bool { return r.Card != nil })
}
