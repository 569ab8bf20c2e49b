package card

import (
	"context"
	"errors"
	"fmt"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// Unlock logs in to the card that holds cert with the PIN that a person has
// just given: one C_Login, or none where the PIN was refused before, has the
// wrong length, or would be the final try without opts.ConfirmFinal. It takes
// pin over and wipes it; nil lets the person type it on the reader's PIN pad.
// An unlocked card stays as it is and Unlock returns nil. When ctx ends while
// the card works on it, the login may still have been made.
func (m *Manager) Unlock(ctx context.Context, cert Fingerprint, pin *PIN, opts UnlockOptions) error {
	defer pin.Wipe()
	const op = "unlock the card"
	e, err := m.findForLogin(cert)
	if err != nil {
		return &Error{Op: op, Err: err}
	}
	locks := m.locksOf(e)
	select {
	case e.turn <- struct{}{}: // one at a time for each card
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-e.turn }()
	done, err := m.mayUnlock(e, cert, pin, opts)
	if done || err != nil {
		if err != nil {
			return &Error{Op: op, Err: err}
		}
		return nil
	}
	unsure, err := m.unlock(ctx, e, locks, cert, pin, opts)
	if err != nil {
		err = m.hintActivation(e, failure(op, err))
	}
	if unsure {
		err = errors.Join(err, m.confirmLock(e))
	}
	return err
}

// findForLogin returns the card on which cert may be used for login.
func (m *Manager) findForLogin(cert Fingerprint) (*entry, error) {
	snapshot := m.Snapshot()
	card, c, ok := snapshot.Find(cert)
	switch {
	case !ok && len(snapshot.Readers) == 0:
		return nil, ErrNoReader
	case !ok:
		return nil, ErrNoCard
	case !c.Login:
		return nil, fmt.Errorf("%w: %s", ErrNotForLogin, c.WhyNot)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			if s.entry != nil && s.entry.card.ID == card.ID {
				return s.entry, nil
			}
		}
	}
	return nil, ErrRemoved
}

// mayUnlock applies the PIN rules that need no card. done says that the card
// is unlocked already.
func (m *Manager) mayUnlock(e *entry, cert Fingerprint, pin *PIN, opts UnlockOptions) (done bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return false, ErrClosed
	case e.gone != nil:
		return false, e.gone
	case e.signer != nil:
		return true, nil
	}
	err = m.pins.check(cert, pin, e.card.PIN, opts.ConfirmFinal)
	if err != nil {
		m.kept.Add(1)
	}
	return false, err
}

// unlock starts a signer, logs in, and makes the card an unlocked one unless
// something locked or removed it meanwhile. The holder of e.turn calls it.
// unsure says that it failed and that the card may have taken the PIN.
func (m *Manager) unlock(ctx context.Context, e *entry, locks uint64, cert Fingerprint, pin *PIN, opts UnlockOptions) (unsure bool, err error) {
	p, err := m.start(wire.Module, true)
	if err != nil {
		return false, err
	}
	owed, err := m.setStarting(e, p, locks)
	if err != nil {
		p.stop(err)
		return false, err
	}
	unsure, err = m.login(ctx, e, p, cert, pin, opts)
	m.mu.Lock()
	e.starting = nil
	if err != nil && !unsure {
		e.owed = owed
	}
	if err == nil {
		err = p.reason() // locked or removed in the meantime
	}
	if err == nil {
		m.becomeUnlocked(e, p, cert)
	}
	m.publish()
	m.mu.Unlock()
	if err != nil {
		p.close(err)
	}
	return unsure, err
}

// locksOf returns how often a card has been asked to be locked.
func (m *Manager) locksOf(e *entry) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.locks
}

// setStarting shows p to those who lock or remove the card. They may have done
// so while there was nothing to show yet: locks is what locksOf said when the
// person's wish came. From here on the card is owed a reset; owed says whether it
// was before.
func (m *Manager) setStarting(e *entry, p *process, locks uint64) (owed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return false, ErrClosed
	case e.gone != nil:
		return false, e.gone
	case e.locks != locks:
		return false, fmt.Errorf("%w in the meantime", ErrLocked)
	}
	e.starting = p
	owed, e.owed = e.owed, true
	return owed, nil
}

// login loads the module in p and makes the one C_Login. unsure says that it
// failed in a way that leaves open whether the card took the PIN: the module
// hung or crashed over it.
func (m *Manager) login(ctx context.Context, e *entry, p *process, cert Fingerprint, pin *PIN, opts UnlockOptions) (unsure bool, err error) {
	load, configuration := m.loadRequest(e.module.path, openscSigner, m.otherReaders(e.reader))
	if _, _, err := p.call(ctx, m.limits.load, load, configuration); err != nil {
		return false, err
	}
	request := wire.Request{
		Op: wire.Login, Reader: e.reader, Ordinal: e.ordinal, Certificate: cert[:], ConfirmFinal: opts.ConfirmFinal, PinPad: pin == nil,
	}
	limit, body := m.limits.pad, []byte(nil)
	if pin != nil {
		limit, body = m.limits.login, pin.bytes
	}
	answer, _, err := p.call(ctx, limit, request, body)
	if answer.Tried {
		m.logins.Add(1)
	}
	m.noteLogin(e, cert, pin, answer)
	var refused *wire.Fault
	if errors.As(err, &refused) && refused.Kind == wire.OtherCard {
		m.reread(e)
	}
	if unsure = err != nil && !errors.As(err, &refused); unsure {
		m.noteUnknown(e)
	}
	return unsure, err
}

