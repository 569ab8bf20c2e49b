package card

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// Times of the PC/SC children.
const (
	watchTime  = time.Minute     // one Watch request, when nothing happens
	resetTime  = 2 * time.Second // for another program to let go of the card
	childSlack = 10 * time.Second
)

// watchReaders follows the PC/SC readers with a watcher child until the manager
// ends. Where there is no PC/SC service, everything is polled instead.
func (m *Manager) watchReaders() {
	for m.ctx.Err() == nil {
		err := m.followReaders()
		if m.ctx.Err() != nil {
			return
		}
		m.config.Log.Warn("the PC/SC child ended", "error", err)
		m.setReaders(nil, err)
		m.beforeNextService()
	}
}

// beforeNextService pauses until the PC/SC service is looked for again.
func (m *Manager) beforeNextService() {
	select {
	case <-m.ctx.Done():
	case <-time.After(m.limits.service):
	}
}

// followReaders runs one watcher child until it fails.
func (m *Manager) followReaders() error {
	p, err := m.start(wire.Watcher, false)
	if err != nil {
		return err
	}
	defer p.stop(ErrClosed)
	request := wire.Request{Op: wire.Watch, First: true, Wait: watchTime}
	for {
		answer, _, err := p.call(m.ctx, watchTime+childSlack, request, nil)
		if answer.Fault != nil { // there is no service; the child can look again
			m.setReaders(nil, answer.Fault)
			m.beforeNextService()
			request.First, request.Readers = true, nil
			continue
		}
		if err != nil {
			return err
		}
		m.setReaders(answer.Readers, nil)
		request.First, request.Readers = false, answer.Readers
	}
}

// setReaders takes over what PC/SC says now: cards that it saw leave are
// removed at once, without asking a module, and then the modules look.
func (m *Manager) setReaders(now []wire.Reader, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, known, was := m.readers, m.pcsc == nil, m.pcsc
	m.readers, m.pcsc = now, err
	for _, r := range now {
		m.readersSeen[r.Name] = true
	}
	m.readersOnce.Do(func() { close(m.readersFirst) })
	if err == nil && known && slices.EqualFunc(before, now, sameReader) {
		return
	}
	if err != nil && !known {
		m.publish()
		return // no news: there still is no service
	}
	var fault *wire.Fault
	lost := errors.As(err, &fault) // the service ended, and with it has let go of all cards
	if err != nil {
		m.config.Log.Warn("PC/SC is lost", "error", err)
	}
	for _, old := range before {
		if old.Present && (err == nil || lost) && !slices.ContainsFunc(now, func(r wire.Reader) bool { return sameCard(old, r) }) {
			m.forgetIn(old.Name, lost)
		}
	}
	m.publish()
	for _, mod := range m.modules {
		mod.stale = mod.stale || was != nil && was != errNotAsked // some modules do not survive a new service
		mod.wake()
	}
}

func sameReader(a, b wire.Reader) bool {
	return a.Name == b.Name && a.Present == b.Present && a.Mute == b.Mute && a.Exclusive == b.Exclusive &&
		a.Events == b.Events && bytes.Equal(a.ATR, b.ATR)
}

// sameCard says whether the card that was in a reader is in it still. The
// event counter tells of one that was put back between two looks.
func sameCard(was, is wire.Reader) bool {
	return was.Name == is.Name && is.Present && was.Events == is.Events && bytes.Equal(was.ATR, is.ATR)
}

// forgetIn removes the cards that modules show in a PC/SC reader. Where not the
// card is gone but the service, the card may still have power. mu must be held.
func (m *Manager) forgetIn(reader string, lost bool) {
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if e := s.entry; e != nil && isReader(reader, s.reader) {
				ended := m.drop(s, e, ErrRemoved)
				if lost && e.owed {
					m.resetAfter(ended, reader, e.card.ID)
				}
			}
		}
	}
}

// slotDescriptionSize is the space that CK_SLOT_INFO has for a reader's name.
const slotDescriptionSize = 64

