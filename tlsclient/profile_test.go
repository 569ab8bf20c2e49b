package tlsclient_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/kortti-id/kortti/tlsclient"
)

// shelf is a ProfileStore that tells what it holds.
type shelf struct {
	mu  sync.Mutex
	all map[string]tlsclient.Profile
	err error // of Put
}

func (s *shelf) Get(host, port string) (tlsclient.Profile, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.all[host+":"+port]
	return p, ok
}

func (s *shelf) Put(p tlsclient.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]tlsclient.Profile)
	}
	s.all[p.Host+":"+p.Port] = p
	return s.err
}

func (s *shelf) Delete(host, port string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.all {
		if k == host+":"+port || port == "" && strings.HasPrefix(k, host+":") {
			delete(s.all, k)
		}
	}
	return nil
}

// demandHTTP1 makes a server refuse every request over HTTP/2 with
// HTTP_1_1_REQUIRED, as Apache does for paths that want a certificate.
func demandHTTP1(s *server) *atomic.Int64 {
	refused := new(atomic.Int64)
	s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) {
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			f := http2.NewFramer(c, c)
			f.WriteSettings()
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				if h, ok := frame.(*http2.HeadersFrame); ok {
					refused.Add(1)
					f.WriteRSTStream(h.StreamID, http2.ErrCodeHTTP11Required)
				}
			}
		},
	}
	return refused
}

// A host that demands HTTP/1.1 gets it, for a request that may be repeated at
// once; it is learned with its reason, for the next process too, until somebody
// resets it or it is too old.
func TestHTTP1IsLearned(t *testing.T) {
	for _, asks := range []bool{false, true} {
		t.Run(fmt.Sprint("asks=", asks), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			var clients []*ca
			name := "nobody"
			if asks {
				clients, name = []*ca{people}, "meri"
			}
			var refused *atomic.Int64
			s := newServerBefore(t, kind{tls.VersionTLS13, true, true}, clients, ok, func(s *server) { refused = demandHTTP1(s) })
			profiles := new(shelf)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert), Profiles: profiles})
			if got := mustGet(t, tr, "https://card.test/"); got != name+" HTTP/1.1" || refused.Load() != 1 {
				t.Fatalf("got %q after %d refusals", got, refused.Load())
			}
			for range 3 {
				mustGet(t, tr, "https://card.test/other")
			}
			p, learned := profiles.Get(host, "443")
			if !learned || !p.HTTP1 || p.TLS12Renegotiation || p.Reason == "" || time.Since(p.Since) > time.Hour || refused.Load() != 1 {
				t.Errorf("learned %+v; %d refusals", p, refused.Load())
			}
			if got := key.signatures.Load(); asks && got != 1 || !asks && got != 0 {
				t.Errorf("%d signatures", got)
			}

			next := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert), Profiles: profiles})
			if mustGet(t, next, "https://card.test/"); refused.Load() != 1 {
				t.Error("the next process has not used what was learned")
			}
			if err := next.ResetProfile("CARD.test."); err != nil {
				t.Fatal(err)
			}
			if _, known := profiles.Get(host, "443"); known || next.Counters().Connections != 0 {
				t.Error("the profile or a connection has outlived the reset")
			}
			if mustGet(t, next, "https://card.test/"); refused.Load() != 2 {
				t.Error("what was forgotten is not learned anew")
			}
			p, _ = profiles.Get(host, "443")
			p.Since = time.Now().Add(-tlsclient.ProfileLife - time.Hour)
			profiles.Put(p)
			old := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert), Profiles: profiles})
			if mustGet(t, old, "https://card.test/"); refused.Load() != 3 {
				t.Error("a profile that is too old counts")
			}
		})
	}
}

// A request that must not be repeated is not, whatever is learned from it.
func TestPOSTIsNotRepeated(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	var refused *atomic.Int64
	s := newServerBefore(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok, func(s *server) { refused = demandHTTP1(s) })
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	post := func() (*http.Response, error) {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://card.test/", io.NopCloser(strings.NewReader("body")))
		return tr.RoundTrip(req)
	}
	var upstream *tlsclient.UpstreamError
	if _, err := post(); !errors.As(err, &upstream) || !strings.Contains(err.Error(), "send the request again") || refused.Load() != 1 {
		t.Errorf("got %v after %d refusals", err, refused.Load())
	}
	resp, err := post()
	if err != nil || refused.Load() != 1 {
		t.Fatalf("the second POST: %v after %d refusals", err, refused.Load())
	}
	resp.Body.Close()
}

// A host that says 403 for reasons of its own keeps saying so. It is looked at
// only so often, and never with anything of the person's; nothing is learned.
func TestForbiddenForOtherReasons(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	var looks atomic.Int64
	s := newServer(t, kind{tls.VersionTLS13, true, true}, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.Version == tls.VersionTLS12 {
			looks.Add(1)
			if r.Method != http.MethodHead || r.Header.Get("Cookie") != "" || r.URL.RawQuery != "" || r.ContentLength > 0 {
				t.Errorf("looked with %s %s %v", r.Method, r.URL, r.Header)
			}
		}
		w.WriteHeader(http.StatusForbidden)
		ok(w, r)
	}, func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 })
	profiles := new(shelf)
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert), Profiles: profiles})
	for range 2 {
		for i := range 30 {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://card.test/%d?q=1", i), nil)
			req.Header.Set("Cookie", "secret")
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden || string(body) != "nobody HTTP/2.0" {
				t.Fatalf("got %s %q", resp.Status, body)
			}
		}
	}
	if got := looks.Load(); got == 0 || got > tlsclient.MaxGuesses {
		t.Errorf("looked %d times, want 1 to %d", got, tlsclient.MaxGuesses)
	}
	if _, learned := profiles.Get(host, "443"); learned || key.signatures.Load() != 0 {
		t.Error("something was learned or signed")
	}
}

// A profile that is not true, because the host asks nobody or speaks no TLS 1.2
// any more, costs no request.
func TestUntrueProfile(t *testing.T) {
	for _, lowest := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(lowest), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, _ := newCard(t, people, "meri")
			s := newServer(t, kind{tls.VersionTLS13, true, true}, nil, ok, func(c *tls.Config) { c.MinVersion = lowest })
			profiles := new(shelf)
			profiles.Put(tlsclient.Profile{Host: host, Port: "443", TLS12Renegotiation: true, WarmUp: true, Reason: "once", Since: time.Now()})
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert), Profiles: profiles})
			tlsclient.Asks(tr, host, "/secure/")
			for _, method := range []string{"GET", "POST"} {
				req, _ := http.NewRequestWithContext(t.Context(), method, "https://card.test/secure/", nil)
				resp, err := tr.RoundTrip(req)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("%s: %v", method, err)
				}
				resp.Body.Close()
			}
			if p, kept := profiles.Get(host, "443"); kept {
				t.Errorf("kept %+v", p)
			}
		})
	}
}

// What cannot be stored is no reason to fail a request.
func TestProfileCannotBeStored(t *testing.T) {
	noLeaks(t)
	cert, _ := newCard(t, newCA(t, "people", nil), "meri")
	s := newServerBefore(t, kind{tls.VersionTLS13, true, true}, nil, ok, func(s *server) { demandHTTP1(s) })
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert), Profiles: &shelf{err: errors.New("the disk is full")}})
	mustGet(t, tr, "https://card.test/")
}
