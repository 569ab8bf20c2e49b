package proxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/peer"
)

// both runs a test with all versions of HTTP on the two sides.
func both(t *testing.T, test func(t *testing.T, http2 bool, origin func(*Config))) {
	for _, v := range []struct{ program, origin string }{{"h1", "h1"}, {"h1", "h2"}, {"h2", "h1"}, {"h2", "h2"}} {
		t.Run(v.program+" program, "+v.origin+" host", func(t *testing.T) {
			test(t, v.program == "h2", func(c *Config) {
				c.Transport.(*http.Transport).ForceAttemptHTTP2 = v.origin == "h2"
			})
		})
	}
}

// way is how a request gets through the proxy to the origin.
type way struct {
	base   string // of the URL
	http2  bool   // on the program's side
	origin func(*Config)
}

// ways runs a test with all versions of HTTP for a listed host, and in absolute
// form for a host that is not listed.
func ways(t *testing.T, test func(t *testing.T, w way)) {
	both(t, func(t *testing.T, http2 bool, origin func(*Config)) { test(t, way{"https://card.test", http2, origin}) })
	t.Run("absolute form", func(t *testing.T) { test(t, way{"http://other.test", false, plainOrigin}) })
}

// plainOrigin makes the origin play a host without TLS: the dialler adds it.
func plainOrigin(c *Config) {
	t := c.Transport.(*http.Transport)
	c.DialTunnel = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := t.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cfg := t.TLSClientConfig.Clone()
		cfg.NextProtos = []string{"http/1.1"}
		return tls.Client(conn, cfg), nil
	}
}

func TestCurl(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, r.RequestURI)
	})
	ca := r.rootFile()
	for _, version := range []string{"--http1.1", "--http2"} {
		out, err := exec.Command("curl", "--silent", "--show-error", version, "--noproxy", "", "--proxy", "http://"+r.addr, "--cacert", ca,
			"--write-out", " %{http_version}", "https://card.test/a?b").CombinedOutput()
		want := "HTTP/2.0 card.test /a?b " + strings.TrimPrefix(version, "--http")
		if err != nil || string(out) != want {
			t.Errorf("%s: %v %q, want %q", version, err, out, want)
		}
	}
}

// An unlisted host keeps its own certificate.
func TestCurlTunnel(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "untouched") })
	r2 := &rig{t: t, hosts: &hostList{}, roots: r.roots, origin: r.origin}
	r2.serve(Config{Listen: "127.0.0.1:0", Hosts: r2.hosts, Transport: http.DefaultTransport, Roots: r.roots, Peer: peer.NewFinder().Lookup,
		Admit:      func(context.Context, Asked) (context.Context, error) { panic("asked for an unlisted host") },
		Explain:    func(error) (int, string, string, string) { panic("explained for an unlisted host") },
		DialTunnel: (&net.Dialer{}).DialContext})
	ca := t.TempDir() + "/origin.pem"
	if err := os.WriteFile(ca, pemOf(r.origin), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("curl", "--silent", "--show-error", "--noproxy", "", "--proxy", "http://"+r2.addr, "--cacert", ca, r.origin.URL).CombinedOutput()
	if err != nil || string(out) != "untouched" {
		t.Errorf("%v %s", err, out)
	}
}