// isReader says whether a slot's description is a PC/SC reader's name, which
// may have been cut.
func isReader(reader, description string) bool {
	return description == reader || len(reader) > slotDescriptionSize && description == trimmed(reader[:slotDescriptionSize])
}

func trimmed(s string) string { return string(bytes.TrimSpace([]byte(s))) }

// readerOf returns the PC/SC reader behind a slot; mu must be held.
func (m *Manager) readerOf(description string) (wire.Reader, bool) {
	for _, r := range m.readers {
		if isReader(r.Name, description) {
			return r, true
		}
	}
	return wire.Reader{}, false
}

// resettable returns the name of the PC/SC reader behind a slot where a card may
// be in it: while there is no service, of the one that it was; mu must be held.
func (m *Manager) resettable(description string) (name string, ok bool) {
	if m.pcsc == nil {
		r, ok := m.readerOf(description)
		return r.Name, ok && r.Present
	}
	for name := range m.readersSeen {
		if isReader(name, description) {
			return name, true
		}
	}
	return "", false
}

// watched says whether PC/SC tells of everything that can happen in a module's
// slots, so that its lister need not be kept; mu must be held.
func (m *Manager) watched(mod *module) bool {
	return m.pcsc == nil && !slices.ContainsFunc(mod.slots, func(s *slot) bool {
		_, ok := m.readerOf(s.reader)
		return !ok
	})
}

// confirmLock resets a locked card through PC/SC: the end of its signer alone
// leaves the PIN verified on the card while anything else holds it. A slot
// without a PC/SC reader (SoftHSM) has no card to reset.
func (m *Manager) confirmLock(e *entry) error {
	m.mu.Lock()
	reader, ok := m.resettable(e.reader)
	m.mu.Unlock()
	if !ok {
		return nil
	}
	err := m.reset(reader)
	m.mu.Lock()
	if err == nil {
		m.wasReset(e)
		m.mu.Unlock()
		return nil
	}
	if e.gone != nil { // perhaps with the service alone
		pending := m.pending(e.card.ID)
		m.mu.Unlock()
		return m.outcome(pending)
	}
	defer m.mu.Unlock()
	if e.signer != nil {
		return nil
	}
	e.card.State = LockNotConfirmed
	m.publish()
	m.emit(Event{Kind: WasLocked, Card: e.card.ID, Reason: ErrLockNotConfirmed.Error(), Epoch: e.card.Epoch})
	if !m.closed && !e.resetting {
		e.resetting = true
		m.wg.Go(func() { m.retryReset(e, reader) })
	}
	return notConfirmed(err)
}

// wasReset notes that nothing has a PIN verified on a card any more; mu must be
// held.
func (m *Manager) wasReset(e *entry) {
	if e.signer != nil || e.starting != nil || e.gone != nil {
		return
	}
	e.owed = false
	if e.card.State == LockNotConfirmed {
		m.confirm(e)
	}
}

func notConfirmed(why error) error {
	return &Error{Op: "lock the card", Err: fmt.Errorf("%w: %w", ErrLockNotConfirmed, why)}
}

// reset resets the card in a reader with a child of its own.
func (m *Manager) reset(reader string) error {
	p, err := m.start(wire.Watcher, false)
	if err != nil {
		return err
	}
	defer p.stop(ErrClosed)
	request := wire.Request{Op: wire.Reset, Reader: reader, Wait: resetTime}
	_, _, err = p.call(context.Background(), resetTime+childSlack, request, nil)
	return err
}

// pendingReset is a reset that is owed to a card which was forgotten while it
// may have been unlocked.
type pendingReset struct {
	reader, card string        // the PC/SC reader's name, the card's ID
	tried        chan struct{} // closed after the first try
}

// resetAfter resets the card in a reader after processes have ended that may
// have left it unlocked. Until that is done the lock of what is in the reader is
// not confirmed. mu must be held.
func (m *Manager) resetAfter(ended []*process, reader, card string) {
	if m.closed {
		return
	}
	r := &pendingReset{reader: reader, card: card, tried: make(chan struct{})}
	m.resets[r] = true
	m.wg.Go(func() {
		for _, p := range ended {
			<-p.done
		}
		m.keepResetting(r)
		m.settle(r)
	})
}

