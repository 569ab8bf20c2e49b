package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Whatever names the host must name the host of CONNECT.
func TestMisdirected(t *testing.T) {
	r := newRig(t, never(t))
	r.hosts.set("card.test", "other.test", "*.cards.test")
	for _, request := range [][]string{
		{"GET / HTTP/1.1", "Host: other.test"},
		{"GET / HTTP/1.1", "Host: sub.card.test"},
		{"GET / HTTP/1.1", "Host: card.test:8443"},
		{"GET / HTTP/1.1", "Host: "},
		{"GET / HTTP/1.0"},
		{"GET https://other.test/ HTTP/1.1", "Host: card.test"},
		{"GET http://card.test/ HTTP/1.1", "Host: card.test"},
		{"GET https://me@card.test/ HTTP/1.1", "Host: card.test"},
		{"CONNECT card.test:443 HTTP/1.1", "Host: card.test"},
	} {
		resp, _ := exchange(t, r.cardTLS("http/1.1"), lines(request...))
		if resp.StatusCode != http.StatusMisdirectedRequest || resp.Header.Get(errorHeader) != "misdirected" {
			t.Errorf("%q: %s", request, resp.Status)
		}
	}
	req := request(t, "GET", "https://card.test/", nil)
	req.Host = "other.test" // :authority
	if resp, _ := fetch(t, r.client(true), req); resp.StatusCode != http.StatusMisdirectedRequest || resp.ProtoMajor != 2 {
		t.Errorf(":authority: %s", resp.Status)
	}
	if status := hostBesideAuthority(t, r, "other.test"); status != "421" {
		t.Errorf("Host beside :authority: %s", status)
	}
}

func TestDirected(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	for _, request := range [][]string{
		{"GET / HTTP/1.1", "Host: card.test"},
		{"GET / HTTP/1.1", "Host: Card.Test"},
		{"GET / HTTP/1.1", "Host: card.test:443"},
		{"GET https://card.test/ HTTP/1.1", "Host: card.test"},
		{"OPTIONS * HTTP/1.1", "Host: card.test"},
	} {
		if resp, body := exchange(t, r.cardTLS("http/1.1"), lines(request...)); resp.StatusCode != 200 || !strings.HasPrefix(strings.ToLower(body+"card.test"), "card.test") {
			t.Errorf("%q: %s %q", request, resp.Status, body)
		}
	}
	if status := hostBesideAuthority(t, r, "card.test"); status != "200" {
		t.Errorf("Host beside :authority: %s", status)
	}
}

// hostBesideAuthority sends an HTTP/2 request for card.test that also carries a
// Host header, which net/http's client cannot, and returns the status.
func hostBesideAuthority(t *testing.T, r *rig, host string) string {
	t.Helper()
	c := r.cardTLS("h2")
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/"}, {":authority", "card.test"}, {"host", host}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	io.WriteString(c, http2.ClientPreface)
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return frame.Header().Type.String()
		}
	}
}

func TestServerNameMustMatch(t *testing.T) {
	r := newRig(t, never(t))
	for name, cfg := range map[string]*tls.Config{
		"another name": {ServerName: "other.test"},
		"a subdomain":  {ServerName: "sub.card.test"},
		"no name":      {ServerName: "127.0.0.1"}, // an address is not sent
	} {
		cfg.InsecureSkipVerify = true
		err := tls.Client(r.connect("card.test:443"), cfg).Handshake()
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWildcardHost(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	cfg := r.trust("*.cards.test")
	cfg.ServerName = "a.cards.test"
	if _, body := exchange(t, r.connectTLS("a.cards.test:443", cfg), lines("GET / HTTP/1.1", "Host: a.cards.test")); body != "a.cards.test" {
		t.Errorf("%q", body)
	}
	if resp, _ := exchange(t, r.connectTLS("a.cards.test:443", cfg), lines("GET / HTTP/1.1", "Host: b.cards.test")); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another host under the star: %s", resp.Status)
	}
}

// eager sends its first bytes together with CONNECT and does not wait for the
// answer.
type eager struct {
	net.Conn
	connect  string
	answered bool
}

func (e *eager) Write(b []byte) (int, error) {
	n, err := e.Conn.Write(append([]byte(e.connect), b...))
	n, e.connect = n-len(e.connect), ""
	return n, err
}

func (e *eager) Read(b []byte) (int, error) {
	if !e.answered {
		e.answered = true
		if _, err := io.ReadFull(e.Conn, make([]byte, len(established))); err != nil {
			return 0, err
		}
	}
	return e.Conn.Read(b)
}

func TestEagerProgram(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	cfg := r.trust("card.test")
	cfg.ServerName = "card.test"
	c := tls.Client(&eager{Conn: r.dial(), connect: "CONNECT card.test:443 HTTP/1.1\r\n\r\n"}, cfg)
	if _, body := exchange(t, c, lines("GET / HTTP/1.1", "Host: card.test")); body != "card.test" {
		t.Errorf("%q", body)
	}
}

// A host that is taken off the list is out at once, on open connections too.
func TestUnlistedWhileConnected(t *testing.T) {
	both(t, func(t *testing.T, http2 bool, origin func(*Config)) {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {}, origin)
		client := r.client(http2)
		if resp, _ := fetch(t, client, request(t, "GET", "https://card.test/", nil)); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		r.hosts.set("other.test")
		if resp, _ := fetch(t, client, request(t, "GET", "https://card.test/", nil)); resp.StatusCode != http.StatusMisdirectedRequest || resp.Header.Get(errorHeader) != "not-listed" {
			t.Error(resp.Status)
		}
		if _, err := client.Do(request(t, "GET", "https://card.test/", nil)); err == nil {
			t.Error("the connection was kept, or the next one not tunnelled")
		}
	})
}

