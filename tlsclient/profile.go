package tlsclient

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// ProfileLife is how long a profile counts. Hosts change: one that still needs
// what it says teaches it anew with the next request, without a signature.
const ProfileLife = 30 * 24 * time.Hour

// Profile is what was learned about a host that cannot be served in the usual
// way. A Transport learns it by itself, from requests that came to nothing, and
// forgets it when it stops being true.
type Profile struct {
	Host, Port string

	// HTTP1: requests go to the host over HTTP/1.1 alone, as it has demanded.
	HTTP1 bool

	// TLS12Renegotiation: for some of its paths the host asks for a certificate
	// only after the request, which works over TLS 1.2 and HTTP/1.1 alone, by a
	// renegotiation (RFC 5246 section 7.4.1.1). Apache's SSLVerifyClient in a
	// Directory or Location does this. Requests for these paths get connections
	// of their own, at most TicketlessConns at a time and a signature each.
	TLS12Renegotiation bool

	// WarmUp: such a host has to keep a request's body in memory while it
	// renegotiates (Apache: SSLRenegBufferSize, 128 KiB, else 413), and a request
	// that cannot be repeated would be lost with a connection that must be made
	// anew. So a HEAD request for the same path goes first.
	WarmUp bool

	Reason string    // what the host did, for people
	Since  time.Time // when it was learned
}

// ProfileStore keeps profiles. It must be safe for concurrent use, and Get quick:
// it is called for every request.
type ProfileStore interface {
	Get(host, port string) (Profile, bool)
	Put(Profile) error
	// Delete forgets a host's profile; port "" means all its ports. There may be
	// none.
	Delete(host, port string) error
}

// memory is the ProfileStore of a Transport that was given none.
type memory struct {
	mu  sync.Mutex
	all map[target]Profile
}

func (m *memory) Get(host, port string) (Profile, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.all[target{host, port}]
	return p, ok
}

func (m *memory) Put(p Profile) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = make(map[target]Profile)
	}
	m.all[target{p.Host, p.Port}] = p
	return nil
}

func (m *memory) Delete(host, port string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.all {
		if k.host == host && (port == "" || k.port == port) {
			delete(m.all, k)
		}
	}
	return nil
}

// profile returns what is known of a target, the zero Profile if nothing.
func (t *Transport) profile(tg target) Profile {
	p, ok := t.config.Profiles.Get(tg.host, tg.port)
	if !ok || time.Since(p.Since) > ProfileLife {
		return Profile{Host: tg.host, Port: tg.port}
	}
	return p
}

// learn adds rules to a target's profile. What cannot be stored counts until
// the process ends all the same: the store's error is logged.
func (t *Transport) learn(tg target, reason string, add func(*Profile)) {
	p := t.profile(tg)
	before := p
	if add(&p); p == before {
		return
	}
	p.Reason, p.Since = reason, time.Now().Round(0)
	t.log.Info("learned about a host", "host", tg.address(), "reason", reason)
	if err := t.config.Profiles.Put(p); err != nil {
		t.log.Error("keep a host's profile", "host", tg.address(), "error", err)
	}
}

// unlearn forgets the profile of a target that is no longer true.
func (t *Transport) unlearn(tg target, reason string) {
	if _, ok := t.config.Profiles.Get(tg.host, tg.port); !ok {
		return
	}
	t.log.Info("forgot what was learned about a host", "host", tg.address(), "reason", reason)
	if err := t.config.Profiles.Delete(tg.host, tg.port); err != nil {
		t.log.Error("forget a host's profile", "host", tg.address(), "error", err)
	}
}

// ResetProfile forgets what was learned about a host ("name" or "name:port"; a
// name alone means all its ports) and closes its connections, so that the next
// request looks at it anew.
func (t *Transport) ResetProfile(host string) error {
	tg, err := newTarget(host)
	if err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		tg.port = ""
	}
	err = t.config.Profiles.Delete(tg.host, tg.port)
	t.EndHost(host)
	if err != nil {
		return fmt.Errorf("forget the profile of %s: %w", host, err)
	}
	return nil
}

// ErrAsksLater says that a request was lost because its host asked for a
// certificate only after it. That is known now: the next one gets it.
var ErrAsksLater = errors.New("the host asked for a certificate only after the request; Kortti knows it now: send the request again")
