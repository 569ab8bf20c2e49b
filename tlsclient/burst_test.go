package tlsclient_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/tlsclient"
)

// A cold burst costs one signature, whatever the host speaks.
func TestColdBurst(t *testing.T) {
	for _, k := range kinds() {
		for _, n := range []int{40, 300} {
			t.Run(fmt.Sprintf("%v,%d", k, n), func(t *testing.T) {
				noLeaks(t)
				people := newCA(t, "people", nil)
				cert, key := newCard(t, people, "meri")
				s := newServer(t, k, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Millisecond) // so that requests overlap
					ok(w, r)
				})
				tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
				for i, err := range burst(t.Context(), tr, n, "https://card.test/") {
					if err != nil {
						t.Fatalf("request %d: %v", i, err)
					}
				}
				c := tr.Counters()
				if got := key.signatures.Load(); got != 1 || c.Signatures != 1 || c.Handshakes.Full != 1 {
					t.Errorf("%d signatures, want 1; %+v", got, c)
				}
				if c.Requests != uint64(n) || c.SignaturesAvoided != uint64(n-1) {
					t.Errorf("want %d requests, %d of them without a signature: %+v", n, n-1, c)
				}
				if max := int64(1 + (n-1)/100); k.h2 && s.accepted.Load() > max {
					t.Errorf("%d HTTP/2 connections, want at most %d", s.accepted.Load(), max)
				}
				if !k.h2 && !k.tickets && s.accepted.Load() != 1 {
					t.Errorf("%d connections without tickets, want 1", s.accepted.Load())
				}
				if !k.h2 && k.tickets && (s.accepted.Load() < 2 || c.Handshakes.Resumed == 0) {
					t.Errorf("a host with tickets got %d connections over HTTP/1.1: %+v", s.accepted.Load(), c)
				}
			})
		}
	}
}

// A host that rejects the certificate after the handshake, as TLS 1.3 servers
// do, costs one signature for all who wait, not one each.
func TestRejectedCertificateCostsOneSignature(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people, strangers := newCA(t, "people", nil), newCA(t, "people", nil) // one name, two keys
			cert, key := newCard(t, strangers, "meri")
			s := newServer(t, k, []*ca{people}, ok)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			for i, err := range burst(t.Context(), tr, 40, "https://card.test/") {
				var upstream *tlsclient.UpstreamError
				if !errors.As(err, &upstream) {
					t.Fatalf("request %d: got %v, want an UpstreamError", i, err)
				}
			}
			if got := key.signatures.Load(); got != 1 {
				t.Errorf("%d signatures, want 1", got)
			}
		})
	}
}

// A request that blocks the only connection of a host without tickets does not
// block the others for ever: further connections cost a signature each, up to
// a stated number.
func TestTicketlessHostIsNotBlocked(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	poll := make(chan struct{})
	release := sync.OnceFunc(func() { close(poll) })
	s := newServer(t, kind{tls.VersionTLS13, false, false}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/poll" {
			<-poll
		}
		ok(w, r)
	})
	t.Cleanup(release) // before the server's end, which waits for its handlers
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	polls := make(chan []error)
	go func() { polls <- burst(t.Context(), tr, tlsclient.TicketlessConns+2, "https://card.test/poll") }()
	eventually(t, "the host has all the connections that it may get", func() bool {
		return tr.Counters().Handshakes.Full == tlsclient.TicketlessConns
	})
	release()
	for _, err := range <-polls {
		if err != nil {
			t.Error(err)
		}
	}
	if got := key.signatures.Load(); got != tlsclient.TicketlessConns {
		t.Errorf("%d signatures, want %d", got, tlsclient.TicketlessConns)
	}
}

// A thousand requests of sixteen clients that start cold and at once: one
// signature, on connections that are kept and on new ones where there are
// tickets, and a stated number where there are none.
func TestThousandRequests(t *testing.T) {
	for _, k := range kinds() {
		for _, perConn := range []int64{0, 100} { // requests after which the host ends a connection
			if !k.tickets && perConn > 0 {
				continue // each costs a signature then: see TestTicketlessHostEndsConnections
			}
			t.Run(fmt.Sprintf("%v,%d", k, perConn), func(t *testing.T) {
				noLeaks(t)
				people := newCA(t, "people", nil)
				cert, key := newCard(t, people, "meri")
				var seen atomic.Int64
				s := newServer(t, k, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
					if n := seen.Add(1); perConn > 0 && n%perConn == 0 {
						w.Header().Set("Connection", "close") // GOAWAY in HTTP/2
					}
					ok(w, r)
				})
				tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
				load(t, tr, 16, 1000)
				c := tr.Counters()
				if got := key.signatures.Load(); got != 1 || c.Requests < 1000 || c.SignaturesAvoided != c.Requests-1 {
					t.Errorf("%d signatures, want 1; %+v", got, c)
				}
				if perConn > 0 && c.Handshakes.Resumed < 5 {
					t.Errorf("too few new connections to show anything: %+v", c)
				}
			})
		}
	}
}

// Without tickets each connection that the host ends costs a signature, and no
// more than that.
func TestTicketlessHostEndsConnections(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	var seen atomic.Int64
	s := newServer(t, kind{tls.VersionTLS13, false, false}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1)%100 == 0 {
			w.Header().Set("Connection", "close")
		}
		ok(w, r)
	})
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	load(t, tr, 16, 1000)
	if got := key.signatures.Load(); got != s.accepted.Load() || got < 10 || got > 10+tlsclient.TicketlessConns {
		t.Errorf("%d signatures on %d connections for 1,000 requests at 100 a connection", got, s.accepted.Load())
	}
}

// load has clients make requests one after another, all at once.
func load(t *testing.T, tr http.RoundTripper, clients, requests int) {
	t.Helper()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range requests / clients {
				if _, err := get(t.Context(), tr, "https://card.test/"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	for range requests % clients {
		mustGet(t, tr, "https://card.test/")
	}
}
