package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/probe"
	"github.com/kortti-id/kortti/server/verify"
)

func newSecret(t *testing.T) probe.Secret {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := probe.NewSecret(path); err != nil {
		t.Fatal(err)
	}
	if probe.NewSecret(path) == nil {
		t.Error("a secret was written over")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	secret, err := probe.ReadSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// site is a server that answers the probe with the secret, and counts requests.
func site(t *testing.T, secret probe.Secret) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	unchecked, err := verify.InsecureSkipRevocation("a test")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := verify.New(verify.Config{Roots: []*x509.Certificate{pki.Root.Certificate}, Revocation: unchecked})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := evidence.New(evidence.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	answers := probe.Handler(secret, reader, verifier)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != probe.Path {
			http.NotFound(w, r)
			return
		}
		answers.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{SessionTicketsDisabled: true}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, &requests
}

func run(t *testing.T, server *httptest.Server, secret probe.Secret) ([]probe.Finding, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return probe.Run(t.Context(), probe.Config{URL: "https://example.com", Secret: secret, Roots: roots, Dial: server.Client().Transport.(*http.Transport).DialContext})
}

// Who does not know the secret is asked once, and not attacked.
func TestNotYours(t *testing.T) {
	server, requests := site(t, newSecret(t))
	findings, err := run(t, server, newSecret(t))
	if !errors.Is(err, probe.ErrNotYours) || findings != nil || requests.Load() != 1 {
		t.Errorf("%v, %v after %d requests", findings, err, requests.Load())
	}
}

// A server that holds by itself: what a client claims is refused, not believed.
func TestBareServer(t *testing.T) {
	secret := newSecret(t)
	server, requests := site(t, secret)
	findings, err := run(t, server, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Result == probe.Hole {
			t.Errorf("%+v", f)
		}
		if strings.HasPrefix(f.Check, "forged header") && f.Result != probe.Weak {
			t.Errorf("nobody drops the header, and the probe says %+v", f)
		}
	}
	if requests.Load() < 100 {
		t.Errorf("only %d requests", requests.Load())
	}
}

// Nobody learns anything without the proof.
func TestHandlerWantsProof(t *testing.T) {
	server, _ := site(t, newSecret(t))
	for _, query := range []string{"", "?nonce=00112233445566778899aabbccddeeff", "?nonce=00112233445566778899aabbccddeeff&mac=00", "?mac=00"} {
		resp, err := server.Client().Get(server.URL + probe.Path + query)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %s", query, resp.Status)
		}
	}
	if _, err := probe.Run(context.Background(), probe.Config{URL: "http://example.com"}); err == nil {
		t.Error("took an address without TLS")
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("00ff\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := probe.ReadSecret(short); err == nil {
		t.Error("took a short secret")
	}
}
