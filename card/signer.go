package card

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// signer is an unlocked card: the process whose life is the unlocked state.
type signer struct {
	manager  *Manager
	entry    *entry
	process  *process
	lastUsed atomic.Int64 // Unix time in nanoseconds of the last signature, or of the login
}

func newSigner(m *Manager, e *entry, p *process) *signer {
	s := &signer{manager: m, entry: e, process: p}
	s.lastUsed.Store(time.Now().UnixNano())
	return s
}

// watch looks after the unlocked state until it ends: is the card still there,
// does the process live, has it been idle for too long?
func (s *signer) watch() {
	for s.process.reason() == nil {
		pause := s.manager.config.Poll
		if idle := time.Duration(s.manager.idleLock.Load()); idle > 0 {
			left := idle - time.Since(time.Unix(0, s.lastUsed.Load()))
			if left <= 0 {
				s.end(ErrLocked, fmt.Sprintf("not used for %v", idle))
				break
			}
			pause = min(pause, left)
		}
		select {
		case <-s.process.done:
		case <-s.manager.ctx.Done():
			s.process.end(ErrClosed)
		case <-time.After(pause):
			if !s.watchedByPCSC() {
				s.checkPresence()
			}
		}
	}
	why := s.process.reason()
	s.end(why, why.Error())
	<-s.process.done
}

// watchedByPCSC says whether PC/SC tells when the card is pulled. To ask the
// module is to send the card commands (with OpenSC one or two each time).
func (s *signer) watchedByPCSC() bool {
	m := s.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.readerOf(s.entry.reader)
	return m.pcsc == nil && ok
}

// checkPresence asks the signer, as nobody else of ours talks to an unlocked
// card. A hung module shows here too.
func (s *signer) checkPresence() {
	answer, _, err := s.process.call(context.Background(), s.manager.limits.present, wire.Request{Op: wire.Present}, nil)
	if err != nil {
		err = failure("look for the card", err)
	}
	switch {
	case err != nil && !errors.Is(err, ErrRemoved):
		s.end(err, err.Error())
	case !answer.Present:
		s.end(ErrRemoved, ErrRemoved.Error())
	}
}

// end ends the unlocked state for a reason found here: the card is gone, idle,
// or its process failed. It does nothing where Lock or the module's goroutine
// were first.
func (s *signer) end(why error, reason string) {
	m, e := s.manager, s.entry
	m.mu.Lock()
	if e.signer != s {
		m.mu.Unlock()
		return
	}
	if slot := e.module.slotOf(e); slot != nil && errors.Is(why, ErrRemoved) {
		m.forget(slot, e, why)
		m.mu.Unlock()
		e.module.wake() // the card may be there still, without its old sessions
		return
	}
	endings := m.lock(e, reason)
	m.publish()
	m.mu.Unlock()
	for _, end := range endings {
		if err := m.finish(end); err != nil {
			m.config.Log.Warn("a lock is not confirmed", "error", err)
		}
	}
}

// Signer returns the key of cert on its unlocked card for tls.Certificate's
// PrivateKey, or ErrLocked. It signs TLS client proofs for host only (which
// TLS 1.3 does not let it check), through SignMessage; it is of no use any more
// when the card is locked or removed, also if it is unlocked again later.
func (m *Manager) Signer(cert Fingerprint, host string) (crypto.MessageSigner, error) {
	const op = "get the card's key"
	e, err := m.findForLogin(cert)
	if err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	_, c, ok := m.Snapshot().Find(cert)
	if !ok {
		return nil, &Error{Op: op, Err: ErrRemoved}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case e.gone != nil:
		return nil, &Error{Op: op, Err: e.gone}
	case e.signer == nil:
		return nil, &Error{Op: op, Err: ErrLocked}
	}
	return &key{signer: e.signer, cert: cert, public: c.X509.PublicKey, host: host}, nil
}

// key signs with one certificate's key for one host.
type key struct {
	signer *signer
	cert   Fingerprint
	public crypto.PublicKey
	host   string
}

var _ crypto.MessageSigner = (*key)(nil)

// Public returns the certificate's public key.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign always refuses: nobody can tell what a digest stands for. TLS 1.0 and
// 1.1 end here.
func (k *key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, &Error{Op: "sign", Err: fmt.Errorf("%w: a digest alone", ErrNotAProof)}
}

// SignMessage has the signer process check and sign a TLS client's proof.
func (k *key) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	const op = "sign"
	if opts == nil {
		return nil, &Error{Op: op, Err: fmt.Errorf("%w: no hash is named", ErrNotAProof)}
	}
	s, m := k.signer, k.signer.manager
	request := wire.Request{Op: wire.Sign, Certificate: k.cert[:], Host: k.host, Hash: uint(opts.HashFunc())}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != opts.HashFunc().Size() {
			return nil, &Error{Op: op, Err: fmt.Errorf("%w: a PSS salt that is not as long as the hash", ErrNotAProof)}
		}
		request.PSS = true
	}
	if len(message) > wire.MaxBody {
		return nil, &Error{Op: op, Err: fmt.Errorf("%w: a handshake of %d bytes is too long", ErrNotAProof, len(message))}
	}
	_, signature, err := s.process.call(context.Background(), m.limits.sign, request, message)
	if err != nil {
		err = failure(op, err)
		if endsUnlocked(err) {
			s.end(err, err.Error())
		}
		return nil, err
	}
	s.lastUsed.Store(time.Now().UnixNano())
	m.signatures.Add(1)
	m.mu.Lock()
	m.emit(Event{Kind: SignatureMade, Card: s.entry.card.ID, Fingerprint: k.cert, Epoch: s.entry.card.Epoch})
	m.mu.Unlock()
	return signature, nil
}

// endsUnlocked says whether a failed signature ends the unlocked state: always,
// unless the request was at fault. What a module answers in the moment of
// removal is CKR_GENERAL_ERROR as often as not.
func endsUnlocked(err error) bool {
	return !errors.Is(err, ErrNotAProof) && !errors.Is(err, ErrMechanism)
}
