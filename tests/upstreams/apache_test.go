package upstreams_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tests/programs"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tlsclient"
)

// apache is a configuration of Apache that asks for a certificate for /secure.
type apache struct {
	name      string
	protocols string // of TLS
	h2        bool
	none      bool // SSLVerifyClient none is said for the rest, so that each request sets it anew
	perConn   int  // MaxKeepAliveRequests, 0 for no limit
	// distrust has it list the card's CAs and trust others.
	distrust bool
}

func apaches() []apache {
	return []apache{
		{"TLS 1.2", "TLSv1.2", false, false, 0, false},
		{"TLS 1.2, h2", "TLSv1.2", true, false, 0, false},
		{"TLS 1.2 and 1.3", "TLSv1.2 +TLSv1.3", false, true, 0, false},
		{"TLS 1.2 and 1.3, h2", "TLSv1.2 +TLSv1.3", true, true, 0, false},
	}
}

func newApache(t *testing.T, a apache) *rig {
	t.Helper()
	r := newRig(t)
	inside := func(name string) string { return rootfs.Shared + "/" + name }
	var c strings.Builder
	for _, module := range []string{"mpm_event", "authz_core", "headers", "socache_shmcb", "ssl", "http2", "proxy", "proxy_http"} {
		fmt.Fprintf(&c, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", module, module)
	}
	protocols, none := "http/1.1", ""
	if a.h2 {
		protocols = "h2 http/1.1"
	}
	if a.none {
		none = "SSLVerifyClient none"
	}
	trusted := inside("issuing.pem")
	if a.distrust {
		others, err := fineidtest.New(fineidtest.Options{ECOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		r.write("others.pem", append(others.IssuingPEM(), others.RootsPEM()...))
		trusted = inside("others.pem")
	}
	fmt.Fprintf(&c, `ServerRoot /etc/apache2
PidFile /run/apache2.pid
DefaultRuntimeDir /run
ErrorLog /dev/stderr
LogLevel info
User www-data
Group www-data
ServerName %s
Listen %s
KeepAlive On
KeepAliveTimeout 60
MaxKeepAliveRequests %d
SSLSessionCache shmcb:/run/ssl_scache(512000)
<VirtualHost *>
  Protocols %s
  SSLEngine on
  SSLProtocol -all +%s
  SSLCertificateFile %s
  SSLCertificateKeyFile %s
  SSLCACertificateFile %s
  SSLCADNRequestFile %s
  SSLVerifyDepth 3
  %s
  RequestHeader set X-Subject "%%{SSL_CLIENT_S_DN}s"
  ProxyPass / http://%s/
  <Location /secure>
    SSLVerifyClient require
  </Location>
</VirtualHost>
`, site, r.addr, a.perConn, protocols, a.protocols, inside("site.pem"), inside("site-key.pem"), trusted, inside("issuing.pem"), none, r.application)
	r.write("apache.conf", []byte(c.String()))
	r.run("apache2", "-f", inside("apache.conf"), "-D", "FOREGROUND")
	return r
}

// The certificate is asked for after the request; the way to it is learned, costs
// one signature, and leaves the rest of the host as it is.
func TestApachePerDirectory(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			r := newApache(t, a)
			tr := r.client()
			r.get(tr, "/", unknown)
			r.signatures(0)
			r.get(tr, "/secure/", known)
			r.signatures(1)
			for range 3 { // what does not ask must not disturb the connection that does
				r.get(tr, "/", unknown)
				r.get(tr, "/secure/page", known)
			}
			r.signatures(0)
		})
	}
}

// A thousand requests of sixteen clients that start cold and at once.
func TestApacheColdBurst(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			r := newApache(t, a)
			if err := r.load(r.client(), 16, 1000, "/secure/"); err != nil {
				t.Error(err)
			}
			r.signatures(1)
		})
	}
}

// Apache ends a connection after so many requests, by default 100: each costs a
// signature.
func TestApacheEndsConnections(t *testing.T) {
	r := newApache(t, apache{name: "", protocols: "TLSv1.2 +TLSv1.3", perConn: 100})
	if err := r.load(r.client(), 16, 1000, "/secure/"); err != nil {
		t.Error(err)
	}
	if got := r.key.signatures.Load(); got < 10 || got > 12 {
		t.Errorf("%d signatures for 1,000 requests at 100 a connection, want about 10", got)
	}
}

