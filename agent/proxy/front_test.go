package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/config"
)

func never(t *testing.T) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { t.Error("the origin was asked") }
}

func TestNewRefuses(t *testing.T) {
	good := newRig(t, never(t))
	for _, listen := range []string{"", "0.0.0.0:8079", "[::]:8079", "192.0.2.1:8079", "localhost:8079", "127.0.0.1"} {
		cfg := Config{Listen: listen, Hosts: good.hosts, Transport: http.DefaultTransport, Roots: good.roots, Peer: refuseAll}
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "needed") {
			t.Errorf("without functions: %v", err)
		}
		if err := requireLoopback(listen); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%q: %v", listen, err)
		}
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	r := newRig(t, never(t), func(c *Config) { c.Peer = refuseAll })
	for _, request := range []string{"CONNECT card.test:443 HTTP/1.1\r\n\r\n", "GET /proxy.pac HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n", "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"} {
		c := r.dial()
		resp, _ := exchange(t, c, request)
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get(errorHeader) != "not-your-proxy" {
			t.Errorf("%q: %v", request, resp.Status)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Error("the connection is still open")
		}
	}
}

// TestFloodOfOtherUsers opens more connections than are turned away with an
// answer: the rest is closed at once, and the log does not fill.
func TestFloodOfOtherUsers(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, never(t), func(c *Config) {
		c.Peer = refuseAll
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	var conns []net.Conn
	for range 4 * maxTurnedAway {
		conns = append(conns, r.dial())
	}
	answered := 0
	for _, c := range conns {
		if b, _ := io.ReadAll(c); len(b) > 0 { // one that is closed at once may be reset
			answered++
		}
	}
	if answered < maxTurnedAway || answered == len(conns) {
		t.Errorf("%d of %d got an answer", answered, len(conns))
	}
	r.stop()
	if n := strings.Count(log.String(), "refused"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

func TestTunnelPassesBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, 16<<20)
	rand.Read(data)
	got := make(chan [32]byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		// The end of the program's half must come through before anything is
		// sent, and the answer after it.
		hash := sha256.New()
		io.Copy(hash, c)
		got <- [32]byte(hash.Sum(nil))
		c.Write(data)
	}()
	r := newRig(t, never(t), dialTo(l.Addr().String()))
	c := r.connect("other.test:443")
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if hash := <-got; hash != sha256.Sum256(data) {
		t.Error("other bytes arrived at the host")
	}
	back, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("other bytes came back: %d of %d, %v", len(back), len(data), err)
	}
}

// The host may end its half first, and bytes may come together with CONNECT.
func TestTunnelHostEndsFirst(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "bye")
		c.(*net.TCPConn).CloseWrite()
		rest, _ := io.ReadAll(c)
		got <- string(rest)
	}()
	r := newRig(t, never(t), dialTo(l.Addr().String()))
	c := r.dial()
	io.WriteString(c, "CONNECT [2001:db8::1]:25 HTTP/1.1\r\nHost: x\r\n\r\nearly ")
	if answer, err := io.ReadAll(c); err != nil || string(answer) != established+"bye" {
		t.Errorf("%q %v", answer, err)
	}
	io.WriteString(c, "late")
	c.CloseWrite()
	if rest := <-got; rest != "early late" {
		t.Errorf("%q", rest)
	}
}

func TestTunnelErrors(t *testing.T) {
	r := newRig(t, never(t), func(c *Config) {
		c.DialTunnel = func(_ context.Context, _, addr string) (net.Conn, error) {
			switch {
			case strings.HasPrefix(addr, "unknown"):
				return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
			case strings.HasPrefix(addr, "slow"):
				return nil, context.DeadlineExceeded
			}
			return nil, errors.New("connection refused")
		}
	})
	for host, want := range map[string]int{"unknown.test": 502, "slow.test": 504, "shut.test": 502} {
		resp, body := r.raw("CONNECT " + host + ":443 HTTP/1.1\r\n\r\n")
		if resp.StatusCode != want || resp.Header.Get(errorHeader) != "unreachable" || !strings.Contains(body, host) {
			t.Errorf("%s: %s %q", host, resp.Status, body)
		}
	}
}

