package tlsclient

import (
	"fmt"
	"time"

	"github.com/kortti-id/kortti/card"
)

// Dismissed is the rule by which a pool closes a connection that lives.
var Dismissed = dismissed

// MaxGuesses is how many places of a host without a profile are looked at.
const MaxGuesses = maxGuesses

// Asks notes that a place was seen to ask for a certificate after a request.
func Asks(t *Transport, host, path string) { t.places.put(place{target{host, "443"}, path}, true) }

// AsksAt tells whether a path counts as one that asks after another was seen to.
func AsksAt(asks, path string) bool {
	var m places
	m.put(place{path: asks}, true)
	got, _ := m.get(place{path: path}, time.Now())
	return got
}

// MaxPlaces is how many places of a host are remembered.
const MaxPlaces = maxPlaces

// Remembered is how many of n places are.
func Remembered(n int) int {
	var m places
	for i := range n {
		m.put(place{path: fmt.Sprint("/", i)}, i%2 == 0)
	}
	return len(m.host[target{}])
}

// Contacting counts the requests that wait for the first contact with a host.
func Contacting(t *Transport, host string) int { return waiters(&t.contacts, target{host, "443"}) }

// Prompting counts the hosts that wait for an identity to be unlocked.
func Prompting(t *Transport, f card.Fingerprint) int { return waiters(&t.unlocks, f) }

func waiters[K comparable](g *flights[K], key K) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.flying[key]; f != nil {
		return f.waiting
	}
	return 0
}

// InFlight counts the requests of a host that are on a connection or wait for
// one; -1 while a connection is being dialled.
func InFlight(t *Transport, host string) int {
	t.mu.Lock()
	p := t.pools[target{host, "443"}]
	t.mu.Unlock()
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.unlock()
	if p.pending > 0 {
		return -1
	}
	n := len(p.waiting)
	for _, c := range p.conns {
		n += c.cc.InFlight()
	}
	return n
}
