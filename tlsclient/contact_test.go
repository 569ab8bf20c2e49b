package tlsclient_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// once is a body that can be read only once and tells what was done to it.
type once struct {
	io.Reader
	reads  atomic.Int64
	closed atomic.Bool
}

func (o *once) Read(p []byte) (int, error) {
	if o.closed.Load() {
		return 0, errors.New("read after close")
	}
	o.reads.Add(1)
	return o.Reader.Read(p)
}

func (o *once) Close() error { o.closed.Store(true); return nil }

// The body of a request waits until the card is unlocked and arrives once.
func TestStreamedBodyWaitsForUnlock(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			source := newReader(cert)
			source.lock(fingerprint(cert), true)
			var bodies atomic.Int64
			s := newServer(t, k, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
				bodies.Add(1)
				sum := sha256.New()
				n, err := io.Copy(sum, r.Body)
				fmt.Fprintf(w, "%d %v %x", n, err, sum.Sum(nil))
			})
			content := make([]byte, 1<<20)
			rand.Read(content)
			body := &once{Reader: bytes.NewReader(content)}
			unlocks := 0
			tr := client(t, s, tlsclient.Config{
				Source: source,
				Unlock: func(_ context.Context, r tlsclient.UnlockRequest) error {
					unlocks++
					if r.Host != host || r.Port != "443" || r.Identity.Fingerprint != fingerprint(cert) {
						t.Errorf("asked to unlock %+v", r)
					}
					if body.reads.Load() != 0 || key.signatures.Load() != 0 {
						t.Error("the body was read, or something signed, before the card was unlocked")
					}
					source.lock(fingerprint(cert), false)
					return nil
				},
			})
			req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://card.test/", body)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := fmt.Sprintf("%d <nil> %x", len(content), sha256.Sum256(content)); string(answer) != want {
				t.Errorf("the host got %s, want %s", answer, want)
			}
			if unlocks != 1 || bodies.Load() != 1 || key.signatures.Load() != 1 || !body.closed.Load() {
				t.Errorf("%d unlocks, %d bodies, %d signatures, want 1 each; closed %v",
					unlocks, bodies.Load(), key.signatures.Load(), body.closed.Load())
			}
		})
	}
}

// prompt is a Config.Unlock that waits for the test.
type prompt struct {
	calls  atomic.Int64
	opened chan context.Context
	answer chan error
}

func newPrompt() *prompt {
	return &prompt{opened: make(chan context.Context, 100), answer: make(chan error)}
}

func (p *prompt) unlock(ctx context.Context, _ tlsclient.UnlockRequest) error {
	p.calls.Add(1)
	p.opened <- ctx
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// All requests that need an identity, also to several hosts, wait for one
// prompt; its refusal is the answer to all, and the next request asks again.
func TestOnePromptForAll(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	source := newReader(cert)
	source.lock(fingerprint(cert), true)
	p := newPrompt()
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	tr := client(t, s, tlsclient.Config{Source: source, Unlock: p.unlock})

	ask := func() (wait func() []error) {
		var a, b []error
		var all sync.WaitGroup
		all.Go(func() { a = burst(t.Context(), tr, 20, "https://card.test/") })
		all.Go(func() { b = burst(t.Context(), tr, 20, "https://other.test/") })
		return func() []error { all.Wait(); return append(a, b...) }
	}
	allWait := func() {
		eventually(t, "all requests wait for the PIN", func() bool {
			return tlsclient.Contacting(tr, host) == 20 && tlsclient.Contacting(tr, "other.test") == 20 &&
				tlsclient.Prompting(tr, fingerprint(cert)) == 2
		})
	}
	refused := ask()
	<-p.opened
	allWait()
	p.answer <- card.ErrPINCancelled
	for _, err := range refused() {
		if !errors.Is(err, card.ErrPINCancelled) {
			t.Errorf("got %v, want the prompt's error", err)
		}
	}
	if p.calls.Load() != 1 || key.signatures.Load() != 0 {
		t.Fatalf("%d prompts and %d signatures, want 1 and 0", p.calls.Load(), key.signatures.Load())
	}
	granted := ask()
	<-p.opened
	allWait()
	source.lock(fingerprint(cert), false)
	p.answer <- nil
	for _, err := range granted() {
		if err != nil {
			t.Error(err)
		}
	}
	if p.calls.Load() != 2 || key.signatures.Load() != 2 {
		t.Errorf("%d prompts and %d signatures, want 2 and 2 (one for each host)", p.calls.Load(), key.signatures.Load())
	}
}

// A prompt outlives each request that waits for it, but not the last.
func TestPromptEndsWithLastWaiter(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	source := newReader(cert)
	source.lock(fingerprint(cert), true)
	p := newPrompt()
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	tr := client(t, s, tlsclient.Config{Source: source, Unlock: p.unlock})

	type program struct{}
	first, cancelFirst := context.WithCancel(context.WithValue(t.Context(), program{}, "curl"))
	second, cancelSecond := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { _, err := get(first, tr, "https://card.test/"); results <- err }()
	ctx := <-p.opened
	if ctx.Value(program{}) != "curl" {
		t.Error("the prompt does not see the values of the request's context")
	}
	go func() { _, err := get(second, tr, "https://card.test/"); results <- err }()
	eventually(t, "both requests wait", func() bool { return tlsclient.Contacting(tr, host) == 2 })
	cancelFirst()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the first request got %v", err)
	}
	if ctx.Err() != nil {
		t.Fatal("the prompt closed though a request waits for it")
	}
	cancelSecond()
	<-results
	<-ctx.Done()
	if p.calls.Load() != 1 {
		t.Errorf("%d prompts, want 1", p.calls.Load())
	}
}

