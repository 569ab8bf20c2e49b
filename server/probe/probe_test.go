package probe_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
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

// mistakes are what is wrong with a site's proxy; nil for what is not.
type mistakes struct {
	handle func(w http.ResponseWriter, r *http.Request, server http.Handler)
	tls    func(c *tls.Config, certificates func() []tls.Certificate)
}

func siteOf(t *testing.T, secret probe.Secret, wrong ...mistakes) (*fineidtest.PKI, *httptest.Server, *atomic.Int32) {
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
		for _, m := range wrong {
			if m.handle != nil {
				m.handle(w, r, answers)
				return
			}
		}
		answers.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{SessionTicketsDisabled: true, ClientAuth: tls.RequestClientCert}
	for _, m := range wrong {
		if m.tls != nil {
			m.tls(server.TLS, func() []tls.Certificate { return server.TLS.Certificates })
		}
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return pki, server, &requests
}

func run(t *testing.T, server *httptest.Server, secret probe.Secret, bad ...probe.Bad) (probe.Report, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	dial := server.Client().Transport.(*http.Transport).DialContext
	return probe.Run(t.Context(), probe.Config{URL: "https://example.com", Secret: secret, Roots: roots, Refused: bad, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "example.com:80" {
			return nil, errors.New("nothing listens without TLS")
		}
		return dial(ctx, network, address)
	}})
}

// Who does not know the secret is asked once, and not attacked.
func TestNotYours(t *testing.T) {
	server, requests := site(t, newSecret(t))
	report, err := run(t, server, newSecret(t))
	if !errors.Is(err, probe.ErrNotYours) || report.Findings != nil || requests.Load() != 1 {
		t.Errorf("%v, %v after %d requests", report, err, requests.Load())
	}
}

// A server that holds by itself: what a client claims is refused, not believed.
func TestBareServer(t *testing.T) {
	secret := newSecret(t)
	server, requests := site(t, secret)
	report, err := run(t, server, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Result == probe.Hole || f.Result == probe.Failed {
			t.Errorf("%+v", f)
		}
		if strings.HasPrefix(f.Check, "forged header") && f.Result != probe.Weak && f.Check != "forged header after the body" {
			t.Errorf("nobody drops the header, and the probe says %+v", f)
		}
	}
	if int(requests.Load()) < report.Requests/2 {
		t.Errorf("%d requests came, of %d", requests.Load(), report.Requests)
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
	report, err := run(t, server, secret,
		probe.Bad{Name: "signature", Code: probe.Codes()["signature"], Certificate: issue(fineidtest.Leaf{Purpose: fineid.Signature})},
		probe.Bad{Name: "revoked", Code: probe.Codes()["revoked"], Certificate: issue(fineidtest.Leaf{Purpose: fineid.Signature})},
		probe.Bad{Name: "expired", Code: probe.Codes()["expired"], Certificate: issue(fineidtest.Leaf{})},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]probe.Result{"signature": probe.OK, "revoked": probe.Weak, "expired": probe.Hole}
	for _, f := range report.Findings {
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

// drops is a proxy that drops identity headers, before the server.
func drops(w http.ResponseWriter, r *http.Request, server http.Handler) {
	reader, err := evidence.New(evidence.Config{})
	if err != nil {
		panic(err)
	}
	reader.Strip(r.Header)
	server.ServeHTTP(w, r)
}

// answers is a proxy that drops identity headers, and that itself answers a request
// with this one.
func answers(header string, status int) mistakes {
	return mistakes{handle: func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		if r.Header.Get(header) != "" {
			w.WriteHeader(status)
			return
		}
		drops(w, r, server)
	}}
}

// Each mistake is found.
func TestMistakes(t *testing.T) {
	for _, test := range []struct {
		name   string
		wrong  mistakes
		check  string
		result probe.Result
	}{
		{"Connection is handed on", mistakes{}, "headers dropped at a client's wish", probe.Weak},
		{"a card is asked for under one name", mistakes{tls: func(c *tls.Config, certificates func() []tls.Certificate) {
			none := c.Clone()
			none.ClientAuth = tls.NoClientCert
			c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if hello.ServerName != "example.com" {
					none.Certificates = certificates()
					return none, nil
				}
				return nil, nil
			}
		}}, "handshake under another name than Host", probe.Weak},
		{"any Host", mistakes{}, "Host other than the name of the handshake", probe.Weak},
		{"tickets", mistakes{tls: func(c *tls.Config, _ func() []tls.Certificate) { c.SessionTicketsDisabled = false }}, "second visit with a card, TLS 1.3", probe.Weak},
		{"tickets", mistakes{tls: func(c *tls.Config, _ func() []tls.Certificate) { c.SessionTicketsDisabled = false }}, "card after a visit without, TLS 1.2", probe.Hole},
		{"old TLS", mistakes{tls: func(c *tls.Config, _ func() []tls.Certificate) { c.MinVersion = tls.VersionTLS10 }}, "TLS 1.1", probe.Hole},
		{"answers of an ill proxy", answers("Client-Cert", http.StatusBadGateway), "forged header Client-Cert", probe.Failed},
		{"a limit of requests", answers("Remote-User", http.StatusTooManyRequests), "forged header Remote-User", probe.Failed},
		{"a proxy that says no", answers("X-Client-Cert", http.StatusBadRequest), "forged header X-Client-Cert", probe.OK},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			secret := newSecret(t)
			_, server, _ := siteOf(t, secret, test.wrong)
			report, err := run(t, server, secret)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range report.Findings {
				if f.Check == test.check {
					if f.Result != test.result {
						t.Errorf("%+v, want %s", f, test.result)
					}
					return
				}
			}
			t.Errorf("no check %q", test.check)
		})
	}
}

