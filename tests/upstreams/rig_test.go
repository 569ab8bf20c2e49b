// Package upstreams_test runs a tlsclient.Transport against real web servers, in
// the ways that they are configured to ask for a certificate, and counts what
// that costs a card.
package upstreams_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tests/programs"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tlsclient"
)

const site = "upstream.kortti.test"

// rig is a web server with an application behind it, and a card.
type rig struct {
	t    *testing.T
	dir  string
	addr string // where the web server listens
	pki  *fineidtest.PKI

	application string       // host:port behind the web server
	polls       atomic.Int64 // requests for /secure/poll that the application has seen

	card tls.Certificate
	key  *counter
	now  *reader
}

// counter is a key that counts its signatures.
type counter struct {
	crypto.Signer
	signatures atomic.Int64
	delay      time.Duration
	hold       func() // if there, is called before a signature is made
}

func (c *counter) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.signatures.Add(1)
	time.Sleep(c.delay)
	if c.hold != nil {
		c.hold()
	}
	return c.Signer.Sign(r, digest, opts)
}

// reader is a Source whose card can be locked and unlocked.
type reader struct {
	tlsclient.Source
	unlocked, removed atomic.Bool
}

func (r *reader) Identities() []tlsclient.Identity {
	if r.removed.Load() {
		return nil
	}
	ids := r.Source.Identities()
	for i := range ids {
		ids[i].Unlocked = r.unlocked.Load()
	}
	return ids
}

func (r *reader) Signer(f card.Fingerprint, host string) (crypto.Signer, error) {
	if !r.unlocked.Load() {
		return nil, tlsclient.ErrLocked
	}
	return r.Source.Signer(f, host)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), addr: programs.FreeAddr(t)}
	var err error
	if r.pki, err = fineidtest.New(fineidtest.Options{ECOnly: true}); err != nil {
		t.Fatal(err)
	}
	issued, err := r.pki.Issue(r.pki.CitizenEC, fineidtest.Leaf{SerialNumber: fineidtest.SATU(4711).String()})
	if err != nil {
		t.Fatal(err)
	}
	r.card = issued.TLS()
	r.key = &counter{Signer: r.card.PrivateKey.(crypto.Signer), delay: 20 * time.Millisecond}
	r.card.PrivateKey = r.key
	r.now = &reader{Source: tlsclient.Static(r.card)}
	r.now.unlocked.Store(true)
	r.writeKeys()
	application := httptest.NewServer(http.HandlerFunc(r.answer))
	t.Cleanup(application.Close)
	r.application = strings.TrimPrefix(application.URL, "http://")
	return r
}

// writeKeys writes what a web server needs into its folder.
func (r *rig) writeKeys() {
	cert, err := r.pki.ServerCert(site)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		r.t.Fatal(err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	r.write("site.pem", chain)
	r.write("site-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	r.write("issuing.pem", append(r.pki.IssuingPEM(), r.pki.RootsPEM()...))
}

// answer is the application: who asks, how, and the sum of what was sent.
func (r *rig) answer(w http.ResponseWriter, req *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if req.URL.Path == "/secure/poll" && req.Method == http.MethodGet {
		r.polls.Add(1)
		<-req.Context().Done()
		return
	}
	fmt.Fprintf(w, "%t %d %x", strings.Contains(req.Header.Get("X-Subject"), fineidtest.SATU(4711).String()), n, sum.Sum(nil))
}

// known and unknown are the application's answers to a request without a body.
var (
	known   = fmt.Sprintf("true 0 %x", sha256.Sum256(nil))
	unknown = fmt.Sprintf("false 0 %x", sha256.Sum256(nil))
)

// run starts a web server in the tests' own root file system.
func (r *rig) run(name string, args ...string) {
	r.t.Helper()
	cmd := rootfs.Command(context.Background(), r.t, r.dir, name, args...)
	programs.Daemon(r.t, cmd, os.Kill, "tcp", r.addr) // unshare passes no other signal on
}

func (r *rig) write(name string, content []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), content, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// client returns a transport to the web server.
func (r *rig) client(change ...func(*tlsclient.Config)) *tlsclient.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.pki.WebRootsPEM())
	config := tlsclient.Config{
		Source: r.now,
		HostSettings: func(string, string) tlsclient.HostSettings {
			return tlsclient.HostSettings{Allowed: true, Address: r.addr, RootCAs: roots}
		},
	}
	for _, f := range change {
		f(&config)
	}
	tr := tlsclient.New(config)
	r.t.Cleanup(tr.Close)
	return tr
}

// do makes a request and returns the answer.
func do(ctx context.Context, tr http.RoundTripper, method, path string, body []byte) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		content = io.NopCloser(bytes.NewReader(body)) // can be read once
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+site+path, content)
	if err != nil {
		return 0, "", err
	}
	if body != nil {
		req.ContentLength = int64(len(body))
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// get wants an answer of the application.
func (r *rig) get(tr http.RoundTripper, path, want string) {
	r.t.Helper()
	if status, answer, err := do(r.t.Context(), tr, http.MethodGet, path, nil); err != nil || answer != want {
		r.t.Fatalf("GET %s: %d %q, %v; want %q", path, status, answer, err, want)
	}
}

// load has clients make requests, cold and at once, and returns the first error.
func (r *rig) load(tr http.RoundTripper, clients, requests int, path string) error {
	var all sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		all.Go(func() {
			for range requests / clients {
				status, answer, err := do(r.t.Context(), tr, http.MethodGet, path, nil)
				if err == nil && answer != known {
					err = fmt.Errorf("answered %d %q", status, answer)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

// signatures wants a number of signatures since the last time.
func (r *rig) signatures(want int64) {
	r.t.Helper()
	if got := r.key.signatures.Swap(0); got != want {
		r.t.Errorf("%d signatures, want %d", got, want)
	}
}

var errRefused = errors.New("the person said no")
