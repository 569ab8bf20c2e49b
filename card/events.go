package card

import (
	"slices"
	"sync"
)

// subscriber passes events on from a queue of its own, so that a slow reader
// delays nobody. A queued event gives way to a newer one of the same kind, card
// and certificate, which keeps the queue short however long nobody reads: the
// state is in the snapshot.
type subscriber struct {
	events chan Event
	stop   chan struct{} // closed by close
	wake   chan struct{} // holds one token while the queue is not empty
	ended  chan struct{} // closed when the goroutine has ended
	once   sync.Once

	mu    sync.Mutex
	queue []Event // guarded by mu
}

// Subscribe returns a stream of events from now on, and the function that ends
// it and closes the channel. Events that a slow reader has not taken are merged:
// read [Manager.Snapshot] for the state. The epoch of a lock or a removal has
// risen before its event is sent.
func (m *Manager) Subscribe() (<-chan Event, func()) {
	s := &subscriber{
		events: make(chan Event), stop: make(chan struct{}), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	go s.pump()
	m.mu.Lock()
	if m.subscribers == nil { // closed
		m.mu.Unlock()
		s.close()
		return s.events, func() {}
	}
	m.subscribers[s] = true
	m.mu.Unlock()
	return s.events, func() {
		m.mu.Lock()
		delete(m.subscribers, s)
		m.mu.Unlock()
		s.close()
	}
}

// emit hands an event to all subscribers; mu must be held, so that events keep
// the order of what they tell of.
func (m *Manager) emit(e Event) {
	for s := range m.subscribers {
		s.add(e)
	}
}

func (s *subscriber) add(e Event) {
	s.mu.Lock()
	s.queue = slices.DeleteFunc(s.queue, func(q Event) bool {
		return q.Kind == e.Kind && q.Card == e.Card && q.Fingerprint == e.Fingerprint
	})
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pump sends what is queued until the subscriber is closed.
func (s *subscriber) pump() {
	defer close(s.ended)
	defer close(s.events)
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			return
		}
		for {
			e, ok := s.take()
			if !ok {
				break
			}
			select {
			case s.events <- e:
			case <-s.stop:
				return
			}
		}
	}
}

func (s *subscriber) take() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return Event{}, false
	}
	e := s.queue[0]
	s.queue = s.queue[1:]
	return e, true
}

// close ends the goroutine and waits for it.
func (s *subscriber) close() {
	s.once.Do(func() { close(s.stop) })
	<-s.ended
}