func TestLockedWithoutUnlock(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	source := newReader(cert)
	source.lock(fingerprint(cert), true)
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	tr := client(t, s, tlsclient.Config{Source: source})
	if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

// An empty CA list selects nothing by itself, not even the only certificate.
func TestEmptyCAList(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, kind{version, true, true}, nil, ok, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrAmbiguous) {
				t.Errorf("got %v, want ErrAmbiguous", err)
			}
			if key.signatures.Load() != 0 {
				t.Error("something was signed")
			}

			asked := 0
			tr = client(t, s, tlsclient.Config{
				Source: tlsclient.Static(cert),
				Choose: func(_ context.Context, h string, candidates []tlsclient.Identity, why tlsclient.Explanation) (card.Fingerprint, error) {
					asked++
					if h != host || len(candidates) != 1 || len(why.AcceptableCAs) != 0 {
						t.Errorf("asked to choose for %s among %d: %+v", h, len(candidates), why)
					}
					return candidates[0].Fingerprint, nil
				},
			})
			if got := mustGet(t, tr, "https://card.test/"); got != "meri HTTP/2.0" || asked != 1 {
				t.Errorf("got %q after %d questions", got, asked)
			}

			pin := fingerprint(cert)
			settings := s.settings()
			settings.Pin = &pin
			tr = client(t, s, tlsclient.Config{
				Source:       tlsclient.Static(cert),
				HostSettings: func(string, string) tlsclient.HostSettings { return settings },
			})
			mustGet(t, tr, "https://card.test/")
		})
	}
}

// Several certificates that fit are a person's choice; what is chosen must be
// one of them.
func TestChoose(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	meri, _ := newCard(t, people, "meri")
	onni, onniKey := newCard(t, people, "onni")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	var answer card.Fingerprint
	var refusal error
	tr := client(t, s, tlsclient.Config{
		Source: tlsclient.Static(meri, onni),
		Choose: func(context.Context, string, []tlsclient.Identity, tlsclient.Explanation) (card.Fingerprint, error) {
			return answer, refusal
		},
	})
	if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrNoCertificate) {
		t.Errorf("an unknown certificate was chosen: %v, want ErrNoCertificate", err)
	}
	refusal = errors.New("the person closed the window")
	if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, refusal) {
		t.Errorf("got %v, want Choose's error", err)
	}
	answer, refusal = fingerprint(onni), nil
	if got := mustGet(t, tr, "https://card.test/"); got != "onni HTTP/2.0" || onniKey.signatures.Load() != 1 {
		t.Errorf("got %q, %d signatures", got, onniKey.signatures.Load())
	}
}

func TestNoCertificateAsked(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, k, nil, ok)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			for _, err := range burst(t.Context(), tr, 40, "https://card.test/") {
				if err != nil {
					t.Fatal(err)
				}
			}
			if c := tr.Counters(); key.signatures.Load() != 0 || c.Signatures != 0 || c.SignaturesAvoided != 0 {
				t.Errorf("%d signatures; %+v", key.signatures.Load(), c)
			}
		})
	}
}