// noteUnknown counts a PIN that the module ended over as one that may have been
// refused.
func (m *Manager) noteUnknown(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins.noteUnknown(e.card.Certificates)
	e.card.PIN = m.completePIN(e.card.Certificates, e.card.PIN)
	m.publish()
}

// reread has a card read anew, all of it: its signer did not find on it what
// was remembered of it.
func (m *Manager) reread(e *entry) {
	m.memory.forget(e.key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := e.module.slotOf(e); s != nil {
		m.drop(s, e, ErrRemoved)
	}
	e.module.wake()
}

// noteLogin keeps what the card said to a PIN, also if nobody waits for it any
// more. An answer that says nothing of the PIN may hide a refusal.
func (m *Manager) noteLogin(e *entry, cert Fingerprint, pin *PIN, answer wire.Answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if certs := e.card.Certificates; answer.Tried && answer.Fault == nil {
		m.pins.noteAccepted(certs)
	} else if answer.Tried {
		switch why := failure("log in", answer.Fault); {
		case errors.Is(why, ErrPINCancelled), errors.Is(why, ErrPINLength):
		case errors.Is(why, ErrWrongPIN), errors.Is(why, ErrPINLocked):
			m.noteRefused(e, cert, pin, why)
		default:
			m.pins.noteUnknown(certs)
		}
	}
	if answer.Token != nil {
		m.setToken(e, *answer.Token)
	}
}

// noteRefused keeps that the card refused a PIN; mu must be held.
func (m *Manager) noteRefused(e *entry, cert Fingerprint, pin *PIN, why error) {
	if errors.Is(why, ErrPINLocked) {
		m.pins.noteLocked(e.card.Certificates)
	} else {
		m.pins.noteRefused(e.card.Certificates, pin)
	}
	m.refused.Add(1)
	m.emit(Event{Kind: PINRefused, Card: e.card.ID, Fingerprint: cert, Reason: why.Error(), Epoch: e.card.Epoch})
}

// becomeUnlocked makes p the card's signer; mu must be held.
func (m *Manager) becomeUnlocked(e *entry, p *process, cert Fingerprint) {
	e.signer = newSigner(m, e, p)
	e.card.State = Unlocked
	m.newEpoch(e)
	m.wg.Go(e.signer.watch)
	m.publish() // before the event, or who reads it finds the old state
	m.emit(Event{Kind: WasUnlocked, Card: e.card.ID, Fingerprint: cert, Epoch: e.card.Epoch})
}

// Lock ends the unlocked state of a card, or of all cards for "", and an unlock
// that is under way. It returns when the signer processes are gone, the epochs
// have risen and the cards have been reset; ErrLockNotConfirmed says that the
// reset failed, which is then tried again and again. Locking a locked card does
// nothing, unless its lock is not confirmed yet, also where it has been forgotten
// since. reason is for people.
func (m *Manager) Lock(card string, reason string) error {
	m.mu.Lock()
	var endings []ending
	var unsure []*entry
	for _, mod := range m.modules {
		for _, s := range mod.slots {
			e := s.entry
			if e == nil || card != "" && e.card.ID != card {
				continue
			}
			e.locks++
			if e.card.State == LockNotConfirmed {
				unsure = append(unsure, e)
			}
			endings = append(endings, m.lock(e, reason)...)
		}
	}
	pending := m.pending(card)
	m.publish()
	m.mu.Unlock()
	var errs []error
	for _, end := range endings {
		errs = append(errs, m.finish(end))
	}
	for _, e := range unsure {
		errs = append(errs, m.confirmLock(e))
	}
	return errors.Join(append(errs, m.outcome(pending))...)
}

// ending is a process that held, or may have held, a card's login.
type ending struct {
	entry   *entry
	process *process
}

// finish makes an end certain: the process is gone and the card is reset.
func (m *Manager) finish(end ending) error {
	end.process.close(ErrLocked)
	return m.confirmLock(end.entry)
}

func lockedBecause(reason string) error { return fmt.Errorf("%w: %s", ErrLocked, reason) }

// lock makes a card a locked one at once and returns the processes that are to
// be finished, which can sign no more. mu must be held.
func (m *Manager) lock(e *entry, reason string) (endings []ending) {
	why := lockedBecause(reason)
	if e.starting != nil {
		e.starting.end(why)
		endings = append(endings, ending{e, e.starting})
	}
	if e.signer == nil {
		return endings
	}
	e.signer.process.because(why) // from here on its calls fail
	endings = append(endings, ending{e, e.signer.process})
	e.signer = nil
	e.card.State = Locked
	m.newEpoch(e)
	m.locks.Add(1)
	m.publish() // before the event, or who reads it finds the old state
	m.emit(Event{Kind: WasLocked, Card: e.card.ID, Reason: reason, Epoch: e.card.Epoch})
	return endings
}
