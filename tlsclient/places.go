package tlsclient

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	publicLife  = 10 * time.Minute // how long a place that does not ask is not looked at again
	maxPlaces   = 256              // of a host, the asking ones included
	maxGuesses  = 8                // places looked at in vain, within publicLife, of a host without a profile
	discardable = 64 << 10         // bytes of a refusal that are read to keep its connection
)

// place is a path at a host, as Apache's Location has it: without the query.
type place struct {
	target
	path string // escaped
}

// placeOf returns the place of a request that has a good URL.
func placeOf(req *http.Request) place {
	tg, _ := newTarget(req.URL.Host)
	path := req.URL.EscapedPath()
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return place{tg, path}
}

// places remembers which places of a host ask for a certificate after a request
// and which do not: a request for one that does not must not take, nor disturb,
// a connection that cost a signature.
type places struct {
	mu   sync.Mutex // guards what follows
	host map[target]map[string]verdict
}

type verdict struct {
	asks bool
	at   time.Time
}

// get tells whether a place asks. What asks stands for all below its directory,
// because servers configure directories; but a page of the host's root, such as
// /login, does not stand for the host.
func (m *places) get(at place, now time.Time) (asks, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := m.host[at.target]
	if v, ok := seen[at.path]; ok && (v.asks || now.Sub(v.at) < publicLife) {
		return v.asks, true
	}
	for path, v := range seen {
		if v.asks && below(path, at.path) {
			return true, true
		}
	}
	return false, false
}

// below reports whether path is in the directory of another, or under it.
func below(other, path string) bool {
	directory := other[:strings.LastIndexByte(other, '/')+1]
	if directory == "/" && other != "/" {
		directory = other + "/"
	}
	return strings.HasPrefix(path, directory)
}

// put notes what a place was seen to do.
func (m *places) put(at place, asks bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host == nil {
		m.host = make(map[target]map[string]verdict)
	}
	seen := m.host[at.target]
	if seen == nil {
		seen = make(map[string]verdict)
		m.host[at.target] = seen
	}
	if len(seen) >= maxPlaces {
		drop(seen)
	}
	seen[at.path] = verdict{asks, time.Now()}
}

// drop forgets the oldest place, those that ask last.
func drop(seen map[string]verdict) {
	oldest, first := "", verdict{asks: true, at: time.Now()}
	for path, v := range seen {
		if !v.asks && first.asks || v.asks == first.asks && !v.at.After(first.at) {
			oldest, first = path, v
		}
	}
	delete(seen, oldest)
}

// guesses counts the places of a host that were looked at in vain lately.
func (m *places) guesses(tg target, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, v := range m.host[tg] {
		if !v.asks && now.Sub(v.at) < publicLife {
			n++
		}
	}
	return n
}

// asking returns a place of the host that asks.
func (m *places) asking(tg target) (place, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, v := range m.host[tg] {
		if v.asks {
			return place{tg, path}, true
		}
	}
	return place{}, false
}

// forget drops the hosts that match.
func (m *places) forget(match func(target) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for tg := range m.host {
		if match(tg) {
			delete(m.host, tg)
		}
	}
}