// A host that begins to ask for a certificate gets a first contact of its own.
func TestHostBeginsToAsk(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	var asking atomic.Bool
	s := newServer(t, kind{tls.VersionTLS13, false, false}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		ok(w, r)
	}, func(c *tls.Config) {
		plain := c.Clone()
		plain.ClientAuth = tls.NoClientCert
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if asking.Load() {
				return nil, nil
			}
			return plain, nil
		}
	})
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	if got := mustGet(t, tr, "https://card.test/"); got != "nobody HTTP/1.1" {
		t.Fatalf("got %q", got)
	}
	asking.Store(true)
	if got := mustGet(t, tr, "https://card.test/"); got != "meri HTTP/1.1" || key.signatures.Load() != 1 {
		t.Errorf("got %q with %d signatures", got, key.signatures.Load())
	}
}

// The card is locked behind the transport's back: the next handshake finds out
// and asks.
func TestLockedBetweenHandshakes(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	source := newReader(cert)
	s := newServer(t, kind{tls.VersionTLS13, false, false}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		ok(w, r)
	})
	unlocks := 0
	tr := client(t, s, tlsclient.Config{Source: source, Unlock: func(context.Context, tlsclient.UnlockRequest) error {
		unlocks++
		source.lock(fingerprint(cert), false)
		return nil
	}})
	mustGet(t, tr, "https://card.test/")
	source.lock(fingerprint(cert), true)
	mustGet(t, tr, "https://card.test/")
	if unlocks != 1 || key.signatures.Load() != 2 {
		t.Errorf("%d unlocks and %d signatures, want 1 and 2", unlocks, key.signatures.Load())
	}
}

func TestHostNotAllowed(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	settings := s.settings()
	settings.Allowed = false
	tr := client(t, s, tlsclient.Config{
		Source:       tlsclient.Static(cert),
		HostSettings: func(string, string) tlsclient.HostSettings { return settings },
	})
	if _, err := get(t.Context(), tr, "https://card.test/"); !errors.Is(err, tlsclient.ErrNotAllowed) || s.accepted.Load() != 0 {
		t.Errorf("got %v after %d connections, want ErrNotAllowed after none", err, s.accepted.Load())
	}
}

// An untrusted host gets no signature and no prompt.
func TestUntrustedHost(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	settings := s.settings()
	settings.RootCAs = poolOf(newCA(t, "another web", nil).cert)
	tr := client(t, s, tlsclient.Config{
		Source:       tlsclient.Static(cert),
		HostSettings: func(string, string) tlsclient.HostSettings { return settings },
	})
	_, err := get(t.Context(), tr, "https://card.test/")
	var upstream *tlsclient.UpstreamError
	var untrusted *tls.CertificateVerificationError
	if !errors.As(err, &upstream) || upstream.Op != "handshake" || !errors.As(err, &untrusted) || key.signatures.Load() != 0 {
		t.Errorf("got %v with %d signatures", err, key.signatures.Load())
	}
}

// A host that accepts the connection and says nothing costs time, not a hang.
func TestHandshakeTimeout(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	silent := newSilent(t)
	tr := tlsclient.New(tlsclient.Config{
		Source:           tlsclient.Static(cert),
		HandshakeTimeout: 20 * time.Millisecond,
		HostSettings: func(string, string) tlsclient.HostSettings {
			return tlsclient.HostSettings{Allowed: true, Address: silent}
		},
	})
	defer tr.Close()
	_, err := get(t.Context(), tr, "https://card.test/")
	var upstream *tlsclient.UpstreamError
	if !errors.As(err, &upstream) || !upstream.Timeout() {
		t.Errorf("got %v, want a time-out", err)
	}
}

// TestPermitIsAskedForEachRequest has two requests on one pool, of which only
// one may use the identity.
func TestPermitIsAskedForEachRequest(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	type program struct{}
	refused := errors.New("not this program")
	tr := client(t, s, tlsclient.Config{
		Source: newReader(cert),
		Permit: func(ctx context.Context, name, port string, id tlsclient.Identity) error {
			if name != host || port != "443" || id.Fingerprint != fingerprint(cert) {
				t.Errorf("asked for %s at %s:%s", id.Fingerprint, name, port)
			}
			if ctx.Value(program{}) == "bad" {
				return refused
			}
			return nil
		},
	})
	if body, err := get(t.Context(), tr, "https://card.test/"); err != nil || body != "meri HTTP/2.0" {
		t.Fatal(body, err)
	}
	if _, err := get(context.WithValue(t.Context(), program{}, "bad"), tr, "https://card.test/"); !errors.Is(err, refused) {
		t.Errorf("got %v, want the refusal", err)
	}
	if c := tr.Counters(); c.Requests != 1 || key.signatures.Load() != 1 {
		t.Errorf("%d signatures, %+v", key.signatures.Load(), c)
	}
}