// settle notes that a reset is not owed any more.
func (m *Manager) settle(r *pendingReset) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.resets, r)
	if !m.unconfirmed(r.reader) {
		m.confirmIn(r.reader)
	}
}

// isOwed says whether a reset is still to be done.
func (m *Manager) isOwed(r *pendingReset) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resets[r]
}

// keepResetting resets the card in a reader, and goes on until that is done,
// PC/SC says that the card is gone, or somebody has unlocked it anew.
func (m *Manager) keepResetting(r *pendingReset) {
	for first := true; m.ctx.Err() == nil && m.isOwed(r); first = false {
		err := m.resetIfNeeded(r.reader)
		if first {
			close(r.tried)
		}
		if err == nil {
			return
		}
		select {
		case <-m.ctx.Done():
		case <-time.After(m.config.Poll):
		}
	}
}

// resetIfNeeded resets the card in a reader unless there is nothing to reset.
func (m *Manager) resetIfNeeded(reader string) error {
	needed, noService := m.needsReset(reader)
	if !needed || noService != nil {
		return noService
	}
	err := m.reset(reader)
	if err != nil {
		m.config.Log.Warn("a lock is not confirmed", "error", err)
	}
	return err
}

// needsReset says whether a card may be in the reader that we have not
// unlocked, and why it cannot be reset where there is no service.
func (m *Manager) needsReset(reader string) (needed bool, noService error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pcsc != nil {
		return true, m.pcsc
	}
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if s.entry != nil && s.entry.signer != nil && isReader(reader, s.reader) {
				return false, nil
			}
		}
	}
	now, ok := m.readerOf(reader)
	return ok && now.Present, nil
}

// pending returns the resets that are owed to a card, or to all cards for "";
// mu must be held.
func (m *Manager) pending(card string) (resets []*pendingReset) {
	for r := range m.resets {
		if card == "" || r.card == card {
			resets = append(resets, r)
		}
	}
	return resets
}

// outcome says whether resets that are owed are still owed after a try.
func (m *Manager) outcome(pending []*pendingReset) error {
	var errs []error
	for _, r := range pending {
		select {
		case <-r.tried:
		case <-m.ctx.Done():
			return notConfirmed(ErrClosed)
		}
		if !m.isOwed(r) {
			continue
		}
		if err := m.resetIfNeeded(r.reader); err != nil {
			errs = append(errs, notConfirmed(err))
			continue
		}
		m.settle(r)
	}
	return errors.Join(errs...)
}

// unconfirmed says whether a card in a slot's reader may still have the PIN
// verified that it had before it was forgotten; mu must be held.
func (m *Manager) unconfirmed(description string) bool {
	for r := range m.resets {
		if isReader(r.reader, description) {
			return true
		}
	}
	return false
}

// confirmIn makes the cards in a reader locked ones; mu must be held.
func (m *Manager) confirmIn(reader string) {
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if s.entry != nil && isReader(reader, s.reader) {
				m.wasReset(s.entry)
			}
		}
	}
}

// confirm notes that a card has been reset; mu must be held.
func (m *Manager) confirm(e *entry) {
	e.card.State = Locked
	m.publish()
	m.emit(Event{Kind: WasLocked, Card: e.card.ID, Reason: "the card was reset", Epoch: e.card.Epoch})
}

// retryReset goes on until the lock is confirmed, or the card is gone or
// unlocked again.
func (m *Manager) retryReset(e *entry, reader string) {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(m.config.Poll):
		}
		m.mu.Lock()
		over := e.gone != nil || e.card.State != LockNotConfirmed
		m.mu.Unlock()
		if !over && m.reset(reader) != nil {
			continue
		}
		m.mu.Lock()
		e.resetting = false
		if !over {
			m.wasReset(e)
		}
		m.mu.Unlock()
		return
	}
}
