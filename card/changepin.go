package card

import (
	"context"
	"errors"
	"fmt"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// ChangePIN gives the card that holds cert a new PIN: the one that logs in, which
// is PIN1 of a FINEID card. (PIN2, which signs documents, is out of scope: the
// card issuer's program changes it.) The card sees the old PIN once, or never
// where it was refused before, is too short or too long, or would be the final
// try without opts.ConfirmFinal. ChangePIN takes both PINs over and wipes them;
// two nil PINs let the person type them on the reader's PIN pad.
//
// An unlocked card is locked first, and afterwards it is locked too: it has seen
// a PIN and is reset, like after an unlock that failed half-way. Where another
// program prevents that, the card's state is LockNotConfirmed. When ctx ends, or
// somebody locks or removes the card while it works, the PIN may have changed.
func (m *Manager) ChangePIN(ctx context.Context, cert Fingerprint, old, new *PIN, opts UnlockOptions) error {
	return m.setPIN(ctx, cert, pinChange{op: "change the PIN", request: wire.SetPIN, role: roleUser, given: old, new: new}, opts)
}

// UnblockPIN gives the card that holds cert a new PIN with the help of the PUK,
// whether the old one is locked or forgotten. For the PUK hold the rules that
// ChangePIN has for the old PIN: refused ones are remembered, and what may be
// the last try needs opts.ConfirmFinal. A card whose PUK is locked is lost.
func (m *Manager) UnblockPIN(ctx context.Context, cert Fingerprint, puk, new *PIN, opts UnlockOptions) error {
	return m.setPIN(ctx, cert, pinChange{op: "unblock the PIN", request: wire.InitPIN, role: rolePUK, given: puk, new: new}, opts)
}

// pinChange is what a PIN changer is to do.
type pinChange struct {
	op         string // for errors
	request    wire.Op
	role       role // of given
	given, new *PIN // nil: typed on the PIN pad
}

// setPIN is ChangePIN and UnblockPIN.
func (m *Manager) setPIN(ctx context.Context, cert Fingerprint, c pinChange, opts UnlockOptions) error {
	defer c.given.Wipe()
	defer c.new.Wipe()
	e, err := m.findForLogin(cert)
	if err != nil {
		return &Error{Op: c.op, Err: err}
	}
	locks := m.locksOf(e)
	select {
	case e.turn <- struct{}{}: // one at a time for each card
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-e.turn }()
	if err := m.mayChange(e, cert, c, opts); err != nil {
		return &Error{Op: c.op, Err: err}
	}
	if err := m.lockFirst(e); err != nil {
		return &Error{Op: c.op, Err: err}
	}
	shown, err := m.change(ctx, e, locks, cert, c, opts)
	if err != nil {
		err = c.failure(err)
	}
	if !shown {
		return err
	}
	lockErr := m.confirmLock(e)
	if err == nil {
		return nil // the snapshot and an event tell of a lock that is not confirmed
	}
	return errors.Join(err, lockErr)
}

// mayChange applies the rules that need no card.
func (m *Manager) mayChange(e *entry, cert Fingerprint, c pinChange, opts UnlockOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case e.gone != nil:
		return e.gone
	}
	state := e.card.PIN
	err := checkNew(c, state)
	if err == nil {
		err = m.memoryOf(c.role).check(cert, c.given, state.of(c.role), opts.ConfirmFinal)
	}
	if err != nil {
		m.kept.Add(1)
	}
	return c.inRole(err)
}

// checkNew refuses a new PIN that no card takes.
func checkNew(c pinChange, state PINState) error {
	if (c.new == nil) != (c.given == nil) {
		return fmt.Errorf("%w: either both PINs are typed on the PIN pad or none", ErrPINLength)
	}
	if c.new == nil {
		return nil
	}
	if err := checkLength(c.new, state); err != nil {
		return fmt.Errorf("%w: %w", ErrNewPIN, err)
	}
	for _, b := range c.new.bytes {
		if b < ' ' || b == 0x7f { // no keypad has them, and cards pad with NUL
			return fmt.Errorf("%w: it has a character that cannot be typed", ErrNewPIN)
		}
	}
	if c.role == roleUser && c.new.equal(c.given) {
		return fmt.Errorf("%w: it is the old one", ErrNewPIN)
	}
	return nil
}