// A request arrives as it was sent, and so does the answer.
func TestForwardChangesNothing(t *testing.T) {
	both(t, func(t *testing.T, http2 bool, origin func(*Config)) {
		seen := make(chan *http.Request, 1)
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			seen <- r.Clone(context.Background())
			w.Header()["Content-Type"] = nil
			w.Header().Set("Alt-Svc", `h3=":443"`)
			w.Header().Set(errorHeader, "forged")
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			w.WriteHeader(http.StatusCreated)
			w.Write(body)
		}, origin)
		req := request(t, "PATCH", "https://card.test/a%2Fb//c?q=a;b&%zz", strings.NewReader("<html>"))
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Cookie", "Authorization"} {
			req.Header.Set(name, "mine")
		}
		req.Header.Set("User-Agent", "")
		resp, body := fetch(t, r.client(http2), req)
		if resp.StatusCode != http.StatusCreated || body != "<html>" || resp.Header.Get("Content-Type") != "" || len(resp.Header["Set-Cookie"]) != 2 {
			t.Errorf("%s %q %v", resp.Status, body, resp.Header)
		}
		if resp.Header.Get("Alt-Svc")+resp.Header.Get(errorHeader)+resp.Header.Get("Via") != "" {
			t.Errorf("%v", resp.Header)
		}
		got := <-seen
		if got.Method != "PATCH" || got.Host != "card.test" || got.RequestURI != "/a%2Fb//c?q=a;b&%zz" {
			t.Errorf("%s %s %s", got.Method, got.Host, got.RequestURI)
		}
		if len(got.Header) != 7 || got.Header.Get("Content-Length") != "6" || got.Header.Get("X-Forwarded-For") != "mine" {
			t.Errorf("%v", got.Header)
		}
	})
}

// Paths that net/url would write in another way.
func TestForwardKeepsPath(t *testing.T) {
	for _, alpn := range []string{"h1", "h2"} {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) }, func(c *Config) {
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = alpn == "h2"
		})
		for _, path := range []string{"/", "/a%2Fb|c", "/%7Ea?x=|%zz?y", "//two//", "/a;b=1,2", "/\"<>", "/a?", "/?http://x.test/"} {
			for _, prefix := range []string{"", "https://card.test"} {
				if _, body := exchange(t, r.cardTLS("http/1.1"), lines("GET "+prefix+path+" HTTP/1.1", "Host: card.test")); body != path {
					t.Errorf("%s: %s%s became %s", alpn, prefix, path, body)
				}
			}
		}
	}
}

func TestTrailers(t *testing.T) {
	ways(t, func(t *testing.T, w way) {
		seen := make(chan http.Header, 1)
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			seen <- r.Trailer
			w.Header().Set("Trailer", "X-Declared")
			io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Declared", "1")
			w.Header().Set(http.TrailerPrefix+"X-Late", "2")
		}, w.origin)
		req := request(t, "POST", w.base+"/", io.MultiReader(strings.NewReader("x")))
		req.Trailer = http.Header{"X-Request": {"3"}}
		resp, _ := fetch(t, r.client(w.http2), req)
		if resp.Trailer.Get("X-Declared") != "1" || resp.Trailer.Get("X-Late") != "2" {
			t.Errorf("of the answer: %v", resp.Trailer)
		}
		if got := <-seen; got.Get("X-Request") != "3" {
			t.Errorf("of the request: %v", got)
		}
	})
}

func TestEarlyHints(t *testing.T) {
	ways(t, func(t *testing.T, w way) {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "done")
		}, w.origin)
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}}
		req := request(t, "GET", w.base+"/", nil)
		_, body := fetch(t, r.client(w.http2), req.WithContext(httptrace.WithClientTrace(context.Background(), trace)))
		if body != "done" || len(hints) != 1 || hints[0] != "103 </a.css>; rel=preload" {
			t.Errorf("%q %q", body, hints)
		}
	})
}

// Each event arrives while the host waits for the program to have seen it, and
// so does each part of a body whose length is known.
func TestServerSentEvents(t *testing.T) {
	ways(t, func(t *testing.T, w way) {
		read := make(chan struct{})
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/events" {
				w.Header().Set("Content-Type", "text/event-stream")
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(5*len("data: 0\n\n")))
			}
			for i := range 5 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
				select {
				case <-read:
				case <-r.Context().Done():
					return
				}
			}
		}, w.origin)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, path := range []string{"/events", "/length"} {
			resp, err := r.client(w.http2).Do(request(t, "GET", w.base+path, nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			events := bufio.NewScanner(resp.Body)
			for i := range 5 {
				if !events.Scan() || events.Text() != fmt.Sprint("data: ", i) || !events.Scan() {
					t.Fatalf("%s: event %d: %q %v", path, i, events.Text(), events.Err())
				}
				read <- struct{}{}
			}
		}
	})
}

