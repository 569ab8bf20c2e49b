package tlsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// This file is about hosts that ask for a certificate only after they have read
// a request, as Apache's SSLVerifyClient in a Directory or Location makes them.
// In TLS 1.2 they renegotiate; in TLS 1.3 they would need post-handshake
// authentication, which crypto/tls does not offer, and answer 403 without having
// asked; over HTTP/2 they may say HTTP_1_1_REQUIRED. All other requests to such a
// host go the usual way: only those for the places that ask get connections that
// cost a signature.

// Reasons of profiles.
const (
	reasonAsksLater = "the host asks for the certificate after the request, for some paths"
	reasonForbidden = "the host refuses requests for some paths without having asked for a certificate; in TLS 1.2 it asks for one after the request"
	reasonNotH2     = "the host refuses HTTP/2 for some paths; in TLS 1.2 with HTTP/1.1 it asks for the certificate after the request"
	reasonHTTP1     = "the host refused a request over HTTP/2 and demanded HTTP/1.1"
)

var (
	errNotAsked = errors.New("the host did not ask for a certificate here")
	errHTTP1    = errors.New("the host takes this request over HTTP/1.1 only; Kortti knows it now: send the request again")
)

// route returns the pool that a request takes a connection from.
func (t *Transport) route(req *http.Request, tg target) (*pool, error) {
	ctx, at := req.Context(), placeOf(req)
	asks, known := t.places.get(at, time.Now())
	if asks && t.profile(tg).TLS12Renegotiation {
		if p, err := t.laterPool(ctx, at); p != nil || err != nil {
			return p, err
		}
	}
	p, err := t.pool(ctx, tg)
	if err != nil || p.identity != nil || known || repeatable(req) || !t.mayLook(at) || !t.probe(ctx, at) {
		return p, err
	}
	// What cannot be repeated must not be what the host's ways are learned from.
	t.learnLater(tg, reasonAsksLater)
	if p, err := t.laterPool(ctx, at); p != nil || err != nil {
		return p, err
	}
	return p, nil
}

func (t *Transport) learnLater(tg target, reason string) {
	t.learn(tg, reason, func(p *Profile) { p.TLS12Renegotiation, p.WarmUp = true, true })
}

// repeatable reports whether a request may be made a second time after a host
// has seen it: RFC 9110 section 9.2.1 calls such methods safe.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return newBody(req.Body) == nil
	}
	return false
}

// heed looks for signs of a host that cannot be served in the usual way, in what
// has become of a request, and learns from them. again says that the request
// takes another way now and may be made again; so it may if it comes in as true,
// which is what the connection says. The error is the request's, in better words
// where there are any.
func (t *Transport) heed(req *http.Request, c *conn, resp *http.Response, err error, again bool) (bool, error) {
	at := placeOf(req)
	var reason string
	switch {
	case c.later:
		return t.heedLater(req, c, err, again)
	case again:
		return true, err
	case req.Context().Err() != nil:
		return false, err
	case err != nil && c.asked.Load() && !c.h2: // its only request
		t.places.put(at, true)
		reason = reasonAsksLater
	case err != nil && wantsHTTP1(err):
		err = errHTTP1
		if !t.probe(req.Context(), at) {
			t.learn(at.target, reasonHTTP1, func(p *Profile) { p.HTTP1 = true })
			return repeatable(req), err
		}
		reason = reasonNotH2
	case forbidden(c, resp) && t.mayLook(at) && t.probe(req.Context(), at):
		reason = reasonForbidden
	default:
		return false, err
	}
	t.learnLater(at.target, reason)
	return repeatable(req), err
}

// heedLater is heed for a connection on which the host may ask: a card that was
// locked since it was looked at is unlocked, and a host that asks a second time,
// which Go's client does not do, gets another connection.
func (t *Transport) heedLater(req *http.Request, c *conn, err error, again bool) (bool, error) {
	switch {
	case err == nil || !again && !repeatable(req) || req.Context().Err() != nil || c.wire.registry.reason() != nil:
		return false, err
	case errors.Is(err, ErrLocked):
		tg := c.pool.dialing.target
		err := t.unlock(req.Context(), UnlockRequest{tg.host, tg.port, *c.pool.identity})
		return err == nil, err
	}
	var local *net.OpError
	again = again || errors.As(err, &local) && local.Op == "local error" && strings.HasSuffix(local.Error(), "no renegotiation")
	return again, err
}

// forbidden reports whether a host that has asked for no certificate refuses a
// request in a way that may be for want of one: in TLS 1.3 it has no better way
// to ask than 403, and in any version it may have no room for the body (413).
func forbidden(c *conn, resp *http.Response) bool {
	if resp == nil || c.pool.identity != nil {
		return false
	}
	return resp.StatusCode == http.StatusForbidden && c.version == tls.VersionTLS13 ||
		resp.StatusCode == http.StatusRequestEntityTooLarge
}