type contextKey struct{}

// Admit decides on every request and its context reaches the transport.
func TestAdmit(t *testing.T) {
	var hosts []string
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, func(c *Config) {
		c.Admit = func(ctx context.Context, a Asked) (context.Context, error) {
			if a.Peer.Program().PID != os.Getpid() {
				t.Errorf("program %+v", a.Peer.Program())
			}
			hosts = append(hosts, a.Host)
			return context.WithValue(ctx, contextKey{}, "admitted"), nil
		}
		next := c.Transport
		c.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.Context().Value(contextKey{}) != "admitted" {
				t.Error("another context")
			}
			if req.URL.Scheme != "https" || req.URL.Host != hosts[len(hosts)-1] {
				t.Errorf("%s for %s", req.URL, hosts[len(hosts)-1])
			}
			return next.RoundTrip(req)
		})
	})
	client := r.client(true)
	fetch(t, client, request(t, "GET", "https://card.test/a", nil))
	fetch(t, client, request(t, "GET", "https://card.test:8443/b", nil))
	fetch(t, client, request(t, "GET", "https://card.test/c", nil))
	if got := strings.Join(hosts, " "); got != "card.test card.test:8443 card.test" {
		t.Error(got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestErrorsAreExplained(t *testing.T) {
	fail := func(err error) func(*Config) {
		return func(c *Config) {
			c.Transport = roundTrip(func(*http.Request) (*http.Response, error) { return nil, err })
		}
	}
	refuse := func(c *Config) {
		c.Admit = func(context.Context, Asked) (context.Context, error) { return nil, errWaiting }
	}
	for name, c := range map[string]struct {
		change func(*Config)
		status int
		code   string
	}{
		"refused by Admit": {refuse, 503, "waiting"},
		"waiting":          {fail(fmt.Errorf("wrapped: %w", errWaiting)), 503, "waiting"},
		"anything else":    {fail(errors.New("secret detail: PIN 1234")), 502, "upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, never(t), c.change)
			for _, accept := range []string{"", "*/*", "application/json", "text/html, application/json"} {
				req := request(t, "POST", "https://card.test/", strings.NewReader("body"))
				req.Header.Set("Accept", accept)
				resp, body := fetch(t, r.client(true), req)
				if resp.StatusCode != c.status || resp.Header.Get(errorHeader) != c.code || strings.Contains(body, "secret") {
					t.Errorf("%q: %s %s %q", accept, resp.Status, resp.Header.Get(errorHeader), body)
				}
				if (resp.Header.Get("Retry-After") != "") != (c.status == 503) || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%v", resp.Header)
				}
				var parsed struct {
					Error struct{ Code, Message, Hint string }
				}
				isJSON := json.Unmarshal([]byte(body), &parsed) == nil
				if isJSON != (accept == "application/json") || isJSON && (parsed.Error.Code != c.code || parsed.Error.Message == "") {
					t.Errorf("%q: %q", accept, body)
				}
			}
		})
	}
}