// pattern is a body of n bytes that is never in memory as a whole. Its period
// is a prime, so that a lost or doubled buffer shows.
type pattern struct{ n int64 }

const period = 65521

var patternBytes = func() []byte {
	b := make([]byte, 2*period)
	for i := range b {
		b[i] = byte(i % period * 7919 >> 3)
	}
	return b
}()

func (p *pattern) Read(b []byte) (int, error) {
	if p.n == 0 {
		return 0, io.EOF
	}
	at := p.n % period
	n := copy(b[:min(int64(len(b)), p.n)], patternBytes[period-at:])
	p.n -= int64(n)
	return n, nil
}

func sumOf(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)), n, err
}

func TestLargeBodies(t *testing.T) {
	const size = 64 << 20
	want, _, _ := sumOf(&pattern{size})
	ways(t, func(t *testing.T, w way) {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			sum, _, err := sumOf(r.Body)
			w.Header().Set("X-Sum", fmt.Sprint(sum, err))
			io.Copy(w, &pattern{size})
		}, w.origin)
		resp, err := r.client(w.http2).Do(request(t, "POST", w.base+"/", &pattern{size}))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("X-Sum"); got != want+"<nil>" {
			t.Errorf("upwards: %s", got)
		}
		if sum, n, err := sumOf(resp.Body); sum != want || err != nil {
			t.Errorf("downwards: %d bytes, %v", n, err)
		}
	})
}

// The answer may begin, and be read, while the request's body goes on.
func TestFullDuplex(t *testing.T) {
	ways(t, func(t *testing.T, w way) {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.(http.Flusher).Flush()
			io.Copy(flushing{w}, r.Body)
		}, w.origin)
		body, more := io.Pipe()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		resp, err := r.client(w.http2).Do(request(t, "POST", w.base+"/", body).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i := range 3 {
			go fmt.Fprint(more, i)
			b := make([]byte, 1)
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != fmt.Sprint(i) {
				t.Fatalf("%q %v", b, err)
			}
		}
		more.Close()
		if rest, err := io.ReadAll(resp.Body); len(rest) != 0 || err != nil {
			t.Errorf("%q %v", rest, err)
		}
	})
}

type flushing struct{ http.ResponseWriter }

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.ResponseWriter.Write(b)
	f.ResponseWriter.(http.Flusher).Flush()
	return n, err
}

// WebSocket, byte by byte: the handshake of RFC 6455, section 1.3, and frames
// both ways; the key's answer is not checked here, only passed on.
func TestWebSocket(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") != "dGhlIHNhbXBsZSBub25jZQ==" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
		for {
			head := make([]byte, 6) // masked frames of less than 126 bytes
			if _, err := io.ReadFull(rw, head); err != nil {
				return
			}
			payload := make([]byte, head[1]&0x7f)
			io.ReadFull(rw, payload)
			for i := range payload {
				payload[i] ^= head[2+i%4]
			}
			conn.Write(append([]byte{head[0], byte(len(payload))}, payload...))
			if head[0]&0x0f == 8 {
				return
			}
		}
	}, func(c *Config) { c.Transport.(*http.Transport).ForceAttemptHTTP2 = false })
	c := r.cardTLS("http/1.1")
	io.WriteString(c, lines("GET /chat HTTP/1.1", "Host: card.test", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"))
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v %v", resp, err)
	}
	for _, frame := range []struct {
		first byte
		text  string
	}{{0x81, "hei"}, {0x89, "ping"}, {0x81, strings.Repeat("ä", 60)}, {0x88, "\x03\xe8"}} {
		masked := []byte(frame.text)
		mask := []byte{1, 2, 3, 4}
		for i := range masked {
			masked[i] ^= mask[i%4]
		}
		c.Write(append(append([]byte{frame.first, 0x80 | byte(len(masked))}, mask...), masked...))
		got := make([]byte, 2+len(masked))
		if _, err := io.ReadFull(in, got); err != nil || got[0] != frame.first || string(got[2:]) != frame.text {
			t.Errorf("%x: %q %v", frame.first, got, err)
		}
	}
	if n, err := in.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("open after the closing frame")
	}
}

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}
