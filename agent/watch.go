package agent

import (
	"context"
	"fmt"
	"sync"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/card"
)

// identities is what the agent last knew of the certificates that can sign.
type identities struct {
	mu   sync.Mutex // guards seen; held while the ends that follow from a change are made
	seen map[card.Fingerprint]identity
}

type identity struct {
	card     string
	epoch    uint64
	unlocked bool
}

// watch follows the cards until ctx ends.
func (a *Agent) watch(ctx context.Context) error {
	events, stop := a.cards.Subscribe()
	defer stop()
	a.follow()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-events:
			if !ok {
				return nil
			}
			a.follow()
			a.report(ev)
		}
	}
}

// watchScreen follows the screen and the machine's sleep until ctx ends.
func (a *Agent) watchScreen(ctx context.Context) error {
	a.screen.Run(ctx)
	return nil
}

// away locks all cards and closes all prompts, as the person has gone; when it
// returns nothing of the unlocked state is left. reason is for people.
func (a *Agent) away(reason string) {
	if err := a.lockCards("", reason); err != nil {
		a.log.Error("lock the cards", "reason", reason, "error", err)
	}
	why := fmt.Errorf("%w: %s", prompt.ErrAway, reason)
	// What is being tried ends by itself: a login by the lock, a consent at once.
	a.desk.End(func(_ *prompt.Question, busy bool) (bool, error) { return !busy, why })
}

// lockCards locks a card, or all for "".
func (a *Agent) lockCards(card, reason string) error {
	err := a.cards.Lock(card, reason)
	a.follow()
	return err
}

// follow ends what must not outlive a change of the cards: first the
// connections, then the prompts and consents. It compares states and does not
// trust events, of which a late reader gets only the newest.
func (a *Agent) follow() {
	a.known.mu.Lock()
	defer a.known.mu.Unlock()
	now := a.cards.Snapshot()
	next := make(map[card.Fingerprint]identity)
	for _, r := range now.Readers {
		if r.Card == nil {
			continue
		}
		for _, c := range r.Card.Certificates {
			if c.Login {
				next[c.Fingerprint] = identity{r.Card.ID, r.Card.Epoch, r.Card.State == card.Unlocked}
			}
		}
	}
	for f, was := range a.known.seen {
		is, present := next[f]
		switch {
		case !present || is.card != was.card:
			a.transport.End(f, card.ErrRemoved)
		case was.unlocked && is.epoch != was.epoch:
			a.transport.End(f, card.ErrLocked)
		default:
			continue
		}
		a.consents.End(f.String())
		a.choices.end(f.String())
	}
	a.known.seen = next
	a.desk.End(func(q *prompt.Question, busy bool) (bool, error) { return outdated(now, q, busy) })
}

// outdated tells whether a question is over because of what the cards are now.
func outdated(now card.Snapshot, q *prompt.Question, busy bool) (end bool, err error) {
	for _, c := range q.Candidates {
		if f, err := card.ParseFingerprint(c.SHA256); err == nil {
			if _, _, ok := now.Find(f); !ok {
				return true, card.ErrRemoved
			}
		}
	}
	if q.Card == "" {
		return false, nil
	}
	c, ok := now.Card(q.Card)
	switch {
	case !ok:
		return true, card.ErrRemoved
	case q.Kind != control.PromptPIN || busy || c.Epoch == q.Epoch:
		return false, nil
	case c.State == card.Unlocked: // by the answer to another prompt of this card
		return true, nil
	}
	return true, card.ErrLocked
}

// tellPrompt tells front ends of a prompt that opens or closes.
func (a *Agent) tellPrompt(ev control.Event, why error) {
	if ev.Kind == control.EventPrompt {
		a.counts.prompt(ev.Prompt.Kind)
	}
	if why != nil {
		ev.Code = explain(why).Code
	}
	a.events.publish(ev)
}

// report tells front ends and the audit file of a card's event. Signatures are
// told by the recorder, which knows the host.
func (a *Agent) report(ev card.Event) {
	out := control.Event{Kind: control.EventCard, Card: ev.Card, Reason: string(ev.Kind)}
	if ev.Fingerprint != (card.Fingerprint{}) {
		out.Certificate = ev.Fingerprint.String()
	}
	switch ev.Kind {
	case card.SignatureMade:
		return
	case card.WasLocked:
		out.Kind, out.Reason = control.EventLock, ev.Reason
		a.audit.Write(control.AuditRecord{Decision: audit.Lock, Card: ev.Card, Reason: ev.Reason})
	case card.Removed:
		a.audit.Write(control.AuditRecord{Decision: audit.Removed, Card: ev.Card})
	}
	a.events.publish(out)
}
