package tlsclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/tlsclient"
)

// hold answers the first byte and then nothing until the connection ends, or
// not even that for /poll.
func hold(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		ok(w, r)
		return
	}
	if r.URL.Path == "/stream" {
		io.WriteString(w, "begun")
		http.NewResponseController(w).Flush()
	}
	<-r.Context().Done()
}

// End ends all that an identity has under way, at once: polls without an
// answer yet, on fresh and on reused connections, and streams; none of them
// comes back on a new connection.
func TestEndInFlight(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			source := newReader(cert)
			s := newServer(t, k, []*ca{people}, hold)
			tr := client(t, s, tlsclient.Config{Source: source})
			for _, err := range burst(t.Context(), tr, 5, "https://card.test/") {
				if err != nil {
					t.Fatal(err)
				}
			}
			polls := make(chan []error)
			go func() { polls <- burst(t.Context(), tr, 3, "https://card.test/poll") }()
			streams := make(chan []error)
			go func() { streams <- burst(t.Context(), tr, 3, "https://card.test/stream") }()
			eventually(t, "the requests are with the host or wait", func() bool { return tlsclient.InFlight(tr, host) == 6 })
			accepted := s.accepted.Load()

			source.remove(fingerprint(cert), true)
			began := time.Now()
			tr.End(fingerprint(cert), tlsclient.ErrRemoved)
			for _, err := range append(<-polls, <-streams...) {
				if !errors.Is(err, tlsclient.ErrRemoved) {
					t.Errorf("got %v, want ErrRemoved", err)
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			eventually(t, "all connections are closed", func() bool { return s.live.Load() == 0 })
			if got := s.accepted.Load(); got != accepted || tr.Counters().Connections != 0 {
				t.Errorf("%d new connections, %d open", got-accepted, tr.Counters().Connections)
			}
			if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrNoCertificate) {
				t.Errorf("the next request got %v, want ErrNoCertificate", err)
			}
			// The card comes back: no ticket of before may stand in for its key.
			source.remove(fingerprint(cert), false)
			signed := key.signatures.Load()
			mustGet(t, tr, "https://card.test/")
			if key.signatures.Load() != signed+1 || tr.Counters().Handshakes.Resumed > uint64(accepted) {
				t.Errorf("%d signatures after the card came back, want 1", key.signatures.Load()-signed)
			}
		})
	}
}

// End reaches requests that wait for the PIN.
func TestEndWhilePrompting(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	source := newReader(cert)
	source.lock(fingerprint(cert), true)
	stuck := make(chan struct{})
	opened := make(chan context.Context, 1)
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	tr := client(t, s, tlsclient.Config{Source: source, Unlock: func(ctx context.Context, _ tlsclient.UnlockRequest) error {
		opened <- ctx
		<-stuck // a front end that does not heed its context
		source.lock(fingerprint(cert), false)
		return nil
	}})
	result := make(chan error)
	go func() { _, err := get(t.Context(), tr, "https://card.test/"); result <- err }()
	ctx := <-opened
	accepted := s.accepted.Load()
	tr.End(fingerprint(cert), tlsclient.ErrRemoved)
	if err := <-result; !errors.Is(err, tlsclient.ErrRemoved) {
		t.Errorf("got %v, want ErrRemoved", err)
	}
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), tlsclient.ErrRemoved) {
		t.Error("the prompt's context does not say why it ended")
	}
	close(stuck)
	tr.Close()
	if s.accepted.Load() != accepted || key.signatures.Load() != 0 {
		t.Errorf("%d new connections and %d signatures after the end", s.accepted.Load()-accepted, key.signatures.Load())
	}
}

