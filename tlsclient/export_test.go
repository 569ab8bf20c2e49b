package tlsclient

import "github.com/kortti-id/kortti/card"

// Dismissed is the rule by which a pool closes a connection that lives.
var Dismissed = dismissed

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