func TestNoWayToTheProxyItself(t *testing.T) {
	var r *rig
	r = newRig(t, never(t), func(c *Config) {
		c.DialTunnel = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !strings.HasPrefix(addr, "rebound.test:") {
				t.Errorf("dialled %s", addr)
			}
			return (&net.Dialer{}).DialContext(ctx, network, r.addr) // any name can lead here
		}
	})
	_, port, _ := net.SplitHostPort(r.addr)
	for _, host := range []string{"127.0.0.1", "localhost", "LocalHost.", "a.localhost", "127.1.2.3", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "rebound.test"} {
		resp, _ := r.raw("CONNECT " + host + ":" + port + " HTTP/1.1\r\n\r\n")
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get(errorHeader) != "loop" {
			t.Errorf("CONNECT %s: %s", host, resp.Status)
		}
		resp, _ = r.raw(lines("GET http://"+host+":"+port+"/proxy.pac HTTP/1.1", "Host: x"))
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get(errorHeader) != "loop" {
			t.Errorf("GET %s: %s", host, resp.Status)
		}
	}
}

// Nor is there one to the agent's other listeners, by name or by what a name
// leads to.
func TestNoWayToOtherListeners(t *testing.T) {
	other := listenLocal(t)
	serveEach(t, other, func(c *net.TCPConn) { io.WriteString(c, "reached") })
	r := newRig(t, never(t), dialTo(other.Addr().String()), func(c *Config) {
		c.Others = []netip.AddrPort{unmap(other.Addr())}
	})
	_, port, _ := net.SplitHostPort(other.Addr().String())
	for _, to := range []string{other.Addr().String(), "localhost:" + port, "[::1]:" + port, "rebound.test:443"} {
		for _, request := range []string{"CONNECT " + to + " HTTP/1.1\r\n\r\n", lines("GET http://"+to+"/ HTTP/1.1", "Host: x")} {
			if resp, body := r.raw(request); resp.StatusCode != http.StatusForbidden || resp.Header.Get(errorHeader) != "loop" {
				t.Errorf("%q: %s %q", request, resp.Status, body)
			}
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	r := newRig(t, never(t), func(c *Config) {
		c.DialTunnel = func(_ context.Context, _, addr string) (net.Conn, error) {
			t.Errorf("dialled %q", addr)
			return nil, errors.New("no")
		}
	})
	for _, request := range []string{
		"CONNECT  HTTP/1.1\r\n\r\n",
		"CONNECT card.test HTTP/1.1\r\n\r\n",
		"CONNECT card.test:443 HTTP/1.1 x\r\n\r\n",
		"CONNECT card.test:0 HTTP/1.1\r\n\r\n",
		"CONNECT card.test:99999 HTTP/1.1\r\n\r\n",
		"CONNECT user:pw@card.test:443 HTTP/1.1\r\n\r\n",
		"CONNECT /card.test:443 HTTP/1.1\r\nHost: card.test\r\n\r\n",
		"CONNECT http://card.test:443/ HTTP/1.1\r\nHost: card.test\r\n\r\n",
		"CONNECT card.test:443/x HTTP/1.1\r\n\r\n",
		"CONNECT card.test:443?x HTTP/1.1\r\n\r\n",
		"CONNECT %63ard.test:443 HTTP/1.1\r\n\r\n",
		"CONNECT card\x00.test:443 HTTP/1.1\r\n\r\n",
		"CONNECT * HTTP/1.1\r\n\r\n",
		"GET https://card.test/ HTTP/1.1\r\nHost: card.test\r\n\r\n",
		"GET ftp://card.test/ HTTP/1.1\r\nHost: card.test\r\n\r\n",
		"GET http://user@other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
		"GET http://a_\"b/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http:x HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		if resp, body := r.raw(request); resp.StatusCode < 400 || resp.StatusCode > 505 {
			t.Errorf("%q: %s %q", request, resp.Status, body)
		}
	}
	if resp, _ := r.raw("GET / HTTP/1.1\r\nHost: " + r.addr + "\r\nX: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n"); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long header: %s", resp.Status)
	}
}

func TestPlainOfListedHostIsRedirected(t *testing.T) {
	r := newRig(t, never(t))
	r.hosts.set("card.test:443", "any.test")
	for target, want := range map[string]string{
		"http://card.test":                 "https://card.test/",
		"http://card.test/a%2Fb//c?x=%20;": "https://card.test/a%2Fb//c?x=%20;",
		"http://Card.Test.:80/":            "https://card.test/",
		"http://any.test:8080/x":           "https://any.test:8080/x",
	} {
		resp, _ := r.raw(lines("POST "+target+" HTTP/1.1", "Host: evil.test", "Content-Length: 0"))
		if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != want {
			t.Errorf("%s: %s %s", target, resp.Status, resp.Header.Get("Location"))
		}
	}
}