// mayLook limits the looks at hosts that say 403 for reasons of their own.
func (t *Transport) mayLook(at place) bool {
	now := time.Now()
	if asks, known := t.places.get(at, now); known {
		return asks
	}
	return t.profile(at.target).TLS12Renegotiation || t.places.guesses(at.target, now) < maxGuesses
}

// wantsHTTP1 reports whether an HTTP/2 host demands HTTP/1.1 for a request (RFC
// 9113 section 7).
func wantsHTTP1(err error) bool {
	var s streamError
	if errors.As(err, &s) {
		const http11Required = 13
		return s.Code == http11Required
	}
	return strings.Contains(err.Error(), "ErrCode=HTTP_1_1_REQUIRED") // of a GOAWAY
}

// discard lets go of a response whose request is made again.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, discardable) // to keep the connection, if that is little
	resp.Body.Close()
}

// errAsked ends a probe: the host has asked.
var errAsked = errors.New("asked after the request")

// probe reports whether a host asks for a certificate after a request for a
// place, and remembers it. It presents none and asks no person. A host that
// cannot be asked, perhaps for want of TLS 1.2, counts as one that does not.
func (t *Transport) probe(ctx context.Context, at place) bool {
	if asks, known := t.places.get(at, time.Now()); known {
		return asks
	}
	err := t.probes.do(ctx, at, func(ctx context.Context, _ *flight) error {
		err := t.inquire(ctx, at, func(*tls.CertificateRequestInfo) error { return errAsked })
		if ctx.Err() == nil {
			t.places.put(at, errors.Is(err, errAsked))
		}
		t.log.Debug("looked whether a host asks after the request", "host", at.address(), "result", err)
		return nil
	})
	asks, _ := t.places.get(at, time.Now())
	return err == nil && asks
}

// inquire makes a HEAD request over a connection of its own on which the host
// may ask for a certificate, and returns what refuse says of that, or nil.
func (t *Transport) inquire(ctx context.Context, at place, refuse func(*tls.CertificateRequestInfo) error) error {
	settings := t.settings(at.target)
	if !settings.Allowed {
		return ErrNotAllowed
	}
	registry := new(wires)
	defer registry.end(errProbed)
	c, err := t.dial(ctx, dialing{
		target: at.target, settings: settings, wires: registry, sessions: new(sessions), later: true,
		certificate: func(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return nil, refuse(cri)
		},
	})
	if err != nil {
		return fmt.Errorf("asked in the first handshake, or not at all: %v", err) // not refuse's word
	}
	return c.head(ctx, at)
}

// laterPool returns the pool for the places of a host that ask, nil if this one
// does not after all.
func (t *Transport) laterPool(ctx context.Context, at place) (*pool, error) {
	for {
		t.mu.Lock()
		p := t.later[at.target]
		t.mu.Unlock()
		if p != nil {
			return p, nil
		}
		err := t.logins.do(ctx, at.target, func(ctx context.Context, f *flight) error {
			c := &contact{t: t, flight: f, target: at.target, settings: t.settings(at.target), later: &at}
			err := c.run(ctx)
			if c.fruitless(ctx, err) {
				t.noLonger(at, err)
				return errNotAsked
			}
			return err
		})
		if err != nil && !errors.Is(err, errNotAsked) {
			return nil, err
		}
		if asks, _ := t.places.get(at, time.Now()); err != nil && !asks {
			return nil, nil
		}
	}
}

// noLonger notes that a place does not ask, and drops the profile of a host that
// has no other place which does.
func (t *Transport) noLonger(at place, why error) {
	t.places.put(at, false)
	if _, others := t.places.asking(at.target); !others {
		t.unlearn(at.target, why.Error())
	}
}

// hear lets the host ask on a connection, by a request for c.later.
func (c *contact) hear(ctx context.Context, d dialing, conn *conn) error {
	err := conn.head(ctx, *c.later)
	switch {
	case err == nil && conn.signed.Load():
		conn.proven.Store(true)
		return nil
	case err == nil:
		return errNotAsked
	case !conn.signed.Load() || ctx.Err() != nil:
		return err
	}
	// The host has refused the certificate. Those who come a moment later are to
	// hear it too, instead of having the card sign again.
	err = &UpstreamError{c.target.address(), "request", err}
	d.wires, d.sessions = new(wires), new(sessions)
	if ended := c.publish(ctx, d, nil, refusal{err, time.Now()}); ended != nil {
		return ended
	}
	return err
}

// fruitless reports whether the error of a contact says that the place does not
// ask: it has not asked, or the host does not speak TLS 1.2 any more.
func (c *contact) fruitless(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || c.choice.why.Asked {
		return false
	}
	var up *UpstreamError
	var untrusted *tls.CertificateVerificationError
	return errors.Is(err, errNotAsked) ||
		errors.As(err, &up) && up.Op == "handshake" && !up.Timeout() && !errors.As(err, &untrusted)
}