// memoryOf returns what is remembered of PINs in a role.
func (m *Manager) memoryOf(r role) *pinMemory {
	if r == rolePUK {
		return m.puks
	}
	return m.pins
}

// of returns what a PINState says of a role. Tokens tell no length of a PUK.
func (s PINState) of(r role) PINState {
	if r == rolePUK {
		return PINState{PinPad: s.PinPad, FinalTry: s.PUKFinalTry, Locked: s.PUKLocked}
	}
	return s
}

// pinStateOf is what a token says of its PIN and its PUK, with what we know
// ourselves.
func (m *Manager) pinStateOf(certs []Certificate, token wire.TokenInfo) PINState {
	return m.completePIN(certs, pinState(token))
}

// completePIN adds what we know ourselves to what is known of a card.
func (m *Manager) completePIN(certs []Certificate, state PINState) PINState {
	puk := m.puks.complete(certs, state.of(rolePUK))
	state = m.pins.complete(certs, state)
	state.PUKFinalTry, state.PUKLocked = puk.FinalTry, puk.Locked
	return state
}

// lockFirst locks an unlocked card. The holder of e.turn calls it.
func (m *Manager) lockFirst(e *entry) error {
	m.mu.Lock()
	endings := m.lock(e, "its PIN is to be changed")
	m.mu.Unlock()
	for _, end := range endings {
		if err := m.finish(end); err != nil {
			return err
		}
	}
	return nil
}

// change has a PIN changer do its work. shown says that the card has, or may
// have, seen the PIN or the PUK. The holder of e.turn calls it.
func (m *Manager) change(ctx context.Context, e *entry, locks uint64, cert Fingerprint, c pinChange, opts UnlockOptions) (shown bool, err error) {
	p, err := m.start(wire.Module, true)
	if err != nil {
		return false, err
	}
	owed, err := m.setStarting(e, p, locks)
	if err != nil {
		p.stop(err)
		return false, err
	}
	shown, err = m.present(ctx, e, p, cert, c, opts)
	m.mu.Lock()
	e.starting = nil
	if !shown {
		e.owed = owed
	}
	m.publish()
	m.mu.Unlock()
	p.close(ErrLocked)
	return shown, err
}

// present loads the module in p and makes the one request.
func (m *Manager) present(ctx context.Context, e *entry, p *process, cert Fingerprint, c pinChange, opts UnlockOptions) (shown bool, err error) {
	role := openscChanger
	if c.request == wire.InitPIN {
		role = openscUnblocker
	}
	load, configuration := m.loadRequest(e.module.path, role, m.otherReaders(e.reader))
	if _, _, err := p.call(ctx, m.limits.load, load, configuration); err != nil {
		return false, err
	}
	request := wire.Request{
		Op: c.request, Reader: e.reader, Ordinal: e.ordinal, Certificate: cert[:],
		ConfirmFinal: opts.ConfirmFinal, PinPad: c.given == nil,
	}
	limit, body := m.limits.pad, []byte(nil)
	if c.given != nil {
		limit, request.Split = m.limits.login, len(c.given.bytes)
		body = append(append(make([]byte, 0, len(c.given.bytes)+len(c.new.bytes)), c.given.bytes...), c.new.bytes...)
		defer clear(body)
	}
	answer, _, err := p.call(ctx, limit, request, body)
	var fault *wire.Fault
	answered := err == nil || errors.As(err, &fault)
	if answered && answer.Fault != nil && answer.Fault.Kind == wire.OtherCard {
		m.reread(e)
	}
	m.noteChange(e, cert, c, answer, answered)
	return answer.Tried || !answered, err
}

