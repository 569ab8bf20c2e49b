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
	var ended []*process
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if s.entry != nil && isReader(reader, s.reader) {
				ended = append(ended, m.drop(s, s.entry, ErrRemoved)...)
			}
		}
	}
	if lost && len(ended) > 0 {
		m.resetAfter(ended, reader)
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
	reader, ok := m.readerOf(e.reader)
	m.mu.Unlock()
	if !ok {
		return nil
	}
	err := m.reset(reader.Name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		if e.card.State == LockNotConfirmed && e.gone == nil {
			m.confirm(e)
		}
		return nil
	}
	if e.gone != nil || e.signer != nil {
		return nil
	}
	e.card.State = LockNotConfirmed
	m.publish()
	m.emit(Event{Kind: WasLocked, Card: e.card.ID, Reason: ErrLockNotConfirmed.Error(), Epoch: e.card.Epoch})
	if !m.closed && !e.resetting {
		e.resetting = true
		m.wg.Go(func() { m.retryReset(e, reader.Name) })
	}
	return &Error{Op: "lock the card", Err: fmt.Errorf("%w: %w", ErrLockNotConfirmed, err)}
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

// resetAfter resets the card in a reader after processes have ended that may
// have left it unlocked. Until that is done the lock of what is in the reader is
// not confirmed. mu must be held.
func (m *Manager) resetAfter(ended []*process, reader string) {
	if m.closed {
		return
	}
	m.resets[reader]++
	m.wg.Go(func() {
		for _, p := range ended {
			<-p.done
		}
		m.keepResetting(reader)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.resets[reader]--; m.resets[reader] > 0 {
			return
		}
		delete(m.resets, reader)
		m.confirmIn(reader)
	})
}

// keepResetting resets the card in a reader, and goes on until that is done,
// PC/SC says that the card is gone, or somebody has unlocked it anew.
func (m *Manager) keepResetting(reader string) {
	for m.ctx.Err() == nil {
		needed, possible := m.needsReset(reader)
		if !needed {
			return
		}
		if possible {
			err := m.reset(reader)
			if err == nil {
				return
			}
			m.config.Log.Warn("a lock is not confirmed", "error", err)
		}
		select {
		case <-m.ctx.Done():
		case <-time.After(m.config.Poll):
		}
	}
}

// needsReset says whether a card may be in the reader that we have not
// unlocked, and whether there is a service to reset it by.
func (m *Manager) needsReset(reader string) (needed, possible bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pcsc != nil {
		return true, false
	}
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if s.entry != nil && s.entry.signer != nil && isReader(reader, s.reader) {
				return false, false
			}
		}
	}
	now, ok := m.readerOf(reader)
	return ok && now.Present, true
}

// unconfirmed says whether a card in a slot's reader may still have the PIN
// verified that it had before it was forgotten; mu must be held.
func (m *Manager) unconfirmed(description string) bool {
	for reader := range m.resets {
		if isReader(reader, description) {
			return true
		}
	}
	return false
}

// confirmIn makes the cards in a reader locked ones; mu must be held.
func (m *Manager) confirmIn(reader string) {
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if s.entry != nil && s.entry.card.State == LockNotConfirmed && isReader(reader, s.reader) {
				m.confirm(s.entry)
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
		if e.card.State == LockNotConfirmed && e.gone == nil {
			m.confirm(e)
		}
		m.mu.Unlock()
		return
	}
}