// A body of a megabyte, more than Apache keeps while it renegotiates, reaches the
// place that asks at the first try, once.
func TestApacheLargePOST(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			r := newApache(t, a)
			body := make([]byte, 1<<20)
			rand.Read(body)
			want := fmt.Sprintf("true %d %x", len(body), sha256.Sum256(body))
			store := newStore()
			tr := r.client(store.config)
			for _, method := range []string{http.MethodPost, http.MethodPut} {
				if _, answer, err := do(t.Context(), tr, method, "/secure/upload", body); err != nil || answer != want {
					t.Fatalf("%s: %q, %v", method, answer, err)
				}
			}
			r.signatures(1)
			p, ok := store.Get(site, "443")
			if !ok || !p.TLS12Renegotiation || !p.WarmUp || p.HTTP1 || p.Reason == "" || p.Since.IsZero() {
				t.Errorf("learned %+v", p)
			}
			again := r.client(store.config) // a new process, with what is kept
			if _, answer, err := do(t.Context(), again, http.MethodPost, "/secure/upload", body); err != nil || answer != want {
				t.Fatalf("with the profile known: %q, %v", answer, err)
			}
			r.signatures(1)
			if _, answer, err := do(t.Context(), tr, http.MethodPost, "/public", body); err != nil || strings.HasPrefix(answer, "true") {
				t.Errorf("a place that does not ask: %q, %v", answer, err)
			}
			r.signatures(0)
		})
	}
}

// The PIN is asked for before anything is signed and outside of any handshake;
// its refusal is the request's answer; a request with a body is not lost.
func TestApacheLockedCard(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			r := newApache(t, a)
			r.now.unlocked.Store(false)
			prompts, refuse := 0, true
			tr := r.client(func(c *tlsclient.Config) {
				c.Unlock = func(_ context.Context, u tlsclient.UnlockRequest) error {
					prompts++
					if r.key.signatures.Load() != 0 {
						t.Error("something was signed before the card was unlocked")
					}
					if refuse {
						return errRefused
					}
					r.now.unlocked.Store(true)
					return nil
				}
			})
			if _, _, err := do(t.Context(), tr, http.MethodGet, "/secure/", nil); !errors.Is(err, errRefused) {
				t.Errorf("got %v, want the prompt's error", err)
			}
			refuse = false
			body := bytes.Repeat([]byte("x"), 1<<20)
			_, answer, err := do(t.Context(), tr, http.MethodPost, "/secure/", body)
			if want := fmt.Sprintf("true %d %x", len(body), sha256.Sum256(body)); err != nil || answer != want {
				t.Errorf("got %q, %v", answer, err)
			}
			if prompts != 2 {
				t.Errorf("%d prompts, want 2", prompts)
			}
			r.signatures(1)
		})
	}
}

// Removal and lock close the connections that cost a signature, end what is under
// way, and nothing dials again by itself.
func TestApacheEnd(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			r := newApache(t, a)
			tr := r.client()
			r.get(tr, "/secure/", known)
			polls := make(chan error, 1)
			go func() {
				_, _, err := do(t.Context(), tr, http.MethodGet, "/secure/poll", nil)
				polls <- err
			}()
			programs.Until(t, "the poll is with the application", func() bool { return r.polls.Load() == 1 })
			before := tr.Counters()
			r.now.removed.Store(true)
			tr.End(card.FingerprintOf(r.card.Certificate[0]), tlsclient.ErrRemoved)
			if err := <-polls; !errors.Is(err, tlsclient.ErrRemoved) {
				t.Errorf("the poll got %v, want ErrRemoved", err)
			}
			after := tr.Counters()
			if after.Handshakes != before.Handshakes || r.polls.Load() != 1 {
				t.Errorf("something dialled again: %+v, then %+v", before, after)
			}
			if _, _, err := do(t.Context(), tr, http.MethodGet, "/secure/", nil); !errors.Is(err, tlsclient.ErrNoCertificate) {
				t.Errorf("without the card: %v, want ErrNoCertificate", err)
			}
			r.get(tr, "/", unknown) // the rest of the host needs no card
			r.signatures(1)
		})
	}
}

