package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/agent/roots"
)

// patience bounds waits for a state that must come.
const patience = 20 * time.Second

// hostList is a list of hosts that a test can change.
type hostList struct {
	mu    sync.Mutex
	hosts []config.Host
}

func (l *hostList) Lookup(host, port string) (config.Host, bool) {
	for _, h := range l.List() {
		if h.Match(host, port) > 0 {
			return h, true
		}
	}
	return config.Host{}, false
}

func (l *hostList) List() []config.Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

func (l *hostList) set(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts = nil
	for _, name := range names {
		host, port, err := config.ParseName(name)
		if err != nil {
			panic(err)
		}
		l.hosts = append(l.hosts, config.Host{Name: host, Port: port})
	}
}

// rig is a running proxy in front of an origin that plays every listed host.
type rig struct {
	proxy  *Proxy
	t      testing.TB
	addr   string // of the proxy
	hosts  *hostList
	roots  *roots.Store
	origin *httptest.Server
	stop   func() // ends the proxy and waits for it
}

// errWaiting is what Admit and Transport may fail with in tests.
var errWaiting = errors.New("secret detail: PIN 1234")

// newRig starts the proxy with card.test and *.cards.test listed. The change
// functions see the configuration before it is used.
func newRig(t testing.TB, handler http.HandlerFunc, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, hosts: &hostList{}}
	r.hosts.set("card.test", "*.cards.test")
	r.origin = httptest.NewUnstartedServer(handler)
	r.origin.EnableHTTP2 = true
	r.origin.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	r.origin.StartTLS()
	t.Cleanup(r.origin.Close)

	var err error
	if r.roots, err = roots.Open(filepath.Join(t.TempDir(), "roots"), nil); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Listen:    "127.0.0.1:0",
		Hosts:     r.hosts,
		Transport: r.transport(),
		Roots:     r.roots,
		Peer:      peer.NewFinder().Lookup,
		Admit: func(ctx context.Context, _ Asked) (context.Context, error) {
			return ctx, nil
		},
		Explain: func(err error) (int, string, string, string) {
			if errors.Is(err, errWaiting) {
				return http.StatusServiceUnavailable, "waiting", "a PIN is being asked for", "Give the PIN and try again."
			}
			return 0, "", "the host cannot be reached", ""
		},
		DialTunnel: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("nothing else in this test")
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	r.serve(cfg)
	return r
}

// transport reaches the origin whatever the host is called.
func (r *rig) transport() *http.Transport {
	pool := x509.NewCertPool()
	pool.AddCert(r.origin.Certificate())
	t := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: pool, ServerName: "example.com"},
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, r.origin.Listener.Addr().String())
		},
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return t
}

func (r *rig) serve(cfg Config) {
	r.t.Helper()
	p, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr, r.proxy = l.Addr().String(), p
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx, l) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				r.t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			r.t.Error("Serve does not end")
		}
	})
	r.t.Cleanup(r.stop)
}

// trust is a TLS configuration that knows the local root of a listed name.
func (r *rig) trust(listed string) *tls.Config {
	r.t.Helper()
	root, err := r.roots.Get(listed)
	if err != nil {
		r.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root.Certificate)
	return &tls.Config{RootCAs: pool}
}

// client is a Go program that uses the proxy for card.test.
func (r *rig) client(http2 bool) *http.Client {
	r.t.Helper()
	t := &http.Transport{
		Proxy:              http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr}),
		TLSClientConfig:    r.trust("card.test"),
		DisableCompression: true,
		ForceAttemptHTTP2:  http2,
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dial opens a connection to the proxy that ends with the test.
func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// connect sends CONNECT and gives the connection after a good answer.
func (r *rig) connect(to string) *net.TCPConn {
	r.t.Helper()
	c := r.dial()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	got := make([]byte, len(established))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != established {
		r.t.Fatalf("CONNECT %s: %q %v", to, got, err)
	}
	return c
}

// connectTLS is connect and the handshake.
func (r *rig) connectTLS(to string, cfg *tls.Config) *tls.Conn {
	r.t.Helper()
	c := tls.Client(r.connect(to), cfg)
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) cardTLS(alpn ...string) *tls.Conn {
	cfg := r.trust("card.test")
	cfg.ServerName = "card.test"
	cfg.NextProtos = alpn
	return r.connectTLS("card.test:443", cfg)
}

// raw sends bytes to the proxy's front and reads one answer.
func (r *rig) raw(request string) (*http.Response, string) {
	r.t.Helper()
	return exchange(r.t, r.dial(), request)
}

func exchange(t testing.TB, c net.Conn, request string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// fetch does a request and returns the answer with its body.
func fetch(t testing.TB, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// wait waits for a channel to be closed or to give.
func wait[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
}

// dialTo makes every tunnel lead to one address.
func dialTo(addr string) func(*Config) {
	return func(c *Config) {
		c.DialTunnel = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	}
}

// refuseAll is a Peer function for another user's connection.
func refuseAll(local, remote netip.AddrPort) (peer.Peer, error) {
	return peer.Peer{}, peer.ErrRefused
}

// rootFile writes the local root of card.test for curl.
func (r *rig) rootFile() string {
	r.t.Helper()
	root, err := r.roots.Get("card.test")
	if err != nil {
		r.t.Fatal(err)
	}
	file := filepath.Join(r.t.TempDir(), "root.pem")
	if err := os.WriteFile(file, root.PEM(), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n\r\n" }
