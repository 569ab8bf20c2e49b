package tlsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// dialing says how to make a connection.
type dialing struct {
	target   target
	settings HostSettings
	h1only   bool   // offer HTTP/1.1 alone
	later    bool   // let the host ask for a certificate after a request, see Profile.TLS12Renegotiation
	maxTLS   uint16 // the identity's limit; 0 means none
	wires    *wires
	sessions *sessions

	// certificate answers a host that asks for a certificate. It runs inside
	// the handshake: an error from it ends the handshake without a signature
	// and comes out of dial, or out of a request where the host asks later.
	certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
}

// dial connects, shakes hands and starts HTTP on the connection.
func (t *Transport) dial(ctx context.Context, d dialing) (*conn, error) {
	address := d.target.address()
	raw, err := t.connect(ctx, d)
	if err != nil {
		return nil, &UpstreamError{address, "connect", err}
	}
	w := &wire{Conn: raw, registry: d.wires, open: &t.open}
	t.open.Add(1)
	if err := d.wires.add(w); err != nil {
		w.Close()
		return nil, err
	}
	started := time.Now()
	c := &conn{wire: w, later: d.later}
	tc := tls.Client(w, d.tlsConfig(t.config.Distrusted, c))
	shake, cancel := context.WithTimeout(ctx, t.config.HandshakeTimeout)
	defer cancel()
	if err := tc.HandshakeContext(shake); err != nil {
		w.Close()
		if ended := d.wires.reason(); ended != nil {
			return nil, ended
		}
		if why := c.unsigned.Load(); why != nil {
			return nil, *why
		}
		return nil, &UpstreamError{address, "handshake", err}
	}
	c.shaken.Store(true)
	state := tc.ConnectionState()
	if state.DidResume {
		t.resumed.Add(1)
	} else {
		t.full.Add(1)
	}
	t.log.Debug("connected", "host", address, "protocol", state.NegotiatedProtocol,
		"tls", tls.VersionName(state.Version), "resumed", state.DidResume, "took", time.Since(started))
	cc, err := t.inner.NewClientConn(context.WithValue(ctx, handshaken{}, tc), "https", address)
	if err != nil {
		w.Close()
		return nil, &UpstreamError{address, "handshake", err}
	}
	c.cc, c.tls, c.born = cc, tc, time.Now()
	c.h2, c.version = state.NegotiatedProtocol == "h2", state.Version
	return c, nil
}

func (t *Transport) connect(ctx context.Context, d dialing) (net.Conn, error) {
	address := d.target.address()
	if a := d.settings.Address; a != "" {
		address = a
		if _, _, err := net.SplitHostPort(a); err != nil {
			address = net.JoinHostPort(a, d.target.port)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.config.DialTimeout)
	defer cancel()
	return t.config.DialContext(ctx, "tcp", address)
}

func (d dialing) tlsConfig(distrusted func(*x509.Certificate) bool, conn *conn) *tls.Config {
	c := &tls.Config{
		ServerName:         d.target.host,
		RootCAs:            d.settings.RootCAs,
		MinVersion:         tls.VersionTLS12, // in TLS 1.1 the key would be handed a bare digest
		MaxVersion:         lower(d.settings.MaxVersion, d.maxTLS),
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: d.sessions,
		// Where it is not expected, a renegotiation is allowed to begin only to
		// hear whether the host wants a certificate: see conn.present.
		Renegotiation:        tls.RenegotiateOnceAsClient,
		GetClientCertificate: conn.present(d.certificate),
	}
	if d.h1only || d.later || d.settings.ForceHTTP1 {
		c.NextProtos = []string{"http/1.1"}
	}
	if d.later {
		c.MaxVersion = tls.VersionTLS12
		c.ClientSessionCache = nil // a session from before the renegotiation is nobody's
	}
	if distrusted != nil {
		c.VerifyConnection = func(state tls.ConnectionState) error { return checkAnchors(state, distrusted) }
	}
	return c
}

var errDistrusted = errors.New("its trust anchor is not for hosts")

// checkAnchors wants one chain that ends elsewhere than in a distrusted anchor.
func checkAnchors(state tls.ConnectionState, distrusted func(*x509.Certificate) bool) error {
	for _, chain := range state.VerifiedChains {
		if !distrusted(chain[len(chain)-1]) {
			return nil
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: errDistrusted}
}

// lower returns the lower of two limits, where 0 is none.
func lower(a, b uint16) uint16 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// handshaken is the context key of the *tls.Conn for which newInner's transport
// makes an http.ClientConn.
type handshaken struct{}

// newInner returns the http.Transport that makes http.ClientConns of
// connections given to it. It never dials and pools nothing itself.
func newInner() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			tc, ok := ctx.Value(handshaken{}).(*tls.Conn)
			if !ok {
				return nil, errors.New("no connection was given")
			}
			return tc, nil
		},
		Protocols:             protocols,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
		// A connection that died without a word, as behind a NAT box, is found
		// by a ping instead of by a request that hangs.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// wires are the raw connections of one pool, upgraded ones included, so that
// all of them can be closed at once.
type wires struct {
	mu    sync.Mutex
	open  map[*wire]struct{}
	ended error // why no connection may be added any more
}

func (r *wires) add(w *wire) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		return r.ended
	}
	if r.open == nil {
		r.open = make(map[*wire]struct{})
	}
	r.open[w] = struct{}{}
	return nil
}

func (r *wires) remove(w *wire) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, w)
}

func (r *wires) reason() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// end closes all connections; what uses them fails with reason.
func (r *wires) end(reason error) {
	r.mu.Lock()
	if r.ended == nil {
		r.ended = reason
	}
	open := r.open
	r.open = nil
	r.mu.Unlock()
	for w := range open {
		w.Close()
	}
}

// wire is the raw connection below TLS. Closing it, unlike closing a tls.Conn,
// never waits for the peer.
type wire struct {
	net.Conn
	registry *wires
	open     *atomic.Int64 // the transport's count of open connections
	once     sync.Once
}

func (w *wire) Close() error {
	var err error
	w.once.Do(func() {
		err = w.Conn.Close()
		w.open.Add(-1)
		w.registry.remove(w)
	})
	return err
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	return n, w.explain(err)
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	return n, w.explain(err)
}

// explain replaces "use of closed network connection" by what closed it.
func (w *wire) explain(err error) error {
	if err == nil || !errors.Is(err, net.ErrClosed) {
		return err
	}
	if reason := w.registry.reason(); reason != nil {
		return fmt.Errorf("connection closed: %w", reason)
	}
	return err
}

// sessions keeps the newest session of one identity with one host and tells
// when the first has come. It implements tls.ClientSessionCache and ignores
// that interface's key, which has no port in it.
type sessions struct {
	mu      sync.Mutex
	session *tls.ClientSessionState
	watch   []func()
}

// Get returns the session.
func (s *sessions) Get(string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session, s.session != nil
}

// Put keeps a session; nil forgets the one that is kept.
func (s *sessions) Put(_ string, session *tls.ClientSessionState) {
	s.mu.Lock()
	s.session = session
	watch := s.watch
	s.mu.Unlock()
	for _, f := range watch {
		f()
	}
}

func (s *sessions) has() bool {
	_, ok := s.Get("")
	return ok
}

// forget drops a session that the host did not accept, unless a newer one has
// come.
func (s *sessions) forget(old *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == old {
		s.session = nil
	}
}

// notify has f called after every Put.
func (s *sessions) notify(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, f)
}
