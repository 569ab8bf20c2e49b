package tlsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errRenew ends a pool whose host or identity must be looked at anew: the
	// requests that wait for it go back to the first contact.
	errRenew = errors.New("the host or the card changed meanwhile: try again")

	// errWouldSign aborts the handshake of a connection that was to be free of
	// signatures: the host has refused the ticket.
	errWouldSign = errors.New("the host did not resume the session")
)

// pool keeps the connections to one host with one identity, during one time
// that the identity is unlocked.
type pool struct {
	t        *Transport
	dialing  dialing
	identity *Identity // nil when the host asks for no certificate
	ctx      context.Context
	cancel   context.CancelCauseFunc

	// dirty asks whoever holds mu to look at the pool again: the state hooks of
	// connections may run while mu is held, by this goroutine even.
	dirty atomic.Bool

	mu        sync.Mutex // guards what follows
	conns     []*conn
	waiting   []*waiter // first come, first served
	pending   int       // dials under way
	h2        bool      // what the newest connection speaks
	progress  time.Time // when a request last got a connection
	holdUntil time.Time // no dial before, after one that failed
	timer     *time.Timer
	refused   refusal
	retired   error
	upgrade   *pool // of HTTP/1.1 connections, for a host that speaks HTTP/2
}

// waiter is a request that waits for a connection.
type waiter struct{ got chan grant }

type grant struct {
	conn *conn
	err  error
}

// refusal is the answer of a host that a signature did not satisfy. Requests
// that come a moment later get the same one: those that waited together do not
// all arrive at once, and another signature would change nothing.
type refusal struct {
	err error
	at  time.Time
}

// newPool returns a pool that dials as d says; first may be nil. refused is what
// is known of the host already.
func newPool(t *Transport, d dialing, identity *Identity, first *conn, refused refusal) *pool {
	p := &pool{t: t, dialing: d, identity: identity, refused: refused}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	if identity != nil {
		p.dialing.maxTLS = identity.MaxVersion
	}
	p.timer = time.AfterFunc(time.Hour, p.update)
	p.timer.Stop()
	if first != nil {
		p.mu.Lock()
		p.join(first)
		p.mu.Unlock()
	}
	d.sessions.notify(p.update)
	return p
}

// join adds a new connection. The caller holds the lock.
func (p *pool) join(c *conn) {
	c.pool = p
	p.conns = append(p.conns, c)
	p.h2 = c.h2
	c.cc.SetStateHook(func(*http.ClientConn) { p.update() })
}

