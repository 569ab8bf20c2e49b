package tlsclient

import "time"

// AwaitWaiters waits until n requests wait for the first contact with a host.
func AwaitWaiters(t *Transport, host string, n int) {
	for {
		t.contacts.mu.Lock()
		f := t.contacts.flying[target{host, "443"}]
		waiting := 0
		if f != nil {
			waiting = f.waiting
		}
		t.contacts.mu.Unlock()
		if waiting == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
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