func TestPlainIsForwarded(t *testing.T) {
	seen := make(chan *http.Request, 1)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r.Clone(context.Background())
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set(errorHeader, "forged")
		w.Header()["Content-Type"] = nil
		w.WriteHeader(http.StatusTeapot)
		w.Write(body)
	}))
	defer origin.Close()
	r := newRig(t, never(t), dialTo(origin.Listener.Addr().String()))
	resp, body := r.raw(lines("PUT http://other.test:8080/a%2Fb//c?q=a;b&%zz HTTP/1.1", "Host: ignored.test", "Connection: keep-alive, X-Mine",
		"X-Mine: 1", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==", "Proxy-Foo: 1", "Keep-Alive: 1", "X-Forwarded-For: 192.0.2.1",
		"Cookie: a=b", "Content-Length: 5") + "hello")
	if resp.StatusCode != http.StatusTeapot || body != "hello" || resp.Header.Get("X-Hop")+resp.Header.Get("Proxy-Authenticate")+resp.Header.Get(errorHeader) != "" || resp.Header.Get("Content-Type") != "" {
		t.Errorf("%s %q %v", resp.Status, body, resp.Header)
	}
	got := <-seen
	if got.RequestURI != "/a%2Fb//c?q=a;b&%zz" || got.Host != "other.test:8080" || got.Method != "PUT" {
		t.Errorf("%s %s %s", got.Method, got.Host, got.RequestURI)
	}
	if len(got.Header) != 3 || got.Header.Get("Cookie") != "a=b" || got.Header.Get("X-Forwarded-For") != "192.0.2.1" || got.Header.Get("Content-Length") != "5" {
		t.Errorf("%v", got.Header)
	}
}

func TestPAC(t *testing.T) {
	r := newRig(t, never(t))
	r.hosts.set("b.test", "a.test:8443", "*.cards.test")
	_, port, _ := net.SplitHostPort(r.addr)
	for _, host := range []string{r.addr, "localhost:" + port} {
		resp, body := r.raw(lines("GET /proxy.pac HTTP/1.1", "Host: "+host))
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, `var names = ["a.test","b.test"];
var domains = [".cards.test"];
`) || !strings.Contains(body, `listed ? "PROXY `+r.addr+`" : "DIRECT"`) || strings.Contains(body, "; DIRECT") {
			t.Errorf("%s\n%s", resp.Status, body)
		}
		for name, want := range map[string]string{"Content-Type": "application/x-ns-proxy-autoconfig", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	own := "Host: " + r.addr
	for name, c := range map[string]struct {
		want    int
		request []string
	}{
		"typed by the person": {200, []string{"GET /proxy.pac HTTP/1.1", own, "Sec-Fetch-Site: none"}},
		"rebound name":        {403, []string{"GET /proxy.pac HTTP/1.1", "Host: evil.test:" + port}},
		"without port":        {403, []string{"GET /proxy.pac HTTP/1.1", "Host: 127.0.0.1"}},
		"other port":          {403, []string{"GET /proxy.pac HTTP/1.1", "Host: 127.0.0.1:1"}},
		"no host":             {403, []string{"GET /proxy.pac HTTP/1.0"}},
		"script of a page":    {403, []string{"GET /proxy.pac HTTP/1.1", own, "Sec-Fetch-Site: cross-site"}},
		"same site":           {403, []string{"GET /proxy.pac HTTP/1.1", own, "Sec-Fetch-Site: same-site"}},
		"same origin":         {403, []string{"GET /proxy.pac HTTP/1.1", own, "Sec-Fetch-Site: same-origin"}},
		"fetch":               {403, []string{"GET /proxy.pac HTTP/1.1", own, "Origin: https://evil.test"}},
		"null origin":         {403, []string{"GET /proxy.pac HTTP/1.1", own, "Origin: null"}},
		"old browser's image": {403, []string{"GET /proxy.pac HTTP/1.1", own, "Referer: https://evil.test/"}},
		"post":                {400, []string{"POST /proxy.pac HTTP/1.1", own, "Content-Length: 0"}},
		"another path":        {400, []string{"GET / HTTP/1.1", own}},
		"another form":        {400, []string{"GET /proxy.pac?x HTTP/1.1", own}},
		"options":             {400, []string{"OPTIONS * HTTP/1.1", own}},
	} {
		resp, body := r.raw(lines(c.request...))
		if resp.StatusCode != c.want || c.want != 200 && strings.Contains(body, ".test") {
			t.Errorf("%s: %s %q", name, resp.Status, body)
		}
	}
}

func TestPACFileOfNothing(t *testing.T) {
	r := newRig(t, never(t))
	if got := pacFile([]config.Host{}, unmap(r.origin.Listener.Addr()), "DIRECT"); !strings.HasPrefix(got, "var names = [];\nvar domains = [];\n") {
		t.Error(got)
	}
}
