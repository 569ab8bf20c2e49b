package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/proxy"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// Times of holds.
const (
	// refusalTime is how long a browser's tabs are told why a question has
	// failed, unless the person asks anew.
	refusalTime = prompt.Pause
	// forgetTime is how long a hold that nobody comes back for is kept.
	forgetTime = 5 * time.Minute
)

// holds are what the navigations of browsers wait for, in holding pages: a
// question that is put on behalf of all tabs of one browser at one host, with a
// life of its own, or a card. It is safe for concurrent use.
type holds struct {
	waiting sync.WaitGroup // the waits for answers

	mu  sync.Mutex // guards what follows
	all map[string]*hold
}

// hold is one of them.
type hold struct {
	wait  proxy.Wait
	epoch uint64    // of the cards that did not do (WaitCard)
	ended bool      // with err
	err   error     // what holding pages are told
	seen  time.Time // when a page last came, or when it ended
}

// holdKey names what the tabs of one browser share. Programs that cannot be told
// apart wait for each other, and are then asked for one by one.
func holdKey(who asker) string {
	p := who.program()
	return p.Key() + " " + who.Host
}

// put puts a question for a navigation and returns the hold, or at once why it
// cannot be put.
func (h *holds) put(who asker, q prompt.Question, desk *prompt.Desk) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := holdKey(who)
	if old := h.all[key]; old != nil && old.wait == waitOf(q.Kind) && !old.ended {
		return &proxy.Hold{For: old.wait, Err: errWaiting}
	}
	w, err := desk.Put(q)
	if err != nil {
		return err
	}
	mine := h.keep(key, &hold{wait: waitOf(q.Kind)})
	h.waiting.Go(func() {
		// It has a life of its own: the prompt's expiry, its card's removal and
		// the desk's end bound it.
		err := refusal(q.Kind, w.Wait(context.Background()))
		h.mu.Lock()
		defer h.mu.Unlock()
		mine.ended, mine.err, mine.seen = true, err, time.Now()
		if err == nil && h.all[key] == mine {
			delete(h.all, key)
		}
	})
	return &proxy.Hold{For: mine.wait, Err: errWaiting}
}

func waitOf(kind control.PromptKind) proxy.Wait {
	switch kind {
	case control.PromptConsent:
		return proxy.WaitConsent
	case control.PromptCertificate:
		return proxy.WaitCertificate
	}
	return proxy.WaitPIN
}

// keep makes a hold the one of the key. The caller holds the lock.
func (h *holds) keep(key string, mine *hold) *hold {
	now := time.Now()
	for k, old := range h.all {
		if now.Sub(old.seen) > forgetTime {
			delete(h.all, k)
		}
	}
	if h.all == nil {
		h.all = make(map[string]*hold)
	}
	mine.seen = now
	h.all[key] = mine
	return mine
}

// look returns what a navigation that comes, perhaps again, still waits for or
// is to be told, and nil when it may go on.
func (h *holds) look(who asker) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := holdKey(who)
	mine := h.all[key]
	switch {
	case mine == nil:
		return nil
	case mine.ended && !who.ByHand && !needsCard(mine.err) && time.Since(mine.seen) < refusalTime:
		return mine.err
	case mine.ended, mine.wait == proxy.WaitCard && mine.epoch != who.epoch:
		delete(h.all, key)
		return nil
	}
	mine.seen = time.Now()
	return &proxy.Hold{For: mine.wait, Err: mine.why()}
}

func (h *hold) why() error {
	if h.wait == proxy.WaitCard {
		return h.err
	}
	return errWaiting
}

// waitForCard makes a hold of an error that another card, or one, would mend.
func (a *Agent) waitForCard(ctx context.Context, err error) error {
	who := askerFrom(ctx)
	if !who.Repeats || !needsCard(err) {
		return err
	}
	h := &a.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(holdKey(who), &hold{wait: proxy.WaitCard, epoch: who.epoch, err: err})
	return &proxy.Hold{For: proxy.WaitCard, Err: err}
}

func needsCard(err error) bool {
	for _, e := range []error{tlsclient.ErrNoCertificate, card.ErrRemoved, card.ErrNoCard, card.ErrNoReader} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// wait returns when no answer is waited for any more. Nothing may be put from
// then on, so the desk is closed before.
func (h *holds) wait() { h.waiting.Wait() }
