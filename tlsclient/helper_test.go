package tlsclient_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

const host = "card.test"

// ca is a certificate authority of a test.
type ca struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	parent *ca
}

var serials atomic.Int64

func newCA(t *testing.T, name string, parent *ca) *ca {
	t.Helper()
	c := &ca{key: newKey(t), parent: parent}
	template := &x509.Certificate{
		Subject:               pkix.Name{Country: []string{"FI"}, CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	signer := c
	if parent != nil {
		signer = parent
	}
	c.cert = sign(t, template, signer, c.key.Public())
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign issues template; an issuer without a certificate yet signs itself.
func sign(t *testing.T, template *x509.Certificate, issuer *ca, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(serials.Add(1))
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent := issuer.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func poolOf(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// smartcard is a key that counts its signatures and takes its time for each.
type smartcard struct {
	crypto.Signer
	signatures atomic.Int64
	delay      time.Duration
	err        error // in place of a signature
}

func (s *smartcard) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.signatures.Add(1)
	time.Sleep(s.delay)
	if s.err != nil {
		return nil, s.err
	}
	return s.Signer.Sign(r, digest, opts)
}

// newCard issues a login certificate on a smartcard.
func newCard(t *testing.T, issuer *ca, name string) (tls.Certificate, *smartcard) {
	t.Helper()
	return newCardWith(t, issuer, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
	})
}

func newCardWith(t *testing.T, issuer *ca, template *x509.Certificate) (tls.Certificate, *smartcard) {
	t.Helper()
	key := &smartcard{Signer: newKey(t), delay: 10 * time.Millisecond}
	cert := sign(t, template, issuer, key.Public())
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, key
}

// reader is a Source whose identities can be locked and taken away.
type reader struct {
	tlsclient.Source

	mu      sync.Mutex
	locked  map[card.Fingerprint]bool
	removed map[card.Fingerprint]bool
}

func newReader(certs ...tls.Certificate) *reader {
	return &reader{
		Source:  tlsclient.Static(certs...),
		locked:  make(map[card.Fingerprint]bool),
		removed: make(map[card.Fingerprint]bool),
	}
}

func (r *reader) lock(f card.Fingerprint, locked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locked[f] = locked
}

func (r *reader) remove(f card.Fingerprint, removed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed[f] = removed
}

func (r *reader) Identities() []tlsclient.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []tlsclient.Identity
	for _, id := range r.Source.Identities() {
		if !r.removed[id.Fingerprint] {
			id.Unlocked = !r.locked[id.Fingerprint]
			out = append(out, id)
		}
	}
	return out
}

func (r *reader) Signer(f card.Fingerprint, host string) (crypto.Signer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.removed[f]:
		return nil, tlsclient.ErrRemoved
	case r.locked[f]:
		return nil, tlsclient.ErrLocked
	}
	return r.Source.Signer(f, host)
}

func fingerprint(c tls.Certificate) card.Fingerprint { return card.FingerprintOf(c.Certificate[0]) }

// kind is the shape of a server.
type kind struct {
	version uint16
	h2      bool
	tickets bool
}

func (k kind) String() string {
	name := strings.ReplaceAll(tls.VersionName(k.version), " ", "")
	if k.h2 {
		name += ",h2"
	} else {
		name += ",h1"
	}
	if !k.tickets {
		name += ",ticketless"
	}
	return name
}

func kinds() []kind {
	var all []kind
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, h2 := range []bool{false, true} {
			for _, tickets := range []bool{true, false} {
				all = append(all, kind{version, h2, tickets})
			}
		}
	}
	return all
}

// server is an HTTPS server that asks for client certificates.
type server struct {
	*httptest.Server
	web      *ca
	accepted atomic.Int64
	live     atomic.Int64
}

// newServer starts a server; clients are the CAs that it lists, none for a
// server that does not ask. change may alter its TLS configuration.
func newServer(t *testing.T, k kind, clients []*ca, handler http.HandlerFunc, change ...func(*tls.Config)) *server {
	t.Helper()
	return newServerBefore(t, k, clients, handler, nil, change...)
}

// newServerBefore is newServer with a last change to the server itself.
func newServerBefore(t *testing.T, k kind, clients []*ca, handler http.HandlerFunc, before func(*server), change ...func(*tls.Config)) *server {
	t.Helper()
	s := &server{Server: httptest.NewUnstartedServer(handler), web: newCA(t, "web", nil)}
	key := newKey(t)
	leaf := sign(t, &x509.Certificate{DNSNames: []string{host, "other.test"}}, s.web, key.Public())
	s.TLS = &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}},
		MinVersion:             k.version,
		MaxVersion:             k.version,
		SessionTicketsDisabled: !k.tickets,
	}
	if len(clients) > 0 {
		s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
		s.TLS.ClientCAs = x509.NewCertPool()
		for _, c := range clients {
			s.TLS.ClientCAs.AddCert(c.cert)
		}
	}
	for _, f := range change {
		f(s.TLS)
	}
	s.EnableHTTP2 = k.h2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.accepted.Add(1)
			s.live.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.live.Add(-1)
		}
	}
	if before != nil {
		before(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) settings() tlsclient.HostSettings {
	return tlsclient.HostSettings{Allowed: true, Address: s.Listener.Addr().String(), RootCAs: poolOf(s.web.cert)}
}

// client returns a transport to s, closed at the end of the test.
func client(t *testing.T, s *server, config tlsclient.Config) *tlsclient.Transport {
	t.Helper()
	if config.HostSettings == nil {
		config.HostSettings = func(string, string) tlsclient.HostSettings { return s.settings() }
	}
	tr := tlsclient.New(config)
	t.Cleanup(tr.Close)
	return tr
}

// get makes a request and returns the answer's body. It ends what would hang.
func get(ctx context.Context, tr http.RoundTripper, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func mustGet(t *testing.T, tr http.RoundTripper, url string) string {
	t.Helper()
	answer, err := get(t.Context(), tr, url)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// burst makes n requests at once and returns their errors.
func burst(ctx context.Context, tr http.RoundTripper, n int, url string) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _, errs[i] = get(ctx, tr, url) })
	}
	all.Wait()
	return errs
}

// eventually waits for a state.
func eventually(t *testing.T, what string, state func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !state(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// noLeaks fails the test if goroutines of this package or of net/http's client
// survive it. Call it first, so that it runs last.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var left []string
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			buf := make([]byte, 1<<20)
			all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
			left = slices.DeleteFunc(all, func(s string) bool {
				return strings.Contains(s, "testing.") && !strings.Contains(s, "created by") ||
					strings.Contains(s, "noLeaks") ||
					!strings.Contains(s, "tlsclient.") && !strings.Contains(s, "persistConn") &&
						!strings.Contains(s, "http2clientConnReadLoop")
			})
			if len(left) == 0 {
				return
			}
			if time.Now().After(end) {
				break
			}
		}
		t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

func ok(w http.ResponseWriter, r *http.Request) {
	name := "nobody"
	if len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "%s %s", name, r.Proto)
}

// newSilent listens and never says a word.
func newSilent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
