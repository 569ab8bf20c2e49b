// Package tlsclient makes HTTPS requests with a certificate whose every
// signature is dear: a person's smart card (0.2 to 1 s a signature, a PIN
// before the first) or a service's token.
//
// A [Transport] is an [http.RoundTripper]. It finds out by itself whether a
// host asks for a client certificate, chooses one by the host's list of CAs,
// has the card unlocked if need be, and keeps one pool of connections for each
// (host, port, identity) so that a cold burst of requests costs one signature:
//
//   - a free connection is used;
//   - otherwise a connection is dialled only if there is none, or if a session
//     ticket is at hand, which makes it free of signatures;
//   - otherwise the request waits. A host that gives no tickets and whose
//     connections make no headway for [StallTime] gets further connections,
//     a signature each, up to [TicketlessConns].
//
// The connection, and the PIN, come first; only then is a request handed over.
//
// A host may need other ways than these. What its answers teach is kept as its
// [Profile], with the reason, in Config.Profiles:
//
//   - a host that demands HTTP/1.1 gets that;
//   - a host that asks for a certificate only after a request, for some of its
//     paths (Apache's SSLVerifyClient per directory), is asked over TLS 1.2 with
//     one renegotiation for a connection. Such connections have no tickets: at
//     most [TicketlessConns] of them, a signature each, serve the requests for
//     these paths and no others. A request that cannot be repeated follows a HEAD
//     request for the same path, so that no body is lost.
//
// What it never does: ask a person inside a TLS handshake, let two identities
// share a connection or a session, send a request again that a server may have
// seen (but for one without a body and of a safe method, when the host refused it
// in one of these ways or closed a kept connection instead of answering), offer a certificate to a host that lists no CAs unless a
// person or a setting named it, renegotiate with a host that was not seen to need
// it, follow redirects, keep cookies, or decompress.
//
// [Transport.End] is what "pull the card and you are out" means here: all
// connections and tickets of the identity are gone when it returns.
package tlsclient

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/card"
)

// Limits of a connection pool.
const (
	// TicketlessConns is the number of connections that a host gets which
	// gives no session tickets: each of them costs a signature. Further ones
	// after the first are dialled only after StallTime without headway.
	TicketlessConns = 4

	// StallTime is how long no request may have got a connection, while some
	// wait, before a host without tickets gets a further one.
	StallTime = time.Second

	maxConns  = 128 // connections of one pool, whatever they cost
	h2Streams = 100 // requests expected to fit on an HTTP/2 connection (RFC 9113 section 6.5.2)
)

// Errors of a [Transport], for errors.Is. Errors of a card, such as
// card.ErrPINCancelled, come as Config.Unlock returned them.
var (
	ErrLocked        = card.ErrLocked  // the card is locked and there is nobody to unlock it
	ErrRemoved       = card.ErrRemoved // the card is gone
	ErrNoCertificate = errors.New("no certificate that fits: insert the card that this host accepts")
	ErrAmbiguous     = errors.New("several certificates fit, or the host names no CA: name the certificate in the host's settings")
	ErrNotAllowed    = errors.New("this host is not allowed to use a certificate: add it to the hosts first")
	ErrHostEnded     = errors.New("the host was removed or its settings changed")
	ErrClosed        = errors.New("the transport is closed")
)

// UpstreamError is a failure of the host or of the way to it.
type UpstreamError struct {
	Host string // host:port
	Op   string // "connect", "handshake" or "request"
	Err  error
}

// Error says what was tried and why it failed.
func (e *UpstreamError) Error() string { return fmt.Sprintf("%s to %s: %v", e.Op, e.Host, e.Err) }

// Unwrap returns Err.
func (e *UpstreamError) Unwrap() error { return e.Err }