// get waits for a connection on which a request may be made. The caller must
// make exactly one.
func (p *pool) get(ctx context.Context) (*conn, error) {
	w := &waiter{got: make(chan grant, 1)}
	p.mu.Lock()
	if err := p.closedTo(time.Now()); err != nil {
		p.unlock()
		return nil, err
	}
	if len(p.waiting) == 0 {
		p.progress = time.Now() // the wait for headway begins now
	}
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	p.update()
	select {
	case g := <-w.got:
		if g.conn == nil || ctx.Err() == nil {
			return g.conn, g.err
		}
		p.giveBack(g.conn)
		return nil, context.Cause(ctx)
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.waiting = slices.DeleteFunc(p.waiting, func(x *waiter) bool { return x == w })
	p.unlock()
	select {
	case g := <-w.got: // granted at the same moment
		if g.conn != nil {
			p.giveBack(g.conn)
		}
	default:
	}
	return nil, context.Cause(ctx)
}

// giveBack returns a connection that was granted to a request which has ended
// since: a request with an ended context would take it down with it.
func (p *pool) giveBack(c *conn) {
	c.cc.Release()
	p.settle(c, unknown, nil)
}

// closedTo says why no request may wait now, nil if it may.
func (p *pool) closedTo(now time.Time) error {
	if p.retired == nil && now.Sub(p.refused.at) < StallTime {
		return p.refused.err
	}
	return p.retired
}

// update looks at the pool. It never blocks: if the lock is held, its holder
// looks again after releasing it.
func (p *pool) update() {
	p.dirty.Store(true)
	for p.dirty.Load() && p.mu.TryLock() {
		p.dirty.Store(false)
		p.look(time.Now())
		p.mu.Unlock()
	}
}

// unlock releases the lock and looks at the pool if that was asked meanwhile.
func (p *pool) unlock() {
	p.mu.Unlock()
	if p.dirty.Load() {
		p.update()
	}
}

// look grants connections to those who wait and dials for the rest.
func (p *pool) look(now time.Time) {
	if p.retired != nil {
		return
	}
	p.conns = slices.DeleteFunc(p.conns, func(c *conn) bool {
		dead := c.dead()
		if dead && c.signed.Load() && !c.proven.Load() && !c.used && now.Sub(c.born) < StallTime {
			p.refuse(c, c.cc.Err())
		}
		return dead
	})
	for len(p.waiting) > 0 {
		c := p.reserve()
		if c == nil {
			break
		}
		c.uses++
		p.progress = now
		p.waiting[0].got <- grant{conn: c}
		p.waiting = p.waiting[1:]
	}
	perConn := 1
	if p.h2 {
		perConn = h2Streams
	}
	for len(p.waiting) > p.pending*perConn && p.mayDial(now) {
		p.startDial()
	}
	p.setTimer(now)
}

// dead reports whether a connection is no use any more. One that was told to go
// away by its host is closed. A connection that died before its first response
// counts as alive until its requests have told why, see settle. The pool's lock
// is held.
func (c *conn) dead() bool {
	if c.cc.Err() == nil {
		if !dismissed(c.cc) {
			return false
		}
		c.wire.Close()
	}
	return c.proven.Load() || c.uses == 0
}

// dismissed reports whether a live connection carries no request and can take
// none: its host has told it to go away (an HTTP/2 GOAWAY).
//
// The three questions are no snapshot, so their order matters. Only a holder of
// the pool's lock reserves, so a connection that carries nothing goes on to
// carry nothing; and one that net/http has let go of meanwhile, perhaps because
// it belongs to a switched protocol now, says so in Err, which comes last.
func dismissed(c connState) bool {
	return c.InFlight() == 0 && c.Available() == 0 && c.Err() == nil
}

// connState is what an http.ClientConn tells about itself.
type connState interface {
	InFlight() int
	Available() int
	Err() error
}

// reserve returns a connection that can take a request.
func (p *pool) reserve() *conn {
	for _, c := range p.conns {
		if c.cc.Err() == nil && c.cc.Reserve() == nil {
			return c
		}
	}
	return nil
}

// mayDial applies the rules of the package's doc comment.
func (p *pool) mayDial(now time.Time) bool {
	all := len(p.conns) + p.pending
	switch {
	case now.Before(p.holdUntil), all >= maxConns:
		return false
	case all == 0, p.identity == nil, p.dialing.sessions.has():
		return true
	}
	return all < TicketlessConns && now.Sub(p.progress) >= StallTime
}

// setTimer has the pool looked at when a rule that depends on time may apply.
func (p *pool) setTimer(now time.Time) {
	if len(p.waiting) == 0 {
		p.timer.Stop()
		return
	}
	at := p.progress.Add(StallTime)
	if p.holdUntil.After(now) {
		at = p.holdUntil
	}
	if at.After(now) {
		p.timer.Reset(at.Sub(now))
	}
}

// startDial makes a connection. It may cost a signature if there is no other,
// or if the host has no ticket for us; with a ticket at hand it must not.
func (p *pool) startDial() {
	offered, has := p.dialing.sessions.Get("")
	maySign := len(p.conns)+p.pending == 0 || !has
	p.pending++
	p.progress = time.Now() // the next dial for want of headway waits its turn
	p.t.dials.Go(func() {
		d := p.dialing
		d.certificate = func(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			switch {
			case p.identity == nil:
				return nil, errRenew
			case !maySign:
				return nil, errWouldSign
			}
			return p.t.certificate(*p.identity, d.target.host)
		}
		c, err := p.t.dial(p.ctx, d)
		if errors.Is(err, errWouldSign) {
			p.dialing.sessions.forget(offered)
		}
		p.dialled(c, err)
	})
}

// dialled takes the result of a dial.
func (p *pool) dialled(c *conn, err error) {
	p.mu.Lock()
	p.pending--
	renew := false
	switch {
	case p.retired != nil:
		if c != nil {
			c.wire.Close()
		}
	case err == nil:
		p.join(c)
	case errors.Is(err, errWouldSign): // the others go on without it
	case len(p.conns)+p.pending > 0:
		p.holdUntil = time.Now().Add(StallTime)
		p.t.log.Debug("further connection failed", "host", p.dialing.target.address(), "error", err)
	case !p.dialing.h1only && (errors.Is(err, errRenew) || errors.Is(err, ErrLocked)):
		renew = true
	default:
		p.failWaiting(err)
	}
	p.mu.Unlock()
	if renew {
		p.t.renew(p)
	}
	p.update()
}

// renew forgets a pool that has no connections, so that the next look at its
// host begins with a first contact.
func (t *Transport) renew(p *pool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, pools := range []map[target]*pool{t.pools, t.later} {
		if pools[p.dialing.target] == p {
			delete(pools, p.dialing.target)
		}
	}
	p.retire(errRenew)
}

func (p *pool) failWaiting(err error) {
	for _, w := range p.waiting {
		w.got <- grant{err: err}
	}
	p.waiting = nil
}

// outcome is what a request's end says about its connection.
type outcome int

const (
	unknown  outcome = iota // nothing: the request ended by itself
	answered                // the host has accepted the certificate
	failed
)

// settle notes the end of a request's handing over; err goes with failed. A
// signed connection that dies without any response has most likely been
// refused for its certificate (in TLS 1.3 the host says so only after the
// handshake), so those who wait get the error too, instead of a signature each.
// settle returns the error for the request where it knows better: why the pool
// has ended, or what the host said at last.
func (p *pool) settle(c *conn, o outcome, err error) (better error) {
	p.mu.Lock()
	c.uses--
	switch {
	case o == answered:
		c.proven.Store(true)
	case o == failed && c.signed.Load() && !c.proven.Load() && c.cc.Err() != nil:
		p.refuse(c, err)
		better = p.refused.err
	}
	if p.retired != nil {
		better = p.retired
	}
	p.mu.Unlock()
	p.update()
	return better
}

// refuse gives those who wait, and those who come in a moment, the error of a
// signed connection that died.
func (p *pool) refuse(c *conn, err error) {
	err = &UpstreamError{p.dialing.target.address(), "request", c.alert(err)}
	p.refused = refusal{err, time.Now()}
	p.failWaiting(err)
}

// forUpgrade returns the pool for requests that switch protocols: p itself if
// its host speaks HTTP/1.1, otherwise one that offers only that, with the same
// identity and tickets.
func (p *pool) forUpgrade() *pool {
	p.mu.Lock()
	defer p.unlock()
	if !p.h2 || p.retired != nil {
		return p
	}
	if p.upgrade == nil {
		d := p.dialing
		d.h1only = true
		p.upgrade = newPool(p.t, d, p.identity, nil, refusal{})
	}
	return p.upgrade
}

// retire ends the pool for ever: its connections are closed, its tickets
// dropped, its dials cancelled, and all that use or wait for it get reason.
func (p *pool) retire(reason error) {
	p.mu.Lock()
	if p.retired != nil {
		p.mu.Unlock()
		return
	}
	p.retired = reason
	p.failWaiting(reason)
	upgrade, conns := p.upgrade, p.conns
	p.conns = nil
	p.timer.Stop()
	p.mu.Unlock()
	if upgrade != nil { // before its wires end, or its requests would know no reason
		upgrade.retire(reason)
	}
	p.cancel(reason)
	p.dialing.sessions.Put("", nil)
	p.dialing.wires.end(reason)
	if p.dialing.later {
		for _, c := range conns { // its request must not wait for a card that signs
			c.cc.Close()
		}
	}
}