// End in the middle of a handshake, while the card signs: the connection is
// never used.
func TestEndWhileSigning(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			key.delay = 200 * time.Millisecond
			var asked sync.WaitGroup
			s := newServer(t, kind{version, true, true}, []*ca{people}, func(http.ResponseWriter, *http.Request) {
				t.Error("a request arrived")
			})
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			result := make(chan error)
			asked.Go(func() { _, err := get(t.Context(), tr, "https://card.test/"); result <- err })
			eventually(t, "the card signs", func() bool { return key.signatures.Load() == 1 })
			began := time.Now()
			tr.End(fingerprint(cert), tlsclient.ErrLocked)
			if err := <-result; !errors.Is(err, tlsclient.ErrLocked) {
				t.Errorf("got %v, want ErrLocked", err)
			}
			if took := time.Since(began); took > 150*time.Millisecond {
				t.Errorf("the request waited %v for the card", took)
			}
			asked.Wait()
		})
	}
}

// Two identities share nothing: neither connections nor tickets.
func TestIdentitiesShareNothing(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			meri, meriKey := newCard(t, people, "meri")
			onni, onniKey := newCard(t, people, "onni")
			source := newReader(meri, onni)
			source.remove(fingerprint(onni), true)
			s := newServer(t, k, []*ca{people}, ok)
			tr := client(t, s, tlsclient.Config{Source: source})
			proto := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[k.h2]
			if got := mustGet(t, tr, "https://card.test/"); got != "meri "+proto {
				t.Fatalf("got %q", got)
			}
			source.remove(fingerprint(meri), true)
			source.remove(fingerprint(onni), false)
			tr.End(fingerprint(meri), tlsclient.ErrRemoved)
			for range 3 {
				if got := mustGet(t, tr, "https://card.test/"); got != "onni "+proto {
					t.Fatalf("after the change of cards: got %q", got)
				}
			}
			if meriKey.signatures.Load() != 1 || onniKey.signatures.Load() != 1 || tr.Counters().Handshakes.Resumed != 0 {
				t.Errorf("%d and %d signatures, want 1 each; %+v", meriKey.signatures.Load(), onniKey.signatures.Load(), tr.Counters())
			}
			// The end of an identity that is not in use disturbs nobody.
			tr.End(fingerprint(meri), tlsclient.ErrRemoved)
			mustGet(t, tr, "https://card.test/")
			if onniKey.signatures.Load() != 1 {
				t.Error("the end of one identity closed the connections of another")
			}
		})
	}
}

// A changed setting starts a host from the beginning.
func TestEndHost(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, hold)
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	mustGet(t, tr, "https://card.test/")
	mustGet(t, tr, "https://other.test/")
	result := make(chan error)
	go func() { _, err := get(t.Context(), tr, "https://card.test/poll"); result <- err }()
	eventually(t, "the poll is with the host", func() bool { return tlsclient.InFlight(tr, host) == 1 })
	tr.EndHost(host)
	if err := <-result; !errors.Is(err, tlsclient.ErrHostEnded) {
		t.Errorf("got %v, want ErrHostEnded", err)
	}
	mustGet(t, tr, "https://card.test/")
	mustGet(t, tr, "https://other.test/")
	if got := key.signatures.Load(); got != 3 {
		t.Errorf("%d signatures, want 3: two hosts, one of them twice", got)
	}
}

func TestClose(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, hold)
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	mustGet(t, tr, "https://card.test/")
	result := make(chan error)
	go func() { _, err := get(t.Context(), tr, "https://card.test/poll"); result <- err }()
	eventually(t, "the poll is with the host", func() bool { return tlsclient.InFlight(tr, host) == 1 })
	tr.Close()
	if err := <-result; !errors.Is(err, tlsclient.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrClosed) {
		t.Errorf("got %v after Close, want ErrClosed", err)
	}
}

// A card that goes away while it signs is told as that, not as the host's fault.
func TestKeyThatDoesNotSign(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			key.err = fmt.Errorf("sign: %w", tlsclient.ErrRemoved)
			s := newServer(t, kind{version, true, true}, []*ca{people}, func(http.ResponseWriter, *http.Request) {
				t.Error("a request arrived")
			})
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			var up *tlsclient.UpstreamError
			if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrRemoved) || errors.As(err, &up) {
				t.Errorf("got %v", err)
			}
		})
	}
}
