package agent

import (
	"sync"

	"github.com/kortti-id/kortti/agent/control"
)

// backlog is how many events a front end may lag behind.
const backlog = 256

// hub passes events to all streams. It never blocks: a stream that does not keep
// up is closed, and its front end asks for the state when it comes back.
type hub struct {
	mu      sync.Mutex // guards all below
	streams map[chan control.Event]bool
	closed  bool
}

func newHub() *hub { return &hub{streams: make(map[chan control.Event]bool)} }

// publish is safe for concurrent use and keeps the order of its calls.
func (h *hub) publish(ev control.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		select {
		case s <- ev:
		default:
			h.drop(s)
		}
	}
}

// subscribe returns a channel that is closed when the hub closes or the reader
// lags, and the function that ends the subscription.
func (h *hub) subscribe() (<-chan control.Event, func()) {
	s := make(chan control.Event, backlog)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[s] = true
	if h.closed {
		h.drop(s)
	}
	return s, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drop(s)
	}
}

// close ends all streams.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.streams {
		h.drop(s)
	}
}

func (h *hub) drop(s chan control.Event) {
	if h.streams[s] {
		delete(h.streams, s)
		close(s)
	}
}
