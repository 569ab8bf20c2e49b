package pcsc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// scripted is a service whose readers a test adds, as on a machine where one is
// plugged in: the virtual readers of pcscd are there from its start.
type scripted struct {
	service   // what a test does not expect panics
	mu        sync.Mutex
	names     []string
	changed   chan struct{} // one value ends one change
	began     chan []rawState
	cancelled int
	deaf      int // so many cancellations are lost
}

func newScripted() *scripted {
	return &scripted{changed: make(chan struct{}, 1), began: make(chan []rawState, 10)}
}

func (s *scripted) context(t *testing.T) *Context {
	t.Helper()
	c, err := establish(func() (service, error) { return s, nil })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *scripted) list() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.names), nil
}

func (s *scripted) plug(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
}

func (s *scripted) change(timeout time.Duration, readers []rawState) error {
	if timeout == 0 {
		return nil
	}
	s.began <- slices.Clone(readers)
	<-s.changed
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancelled > s.deaf {
		return &Error{"SCardGetStatusChange", codeCancelled}
	}
	return nil
}

func (s *scripted) release() error { return nil }

func (s *scripted) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancelled++; s.cancelled == s.deaf+1 {
		s.changed <- struct{}{}
	}
}

func TestWaitIsToldOfNewReaders(t *testing.T) {
	s := newScripted()
	c := s.context(t)
	told := make(chan []ReaderState)
	go func() {
		now, err := c.Wait(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
		told <- now
	}()
	if watched := <-s.began; len(watched) != 1 || watched[0].name != notification || watched[0].current != 0 {
		t.Errorf("without readers it watches %+v", watched)
	}
	s.plug("one")
	s.changed <- struct{}{}
	now := <-told
	if len(now) != 1 || now[0].Name != "one" {
		t.Fatalf("told of %+v", now)
	}

	go func() {
		now, err := c.Wait(t.Context(), now)
		if err != nil {
			t.Error(err)
		}
		told <- now
	}()
	if watched := <-s.began; len(watched) != 2 || watched[1].name != notification || watched[1].current != 1<<16 {
		t.Errorf("with one reader it watches %+v", watched)
	}
	s.plug("two")
	s.changed <- struct{}{}
	if now := <-told; len(now) != 2 {
		t.Errorf("told of %+v", now)
	}
}

func TestALostCancellationIsRepeated(t *testing.T) {
	s := newScripted()
	s.deaf = 3
	c := s.context(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := c.Wait(ctx, nil)
		ended <- err
	}()
	<-s.began
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	listener := c.listener
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-listener.done:
	default:
		t.Error("the call that listened was left alone")
	}
}

// A connection that has lost its step with the service answers nothing any more,
// or nonsense. What changed is found all the same.
func TestWaitFindsWhatItIsNotToldOf(t *testing.T) {
	s := newScripted()
	c := s.context(t)
	told := make(chan []ReaderState)
	go func() {
		now, err := c.Wait(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
		told <- now
	}()
	<-s.began
	s.plug("one") // and nobody says so
	if now := <-told; len(now) != 1 {
		t.Errorf("found %+v", now)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestReasons(t *testing.T) {
	for _, test := range []struct {
		err  Error
		want error
	}{
		{Error{"SCardEstablishContext", codeSecurityViolation}, ErrRefused},
		{Error{"SCardListReaders", codeSecurityViolation}, ErrNoService},
		{Error{"SCardConnect", codeSharingViolation}, ErrBusy},
		{Error{"SCardConnect", 0x8010FFFF}, nil},
	} {
		if got := errors.Unwrap(&test.err); got != test.want {
			t.Errorf("%v stands for %v, want %v", &test.err, got, test.want)
		}
	}
}

// A service that closes a waiting connection, or takes no more of them, has not
// ended: cards would be forgotten, and their locks not confirmed.
func TestServiceClosesWaitingConnections(t *testing.T) {
	s, connections := newScripted(), 0
	s.plug("first")
	c, err := establish(func() (service, error) {
		switch connections++; connections {
		case 1:
			return s, nil
		case 2:
			return nil, &Error{"SCardEstablishContext", codeSecurityViolation}
		}
		return closing{s}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	now, err := c.Readers()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3*cancelAgain, func() { s.plug("second") })
	after, err := c.Wait(t.Context(), now)
	if err != nil || len(after) != 2 {
		t.Errorf("%+v, %v", after, err)
	}
}

// closing is a connection that is closed while it waits.
type closing struct{ *scripted }

func (closing) change(timeout time.Duration, _ []rawState) error {
	return &Error{"SCardGetStatusChange", codeCommError}
}
