package tlsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/kortti-id/kortti/card"
)

// maxRounds limits the handshakes of a first contact: one to hear what the host
// wants, one after the person has chosen and unlocked, and some for cards that
// are locked or pulled meanwhile.
const maxRounds = 4

// errOutside aborts a handshake, before any signature, because something must
// be decided outside of it.
var errOutside = errors.New("decide outside of the handshake")

// contact is the first contact with a host: it ends with a pool that has one
// connection.
type contact struct {
	t        *Transport
	flight   *flight
	target   target
	settings HostSettings
	later    *place            // where the host asks after a request; nil for the usual way
	fixed    *card.Fingerprint // the identity chosen in an earlier round

	// What the latest handshake came to; written inside it.
	choice choice
	picked *Identity // the identity that is to be used
	seq    uint64    // Transport.seq before the identities were looked at
}

// pool returns the pool for a target, after a first contact if there is none.
func (t *Transport) pool(ctx context.Context, tg target) (*pool, error) {
	for {
		t.mu.Lock()
		p := t.pools[tg]
		t.mu.Unlock()
		if p != nil {
			return p, nil
		}
		err := t.contacts.do(ctx, tg, func(ctx context.Context, f *flight) error {
			c := &contact{t: t, flight: f, target: tg, settings: t.settingsNow(tg)}
			return c.run(ctx)
		})
		if err != nil {
			return nil, err
		}
	}
}

func (c *contact) run(ctx context.Context) error {
	if !c.settings.Allowed {
		return fmt.Errorf("connect to %s: %w", c.target.host, ErrNotAllowed)
	}
	var last error
	for range maxRounds {
		err := c.round(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errOutside):
			if err := c.decide(ctx); err != nil {
				return err
			}
		case !errors.Is(err, ErrLocked): // locked since it was looked at: look again
			return err
		}
		last = err
	}
	return fmt.Errorf("connect to %s: the card's state changed %d times meanwhile: %w", c.target.host, maxRounds, last)
}

// round makes one handshake and publishes the pool if it succeeds.
func (c *contact) round(ctx context.Context) error {
	d := dialing{
		target: c.target, settings: c.settings, wires: new(wires), sessions: new(sessions),
		certificate: c.certificate, later: c.later != nil,
	}
	if c.picked != nil {
		d.maxTLS = c.picked.MaxVersion
	}
	c.choice, c.picked = choice{}, nil
	conn, err := c.t.dial(ctx, d)
	if err == nil && c.later != nil {
		err = c.hear(ctx, d, conn)
	}
	if err != nil {
		d.wires.end(ErrClosed)
		return err
	}
	if err := c.publish(ctx, d, conn, refusal{}); err != nil {
		d.wires.end(err)
		return err
	}
	return nil
}

// certificate answers the host's request inside the handshake, if that can be
// done without asking anybody.
func (c *contact) certificate(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.t.mu.Lock()
	c.seq = c.t.seq
	c.t.mu.Unlock()
	c.choice = choose(c.target.host, demandOf(cri), c.t.identities(), c.settings, time.Now())
	c.picked = c.pick()
	if c.picked == nil {
		return nil, errOutside
	}
	c.flight.subject.Store(&c.picked.Fingerprint)
	if !c.picked.Unlocked || c.picked.MaxVersion != 0 && cri.Version > c.picked.MaxVersion {
		return nil, errOutside
	}
	return c.t.certificate(*c.picked, c.target.host)
}

// certificate returns what the handshake needs to present an identity.
func (t *Transport) certificate(id Identity, host string) (*tls.Certificate, error) {
	key, err := t.config.Source.Signer(id.Fingerprint, host)
	if err != nil {
		return nil, err
	}
	t.signatures.Add(1)
	return id.certificate(key), nil
}

// pick returns the identity that the rules or an earlier round have chosen, nil
// when somebody must be asked.
func (c *contact) pick() *Identity {
	if c.fixed == nil {
		return c.choice.chosen
	}
	for i := range c.choice.candidates {
		if c.choice.candidates[i].Fingerprint == *c.fixed {
			return &c.choice.candidates[i]
		}
	}
	return nil
}

// decide asks whoever must be asked before the next handshake.
func (c *contact) decide(ctx context.Context) error {
	if c.picked == nil {
		if err := c.ask(ctx); err != nil {
			return err
		}
	}
	c.fixed = &c.picked.Fingerprint
	c.flight.subject.Store(c.fixed)
	if c.picked.Unlocked {
		return nil
	}
	return c.t.unlock(ctx, UnlockRequest{c.target.host, c.target.port, *c.picked})
}

// ask has one of the candidates chosen.
func (c *contact) ask(ctx context.Context) error {
	switch {
	case len(c.choice.candidates) == 0:
		return &ChoiceError{c.choice.why, ErrNoCertificate}
	case c.fixed != nil: // chosen in an earlier round, gone since
		return &ChoiceError{c.choice.why, ErrRemoved}
	case c.t.config.Choose == nil:
		return &ChoiceError{c.choice.why, ErrAmbiguous}
	}
	f, err := c.t.config.Choose(ctx, c.target.host, c.choice.candidates, c.choice.why)
	if err != nil {
		return err
	}
	c.fixed = &f
	if c.picked = c.pick(); c.picked == nil {
		return &ChoiceError{c.choice.why, ErrNoCertificate}
	}
	return nil
}

// unlock has an identity unlocked, once for all hosts that wait for it.
func (t *Transport) unlock(ctx context.Context, r UnlockRequest) error {
	if t.config.Unlock == nil {
		return fmt.Errorf("present a certificate to %s: %w", r.Host, ErrLocked)
	}
	return t.unlocks.do(ctx, r.Identity.Fingerprint, func(ctx context.Context, _ *flight) error {
		return t.config.Unlock(ctx, r)
	})
}

// publish makes the pool known, unless the identity has ended since the
// handshake looked at it or nobody may use the pool any more.
func (c *contact) publish(ctx context.Context, d dialing, first *conn, refused refusal) error {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.picked != nil {
		if e := t.ended[c.picked.Fingerprint]; e.seq > c.seq {
			return e.reason
		}
	}
	pools := t.pools
	if c.later != nil {
		pools = t.later
	}
	pools[c.target] = newPool(t, d, c.picked, first, refused)
	return nil
}
