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

	"github.com/kortti-id/kortti/fineid"
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
	_, server, requests := siteOf(t, secret)
	return server, requests
}

func siteOf(t *testing.T, secret probe.Secret) (*fineidtest.PKI, *httptest.Server, *atomic.Int32) {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	unchecked, err := verify.InsecureSkipRevocation("a test")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := verify.New(verify.Config{
		Roots: []*x509.Certificate{pki.Root.Certificate}, Issuing: []*x509.Certificate{pki.CitizenEC.Certificate},
		Issuers: fineid.DVV().With(pki.Issuers()...), Revocation: unchecked,
	})
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
	server.TLS = &tls.Config{SessionTicketsDisabled: true, ClientAuth: tls.RequestClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return pki, server, &requests
}

func run(t *testing.T, server *httptest.Server, secret probe.Secret, bad ...probe.Bad) ([]probe.Finding, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return probe.Run(t.Context(), probe.Config{URL: "https://example.com", Secret: secret, Roots: roots, Dial: server.Client().Transport.(*http.Transport).DialContext, Refused: bad})
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

// Certificates for staging: one that is refused as it should be, one for another
// reason, and one that is let in.
func TestStaging(t *testing.T) {
	secret := newSecret(t)
	pki, server, _ := siteOf(t, secret)
	issue := func(leaf fineidtest.Leaf) tls.Certificate {
		t.Helper()
		issued, err := pki.Issue(pki.CitizenEC, leaf)
		if err != nil {
			t.Fatal(err)
		}
		return issued.TLS()
	}
	findings, err := run(t, server, secret,
		probe.Bad{Name: "signature", Code: probe.Codes()["signature"], Certificate: issue(fineidtest.Leaf{Purpose: fineid.Signature})},
		probe.Bad{Name: "revoked", Code: probe.Codes()["revoked"], Certificate: issue(fineidtest.Leaf{Purpose: fineid.Signature})},
		probe.Bad{Name: "expired", Code: probe.Codes()["expired"], Certificate: issue(fineidtest.Leaf{})},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]probe.Result{"signature": probe.OK, "revoked": probe.Weak, "expired": probe.Hole}
	for _, f := range findings {
		if result, ok := want[f.Check]; ok && f.Result != result {
			t.Errorf("%+v, want %s", f, result)
		}
		delete(want, f.Check)
	}
	if len(want) > 0 {
		t.Errorf("not tried: %v", want)
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
