package agent

import (
	"context"
	"fmt"
	"net/http"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/card"
)

// postPIN is POST /v1/pin/change and /v1/pin/unblock: it raises a prompt because
// the person wants a new PIN. No program can. Both are about the PIN that logs
// in; a signature PIN (PIN2) is the card issuer's program's business.
func (a *Agent) postPIN(kind control.PromptKind) call {
	return func(r *http.Request) (any, error) {
		sel, err := decode[control.CardSelection](r)
		if err != nil {
			return nil, err
		}
		a.settle(r.Context())
		f, err := a.selected(sel)
		if err != nil {
			return nil, err
		}
		q, err := a.newPINQuestion(kind, f)
		if err != nil {
			return nil, err
		}
		return result(a.desk.Open(q))
	}
}

// newPINQuestion makes the question for a new PIN, from what the card says now.
// Where no answer can help it is an error, and nobody is asked.
func (a *Agent) newPINQuestion(kind control.PromptKind, f card.Fingerprint) (prompt.Question, error) {
	c, cert, ok := a.cards.Snapshot().Find(f)
	unblock := kind == control.PromptPINUnblock
	switch {
	case !ok:
		return prompt.Question{}, card.ErrRemoved
	case c.State == card.LockNotConfirmed:
		return prompt.Question{}, card.ErrLockNotConfirmed
	case unblock && c.PIN.PUKLocked:
		return prompt.Question{}, card.ErrPUKLocked
	case !unblock && c.PIN.Locked:
		return prompt.Question{}, card.ErrPINLocked
	}
	q := prompt.Question{
		Key:   fmt.Sprintf("%s %s", kind, f),
		Epoch: c.Epoch,
		Prompt: control.Prompt{
			Kind: kind, Card: c.ID, CardLabel: c.Label, Certificate: f.String(), Name: certificateOf(cert).Name,
			PinPad: c.PIN.PinPad, FinalTry: c.PIN.FinalTry, CountLow: c.PIN.CountLow, ToBeChanged: c.PIN.ToBeChanged,
			MinPIN: c.PIN.Min, MaxPIN: c.PIN.Max,
		},
	}
	if unblock {
		q.FinalTry, q.CountLow = c.PIN.PUKFinalTry, false
	}
	q.Try = func(ctx context.Context, answer control.Answer) error { return a.setPIN(ctx, q.Prompt, f, answer) }
	return q, nil
}

// setPIN is the one try that an answer stands for.
func (a *Agent) setPIN(ctx context.Context, p control.Prompt, f card.Fingerprint, answer control.Answer) error {
	set, done, given := a.cards.ChangePIN, audit.PINChanged, answer.PIN
	if p.Kind == control.PromptPINUnblock {
		set, done, given = a.cards.UnblockPIN, audit.PINUnblocked, answer.PUK
	}
	var shown, fresh *card.PIN // nil: they are typed on the reader
	if !p.PinPad {
		shown, fresh = card.NewPIN(given), card.NewPIN(answer.NewPIN)
	}
	// Nobody can have confirmed what the prompt did not say.
	err := set(ctx, f, shown, fresh, card.UnlockOptions{ConfirmFinal: answer.ConfirmFinal && p.FinalTry})
	a.follow()
	record := control.AuditRecord{Decision: done, Card: p.Card, Certificate: p.Certificate}
	if err != nil {
		record.Decision, record.Reason = audit.PINKept, string(p.Kind)+": "+explain(err).Code
	}
	a.audit.Write(record)
	return err
}