// A certificate that the host refuses costs one signature for all who wait.
func TestApacheRefusesCertificate(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			a.distrust = true
			r := newApache(t, a)
			tr := r.client()
			var all sync.WaitGroup
			began := time.Now()
			for range 40 {
				all.Go(func() {
					var upstream *tlsclient.UpstreamError
					if status, answer, err := do(t.Context(), tr, http.MethodGet, "/secure/", nil); !errors.As(err, &upstream) {
						t.Errorf("got %d %q, %v, want an UpstreamError", status, answer, err)
					}
				})
			}
			all.Wait()
			_, _, err := do(t.Context(), tr, http.MethodGet, "/secure/", nil)
			if got := r.key.signatures.Load(); err == nil || got != 1 && time.Since(began) < tlsclient.StallTime {
				t.Errorf("%d signatures, want 1 also for one who comes a moment later; %v", got, err)
			}
		})
	}
}

// A large body does not get a further connection before that has asked for the
// certificate.
func TestApacheLargePOSTOnFurtherConnection(t *testing.T) {
	r := newApache(t, apaches()[2])
	ctx, cancel := context.WithCancel(t.Context())
	tr := r.client()
	r.get(tr, "/secure/", known)
	poll := make(chan error)
	go func() {
		_, _, err := do(ctx, tr, http.MethodGet, "/secure/poll", nil)
		poll <- err
	}()
	programs.Until(t, "the poll is with the application", func() bool { return r.polls.Load() == 1 })
	body := make([]byte, 1<<20)
	_, answer, err := do(t.Context(), tr, http.MethodPost, "/secure/", body)
	if want := fmt.Sprintf("true %d %x", len(body), sha256.Sum256(body)); err != nil || answer != want {
		t.Errorf("got %q, %v", answer, err)
	}
	r.signatures(2)
	cancel()
	<-poll
}

// A request that blocks the connection does not block the others for ever: there
// are further ones, up to a stated number, a signature each. A lock ends them at
// once, also while the card signs.
func TestApacheBlockedConnections(t *testing.T) {
	r := newApache(t, apaches()[2])
	tr := r.client()
	r.get(tr, "/secure/", known)
	polls := make(chan error)
	poll := func() {
		_, _, err := do(t.Context(), tr, http.MethodGet, "/secure/poll", nil)
		polls <- err
	}
	for range tlsclient.TicketlessConns + 2 {
		go poll()
	}
	programs.Until(t, "the host has all the connections that it may get", func() bool {
		return r.polls.Load() == tlsclient.TicketlessConns
	})
	r.signatures(tlsclient.TicketlessConns)
	tr.End(card.FingerprintOf(r.card.Certificate[0]), tlsclient.ErrLocked)
	for range tlsclient.TicketlessConns + 2 {
		if err := <-polls; !errors.Is(err, tlsclient.ErrLocked) {
			t.Errorf("a poll got %v, want ErrLocked", err)
		}
	}
	r.signatures(0)
}

// A lock does not wait for a card that signs, nor do the requests.
func TestApacheEndWhileSigning(t *testing.T) {
	r := newApache(t, apaches()[2])
	tr := r.client()
	r.get(tr, "/secure/", known)
	signing, release := make(chan struct{}, 10), make(chan struct{})
	r.key.hold = func() { signing <- struct{}{}; <-release }
	ended := make(chan error)
	get := func(path string) {
		_, _, err := do(t.Context(), tr, http.MethodGet, path, nil)
		ended <- err
	}
	go get("/secure/poll")
	programs.Until(t, "the poll is with the application", func() bool { return r.polls.Load() == 1 })
	go get("/secure/") // it gets a further connection, for which the card signs
	<-signing
	began := time.Now()
	tr.End(card.FingerprintOf(r.card.Certificate[0]), tlsclient.ErrLocked)
	for range 2 {
		if err := <-ended; !errors.Is(err, tlsclient.ErrLocked) {
			t.Errorf("got %v, want ErrLocked", err)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	close(release)
}

// A reset forgets what was learned and closes the connections; what is still true
// is learned anew.
func TestApacheReset(t *testing.T) {
	r := newApache(t, apaches()[3])
	store := newStore()
	tr := r.client(store.config)
	r.get(tr, "/secure/", known)
	if why, err := tr.Why(t.Context(), site); err != nil || !why.Asked || len(why.AcceptableCAs) == 0 || why.Chosen == nil {
		t.Errorf("why: %+v, %v", why, err)
	}
	if err := tr.ResetProfile(site); err != nil {
		t.Fatal(err)
	}
	if _, kept := store.Get(site, "443"); kept || tr.Counters().Connections != 0 {
		t.Errorf("the reset left the profile (%t) or %d connections", kept, tr.Counters().Connections)
	}
	r.get(tr, "/secure/", known) // learned again
	r.signatures(2)
}