// A site that stops to answer is not a good one.
func TestSiteEndsMeanwhile(t *testing.T) {
	t.Parallel()
	secret := newSecret(t)
	var asked atomic.Int32
	_, server, _ := siteOf(t, secret, mistakes{handle: func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		if asked.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		server.ServeHTTP(w, r)
	}})
	report, err := run(t, server, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if strings.HasPrefix(f.Check, "forged") && f.Result != probe.Failed {
			t.Errorf("nothing answers, and the probe says %+v", f)
		}
	}
}

// The same server without TLS, on port 80.
func TestPlain(t *testing.T) {
	t.Parallel()
	secret := newSecret(t)
	_, server, _ := siteOf(t, secret)
	plain := httptest.NewServer(server.Config.Handler)
	defer plain.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	report, err := probe.Run(t.Context(), probe.Config{URL: "https://example.com", Secret: secret, Roots: roots, Backend: plain.Listener.Addr().String(),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := server
			if address == "example.com:80" {
				to = plain
			}
			return new(net.Dialer).DialContext(ctx, network, to.Listener.Addr().String())
		}})
	if err != nil {
		t.Fatal(err)
	}
	holes := map[string]bool{}
	for _, f := range report.Findings {
		if f.Result == probe.Hole {
			holes[f.Check] = true
		}
	}
	if !holes["site without TLS"] || !holes["server reachable past the proxy"] || len(holes) != 2 {
		t.Errorf("holes: %v", holes)
	}
}

// lengths is a proxy that drops headers, and that takes Content-Length for the end of
// each request, also where it comes in chunks.
func lengths(client net.Conn, server net.Conn) {
	defer client.Close()
	defer server.Close()
	go io.Copy(client, server)
	for in := bufio.NewReader(client); ; {
		var head strings.Builder
		length := 0
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			name, value, _ := strings.Cut(strings.ToLower(line), ":")
			if name == "content-length" {
				fmt.Sscan(value, &length)
			}
			if name != "client-cert" && name != "x-ssl-client-cert" {
				head.WriteString(line)
			}
			if line == "\r\n" {
				break
			}
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if _, err := io.WriteString(server, head.String()+string(body)); err != nil {
			return
		}
	}
}

// A proxy and a server that do not agree where a request ends.
func TestHiddenRequest(t *testing.T) {
	t.Parallel()
	secret := newSecret(t)
	_, server, _ := siteOf(t, secret)
	plain := httptest.NewServer(server.Config.Handler)
	defer plain.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", plain.Listener.Addr().String())
			if err != nil {
				client.Close()
				return
			}
			go lengths(client, to)
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	report, err := probe.Run(t.Context(), probe.Config{URL: "https://example.com", Secret: secret, Roots: roots,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "example.com:80" {
				return nil, errors.New("nothing listens without TLS")
			}
			return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
		}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Check == "second request hidden in a first" {
			if f.Result != probe.Hole {
				t.Errorf("%+v", f)
			}
			return
		}
	}
	t.Error("it is not tried")
}