// noteChange keeps what the card said, also if nobody waits for it any more.
func (m *Manager) noteChange(e *entry, cert Fingerprint, c pinChange, answer wire.Answer, answered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	certs, memory := e.card.Certificates, m.memoryOf(c.role)
	var why error
	if answer.Fault != nil {
		why = c.failure(answer.Fault)
	}
	switch {
	case !answer.Tried && answered:
	case !answer.Tried:
		memory.noteUnknown(certs)
	case why == nil:
		memory.noteAccepted(certs)
		m.pins.noteChanged(certs)
	case errors.Is(why, ErrWrongPIN), errors.Is(why, ErrWrongPUK):
		memory.noteRefused(certs, c.given)
	case errors.Is(why, ErrPINLocked), errors.Is(why, ErrPUKLocked):
		memory.noteLocked(certs)
	case !errors.Is(why, ErrNewPIN) && !errors.Is(why, ErrPINLength):
		memory.noteUnknown(certs)
	}
	if answer.Token != nil {
		m.setToken(e, *answer.Token)
	}
	e.card.PIN = m.completePIN(certs, e.card.PIN)
	m.publish()
	if answer.Tried && why == nil {
		m.emit(Event{Kind: PINChanged, Card: e.card.ID, Fingerprint: cert, Reason: c.op, Epoch: e.card.Epoch})
	} else if answer.Tried {
		m.emit(Event{Kind: PINRefused, Card: e.card.ID, Fingerprint: cert, Reason: why.Error(), Epoch: e.card.Epoch})
	}
}

// changeCodes say what return values mean of a new PIN, and of modules that
// cannot change one (PKCS#11 v2.40 §5.6, §5.7); the others are codes'.
var changeCodes = map[uint]error{
	0x20:  ErrNewPIN,   // CKR_DATA_INVALID: cards with rules of their own
	0x21:  ErrNewPIN,   // CKR_DATA_LEN_RANGE
	0x54:  ErrNoChange, // CKR_FUNCTION_NOT_SUPPORTED
	0xA1:  ErrNewPIN,   // CKR_PIN_INVALID
	0xA2:  ErrNewPIN,   // CKR_PIN_LEN_RANGE
	0xE2:  ErrNoChange, // CKR_TOKEN_WRITE_PROTECTED
	0x103: ErrNoChange, // CKR_USER_TYPE_INVALID
}

// failure turns what the changer answered, or why it ended, into an *Error.
func (c pinChange) failure(err error) error {
	var result *Error
	if !errors.As(failure(c.op, err), &result) {
		return err
	}
	var f *wire.Fault
	if errors.As(err, &f) && f.Kind == wire.PKCS11 && changeCodes[f.Code] != nil {
		result.Err = changeCodes[f.Code]
	}
	if c.role == rolePUK && errors.Is(result.Err, ErrNewPIN) && f.Code == 0xA2 { // the new one was measured before
		result.Err, result.Hint = fmt.Errorf("%w: the PUK", ErrPINLength), "Enter the PUK as it is on the card's letter. The card was not asked."
	}
	result.Err = c.inRole(result.Err)
	return result
}

// inRole says of a PUK what is said of a PIN.
func (c pinChange) inRole(err error) error {
	if c.role != rolePUK {
		return err
	}
	switch {
	case errors.Is(err, ErrWrongPIN):
		return ErrWrongPUK
	case errors.Is(err, ErrPINLocked):
		return ErrPUKLocked
	case errors.Is(err, ErrPINRefusedBefore):
		return fmt.Errorf("%w: %w", ErrWrongPUK, err)
	}
	return err
}

// activationHint is for cards whose PIN nobody has chosen yet. (FINEID cards of
// 2023 and later come with an activation code; DVV.)
const activationHint = "This card has not been activated: its PIN has never been chosen. Choose it with kortti pin change and the activation PIN from the card's letter as the old PIN, or with the card issuer's program."

// hintActivation tells of activation where a card that wants it refuses a PIN.
func (m *Manager) hintActivation(e *entry, err error) error {
	var failed *Error
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.card.PIN.ToBeChanged && errors.As(err, &failed) && (errors.Is(err, ErrWrongPIN) || errors.Is(err, ErrPINUnusable)) {
		failed.Hint = activationHint
	}
	return err
}