// Timeout reports whether time ran out.
func (e *UpstreamError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// UnlockRequest says for whom a card is to be unlocked.
type UnlockRequest struct {
	Host, Port string
	Identity   Identity
}

// Config says where identities come from and who answers for the person. The
// functions must be safe for concurrent use.
type Config struct {
	// Source gives the identities. Required.
	Source Source

	// Issuers are further CA certificates, used to complete the chains of
	// cards that hold only their own certificate. They are not trust anchors.
	Issuers []*x509.Certificate

	// Unlock asks the person for the PIN and returns when the identity is
	// unlocked. It is called outside of any handshake, once for all requests
	// that wait for an identity; its context carries the values of the first
	// of them and ends when the last has gone or the identity has ended. Its
	// error goes to all of them. nil means ErrLocked.
	Unlock func(context.Context, UnlockRequest) error

	// Permit says whether a request may use an identity at a host. It is called
	// for every request that is about to get one of the identity's connections,
	// with the request's own context and outside of any handshake, so it may ask
	// the person. What a request waits for with others is no permission: the
	// identity may have come after it. nil permits all.
	Permit func(ctx context.Context, host, port string, identity Identity) error

	// Choose picks one of candidates where the rules leave several, or where
	// the host names no CA. It may ask the person or remember. It is called
	// outside of any handshake, once for all requests that wait for the host,
	// with a context like Unlock's. nil means ErrAmbiguous.
	Choose func(ctx context.Context, host string, candidates []Identity, why Explanation) (card.Fingerprint, error)

	// HostSettings gives the settings of a host; nil allows every host.
	// After a change call EndHost.
	HostSettings func(host, port string) HostSettings

	// Distrusted tells trust anchors that no host's own certificate may come
	// from, whatever the host's RootCAs or the system say; nil distrusts none.
	Distrusted func(anchor *x509.Certificate) bool

	// Profiles keeps what is learned about hosts; nil means in memory.
	Profiles ProfileStore

	// DialContext connects; nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// DialTimeout and HandshakeTimeout limit the steps of a connection; 0
	// means 15 s and 30 s. The handshake includes the signature, and the wait
	// for the card where it is signing for other hosts.
	DialTimeout, HandshakeTimeout time.Duration

	// Log takes what happens to connections; nil discards it.
	Log *slog.Logger
}

// HostSettings are what is configured for a host.
type HostSettings struct {
	Allowed    bool              // false refuses requests with ErrNotAllowed
	Address    string            // host:port or host to connect to instead; Host header and SNI stay
	RootCAs    *x509.CertPool    // trust anchors for the host's own certificate; nil means the system's
	Pin        *card.Fingerprint // the only certificate for this host, also where it names no CA
	ForceHTTP1 bool
	MaxVersion uint16 // of TLS; 0 means the highest
}

// Counters count since the start of a [Transport].
type Counters struct {
	Handshakes struct {
		Full    uint64 // complete handshakes without resumption
		Resumed uint64
	}
	Signatures        uint64 // handshakes for which a key was handed out
	Requests          uint64 // requests handed to a connection
	SignaturesAvoided uint64 // of these, on an identity's connection that needed no new signature
	Connections       int    // open now
}

// Transport is an http.RoundTripper for https URLs that presents the
// certificates of a [Source]. It is safe for concurrent use. Close it.
type Transport struct {
	config Config
	inner  *http.Transport // speaks HTTP on connections that this package dials
	log    *slog.Logger

	contacts flights[target]           // first contacts with a host
	logins   flights[target]           // the same where the host asks after a request
	probes   flights[place]            // looks whether a host does
	unlocks  flights[card.Fingerprint] // prompts for a PIN
	dials    sync.WaitGroup

	mu    sync.Mutex // guards what follows; taken before a pool's lock, never after
	pools map[target]*pool
	later map[target]*pool // for the places that ask after a request
	seq   uint64           // counts calls of End
	ended map[card.Fingerprint]ending

	places places

	full, resumed, signatures, requests, avoided atomic.Uint64
	open                                         atomic.Int64
}

// ending is the latest End of an identity.
type ending struct {
	seq    uint64
	reason error
}

// target is a host and port, in the form that keys need: lower case, no final dot.
type target struct{ host, port string }

func (t target) address() string { return net.JoinHostPort(t.host, t.port) }

func newTarget(hostport string) (target, error) {
	host, port := hostport, "443"
	if h, p, err := net.SplitHostPort(hostport); err == nil {
		host, port = h, p
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "" || port == "" {
		return target{}, fmt.Errorf("%q names no host", hostport)
	}
	return target{host, port}, nil
}

// New returns a Transport.
func New(config Config) *Transport {
	t := &Transport{
		config: config,
		inner:  newInner(),
		log:    config.Log,
		pools:  make(map[target]*pool),
		later:  make(map[target]*pool),
		ended:  make(map[card.Fingerprint]ending),
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.config.Profiles == nil {
		t.config.Profiles = new(memory)
	}
	if t.config.DialContext == nil {
		t.config.DialContext = (&net.Dialer{}).DialContext
	}
	if t.config.DialTimeout == 0 {
		t.config.DialTimeout = 15 * time.Second
	}
	if t.config.HandshakeTimeout == 0 {
		t.config.HandshakeTimeout = 30 * time.Second
	}
	return t
}

func (t *Transport) settings(tg target) HostSettings {
	if t.config.HostSettings == nil {
		return HostSettings{Allowed: true}
	}
	return t.config.HostSettings(tg.host, tg.port)
}

// settingsNow are a host's settings with what was learned about it.
func (t *Transport) settingsNow(tg target) HostSettings {
	s := t.settings(tg)
	s.ForceHTTP1 = s.ForceHTTP1 || t.profile(tg).HTTP1
	return s
}

// End closes all connections of an identity at once, drops its session tickets
// and ends the requests that wait for it, all with reason (such as
// [ErrRemoved] or [ErrLocked]). No request that began before can make a new
// connection; one that begins after looks at the Source anew.
func (t *Transport) End(f card.Fingerprint, reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seq++
	t.ended[f] = ending{t.seq, reason}
	about := func(_ target, fl *flight) bool {
		s := fl.subject.Load()
		return s != nil && *s == f
	}
	t.contacts.fail(about, reason)
	t.logins.fail(about, reason)
	t.retirePools(func(_ target, p *pool) bool {
		return p.identity != nil && p.identity.Fingerprint == f
	}, reason)
	t.log.Debug("identity ended", "certificate", f, "reason", reason)
}

// EndEpoch closes the connections that one epoch of an identity has left behind.
// Those of a later one, which the card may be in by now, go on.
func (t *Transport) EndEpoch(f card.Fingerprint, epoch uint64, reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retirePools(func(_ target, p *pool) bool {
		return p.identity != nil && p.identity.Fingerprint == f && p.identity.Epoch == epoch
	}, reason)
}

// EndHost closes all connections to a host ("name" or "name:port"; a name
// alone means all its ports) and forgets what was learned about it.
func (t *Transport) EndHost(host string) {
	tg, err := newTarget(host)
	if err != nil {
		return
	}
	_, _, portErr := net.SplitHostPort(host)
	match := func(k target) bool { return k.host == tg.host && (portErr != nil || k.port == tg.port) }
	t.endAll(match, ErrHostEnded)
}

// EndHosts is EndHost for all hosts that match; it is called with locks held and
// must not call the Transport.
func (t *Transport) EndHosts(match func(host, port string) bool) {
	t.endAll(func(k target) bool { return match(k.host, k.port) }, ErrHostEnded)
}

// endAll ends what belongs to the targets that match.
func (t *Transport) endAll(match func(target) bool, reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.contacts.fail(func(k target, _ *flight) bool { return match(k) }, reason)
	t.logins.fail(func(k target, _ *flight) bool { return match(k) }, reason)
	t.probes.fail(func(k place, _ *flight) bool { return match(k.target) }, reason)
	t.places.forget(match)
	t.retirePools(func(k target, _ *pool) bool { return match(k) }, reason)
}

// retirePools ends the pools that match. The caller holds t.mu and has failed
// their contacts before, so that a contact that ends later publishes nothing.
func (t *Transport) retirePools(match func(target, *pool) bool, reason error) {
	for _, pools := range []map[target]*pool{t.pools, t.later} {
		for k, p := range pools {
			if match(k, p) {
				p.retire(reason)
				delete(pools, k)
			}
		}
	}
}

// Close ends all requests and connections and waits for the goroutines that
// dialled them. A signature that is being made is waited for.
func (t *Transport) Close() {
	t.contacts.close(ErrClosed)
	t.logins.close(ErrClosed)
	t.probes.close(ErrClosed)
	t.unlocks.close(ErrClosed)
	t.endAll(func(target) bool { return true }, ErrClosed)
	t.contacts.wait()
	t.logins.wait()
	t.probes.wait()
	t.unlocks.wait()
	t.dials.Wait()
}

// Counters returns the counts since the start.
func (t *Transport) Counters() Counters {
	c := Counters{
		Signatures:        t.signatures.Load(),
		Requests:          t.requests.Load(),
		SignaturesAvoided: t.avoided.Load(),
		Connections:       int(t.open.Load()),
	}
	c.Handshakes.Full, c.Handshakes.Resumed = t.full.Load(), t.resumed.Load()
	return c
}
