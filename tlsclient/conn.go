package tlsclient

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection of a pool.
type conn struct {
	cc      *http.ClientConn
	pool    *pool
	tls     *tls.Conn
	wire    *wire
	born    time.Time
	h2      bool
	version uint16 // of TLS
	later   bool   // the host may ask for a certificate after a request

	shaken atomic.Bool // its first handshake is over
	asked  atomic.Bool // the host has asked for a certificate after a request, unexpectedly
	signed atomic.Bool // a handshake on it has cost a signature
	owed   atomic.Bool // no request has accounted for that signature yet
	proven atomic.Bool // a response has come since: the host has accepted the certificate

	unsigned atomic.Pointer[error] // why the key did not sign

	// Guarded by the pool's lock.
	uses int  // requests between their reservation and their response or error
	used bool // a request was handed to it
}

// present returns what answers a host that asks for a certificate on c.
func (c *conn) present(certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if c.shaken.Load() && !c.later {
			c.asked.Store(true)
			return nil, ErrAsksLater
		}
		cert, err := certificate(cri)
		if err == nil {
			c.proven.Store(false)
			c.signed.Store(true)
			c.owed.Store(true)
			if signer, ok := cert.PrivateKey.(crypto.Signer); ok {
				cert.PrivateKey = noting{signer, &c.unsigned}
			}
		}
		return cert, err
	}
}

// noting is a key that notes why it did not sign: in TLS 1.3 crypto/tls keeps
// the words of that error alone.
type noting struct {
	crypto.Signer
	why *atomic.Pointer[error]
}

func (k noting) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := crypto.SignMessage(k.Signer, rand, message, opts)
	if err != nil {
		k.why.Store(&err)
	}
	return signature, err
}

// roundTrip hands a request over. again says that the request failed and may be
// made on another connection: the host cannot have seen it and its body is
// untouched; or it is a safe one without a body, in its first attempt, and the
// host has closed the kept connection without a word, as it may at any moment
// (RFC 9112 section 9.5, RFC 9110 section 9.2.2).
func (c *conn) roundTrip(req *http.Request, body *body, first bool) (resp *http.Response, err error, again bool) {
	c.use()
	kept := c.proven.Load() && !c.h2 && !c.later
	if c.later && !c.signed.Load() && !repeatable(req) {
		if err := c.warmUp(req); err != nil {
			return c.failed(req, body, err, true)
		}
	}
	var headersOut, answering atomic.Bool
	out := req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders:         func() { headersOut.Store(true) },
		GotFirstResponseByte: func() { answering.Store(true) },
	}))
	if body != nil {
		out.Body = body
	}
	resp, err = c.cc.RoundTrip(out)
	if err == nil {
		body.commit()
		c.pool.settle(c, answered, nil)
		resp.Request = req
		if resp.StatusCode != http.StatusSwitchingProtocols { // there wire explains errors itself
			resp.Body = &answer{resp.Body, c.wire}
		}
		return resp, nil, false
	}
	closed := first && kept && !answering.Load() && repeatable(req) && !wantsUpgrade(req)
	return c.failed(req, body, err, closed || !headersOut.Load() || unprocessed(err))
}

// failed settles a request that has failed; harmless says that it may be made
// again as far as the host is concerned.
func (c *conn) failed(req *http.Request, body *body, err error, harmless bool) (_ *http.Response, _ error, again bool) {
	again = harmless && body.detach() && req.Context().Err() == nil
	o := failed
	if req.Context().Err() != nil || body.failed() {
		o = unknown
	}
	if better := c.pool.settle(c, o, err); better != nil {
		return nil, better, false
	}
	return nil, err, again
}

// warmUp makes a request without a body for the path of req, so that the host
// asks for its certificate now. What the host answers is for req to hear too.
func (c *conn) warmUp(req *http.Request) error {
	if err := c.head(req.Context(), placeOf(req)); err != nil {
		return err
	}
	c.pool.mu.Lock()
	defer c.pool.unlock()
	return c.cc.Reserve() // anew: the first reservation is used up
}

// head makes a HEAD request for a place, with nothing of a person's in it.
func (c *conn) head(ctx context.Context, at place) error {
	path, err := url.PathUnescape(at.path)
	if err != nil {
		return err
	}
	u := &url.URL{Scheme: "https", Host: strings.TrimSuffix(at.address(), ":443"), Path: path, RawPath: at.path}
	req := (&http.Request{Method: http.MethodHead, URL: u, Header: http.Header{"User-Agent": {"Kortti"}}}).WithContext(ctx)
	resp, err := c.cc.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// use notes that a request is handed to the connection.
func (c *conn) use() {
	c.pool.mu.Lock()
	defer c.pool.unlock()
	c.used = true
}

// alert returns the host's last word on a dead connection if it was a TLS alert
// and has arrived, otherwise err. HTTP/2 tells only the streams that it had begun.
func (c *conn) alert(err error) error {
	if c.later { // net/http may be reading, for as long as the card signs; over HTTP/1.1 err is the alert
		return err
	}
	c.wire.Close() // so that the read cannot block
	_, last := c.tls.Read(make([]byte, 1))
	var remote *net.OpError
	if errors.As(last, &remote) && remote.Op == "remote error" { // crypto/tls's words for an alert
		return last
	}
	return err
}

// unprocessed reports whether an HTTP/2 host has said that it has not acted on
// the request: its stream lies above the last one of a GOAWAY (RFC 9113 section
// 6.8) or was refused (section 8.7). net/http has no names for these errors;
// its transport recognises the same two.
func unprocessed(err error) bool {
	var s streamError
	if errors.As(err, &s) {
		const refusedStream = 7
		return s.Code == refusedStream
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == "http2: Transport received Server's graceful shutdown GOAWAY" {
			return true
		}
	}
	return false
}

// streamError has the fields of net/http's HTTP/2 stream error, whose As method
// fills any struct of this shape.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "HTTP/2 stream error" }

// answer is a response's body; it says why the connection was closed.
type answer struct {
	io.ReadCloser
	wire *wire
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		if reason := a.wire.registry.reason(); reason != nil {
			err = fmt.Errorf("read the response: connection closed: %w", reason)
		}
	}
	return n, err
}

// body is a request's body during one attempt. As long as nothing was read from
// it, another attempt can have it: a failed attempt's Close is kept from it
// until that is decided. A nil *body is the body of a request without one.
type body struct {
	mu        sync.Mutex
	rc        io.ReadCloser
	read      bool // something was read or tried to be
	closed    bool // the attempt has closed it
	committed bool // this attempt is the last
	detached  bool // another attempt has it
	err       error
}

func newBody(rc io.ReadCloser) *body {
	if rc == nil || rc == http.NoBody {
		return nil
	}
	return &body{rc: rc}
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.detached || b.closed {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.read, b.committed = true, true
	b.mu.Unlock()
	n, err := b.rc.Read(p)
	if err != nil && err != io.EOF {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

func (b *body) Close() error {
	b.mu.Lock()
	closing := b.committed && !b.closed && !b.detached
	b.closed = true
	b.mu.Unlock()
	if closing {
		return b.rc.Close()
	}
	return nil
}

// commit says that no other attempt follows.
func (b *body) commit() {
	if b == nil {
		return
	}
	b.mu.Lock()
	closing := b.closed && !b.committed && !b.detached
	b.committed = true
	b.mu.Unlock()
	if closing {
		b.rc.Close()
	}
}

// detach takes the body from this attempt, if nothing was read, for another.
func (b *body) detach() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read || b.committed {
		return false
	}
	b.detached = true
	return true
}

// failed reports whether reading the body failed.
func (b *body) failed() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}
