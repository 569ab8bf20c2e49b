package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tlsclient"
)

// hostileHost is a host that says whatever the test wants, below HTTP.
type hostileHost struct {
	*rig
	transport *tlsclient.Transport
	wrote     chan int // how much of each answer went out
}

// newHostileHost starts a proxy whose listed host reads a request's header and
// then writes what the answer for its path gives, to the end or until nobody
// takes it; the proxy's transport is the real one.
func newHostileHost(t *testing.T, answers map[string]func() io.Reader) *hostileHost {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ServerCert("card.test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	h := &hostileHost{wrote: make(chan int, 1000)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { h.speak(c, answers) })
		}
	})
	anchors := x509.NewCertPool()
	anchors.AppendCertsFromPEM(pki.WebRootsPEM())
	h.transport = tlsclient.New(tlsclient.Config{Source: tlsclient.Static(), HostSettings: func(string, string) tlsclient.HostSettings {
		return tlsclient.HostSettings{Allowed: true, Address: l.Addr().String(), RootCAs: anchors}
	}})
	t.Cleanup(func() {
		h.transport.Close()
		l.Close()
		serving.Wait()
	})
	h.rig = newRig(t, never(t), func(c *Config) {
		c.Transport = h.transport
		c.Explain = func(err error) (int, string, string, string) {
			var up *tlsclient.UpstreamError
			if !errors.As(err, &up) {
				t.Errorf("%v is not said to be the host's", err)
			}
			return http.StatusBadGateway, "upstream", "the host's answer cannot be read", ""
		}
	})
	return h
}

// forget waits until the transport has noticed that the host has closed its
// connections: a request on one of those fails, rightly.
func (h *hostileHost) forget(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); h.transport.Counters().Connections > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("connections that the host has closed are kept")
		}
	}
}

func (h *hostileHost) speak(c net.Conn, answers map[string]func() io.Reader) {
	defer c.Close()
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	n, _ := io.Copy(c, answers[req.URL.Path]())
	h.wrote <- int(n)
}

// without is text without end.
type without string

func (s without) Read(b []byte) (int, error) {
	n := 0
	for n+len(s) <= len(b) {
		n += copy(b[n:], s)
	}
	return n, nil
}

// TestHostileAnswers has a host answer with what is no HTTP, or too much of it.
// What is not an answer is 502; what begins as one and breaks is cut off.
func TestHostileAnswers(t *testing.T) {
	const cutOff = "cut off"
	head := "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name, answer string
		status       int
		body         string // cutOff for one that ends early
	}{
		{"HTTP/0.9", "<html>hello</html>\r\n\r\n", 502, ""},
		{"nothing", "", 502, ""},
		{"half a status line", "HTTP/1.1 2", 502, ""},
		{"status with letters", "HTTP/1.1 2x0 OK\r\n\r\n", 502, ""},
		{"status 000", "HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n", 502, ""},
		{"status 042", "HTTP/1.1 042 No\r\nContent-Length: 0\r\n\r\n", 502, ""},
		{"status with four digits", "HTTP/1.1 2000 OK\r\n\r\n", 502, ""},
		{"protocol of another kind", "ICY 200 OK\r\n\r\n", 502, ""},
		{"header without a colon", head + "no colon\r\n\r\n", 502, ""},
		{"header that ends early", head + "X: y", 502, ""},
		{"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 502, ""},
		{"negative length", head + "Content-Length: -5\r\n\r\n", 502, ""},
		{"unknown coding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n", 502, ""},
		{"length and chunks", head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "hello"},
		{"chunk size too large", head + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 200, cutOff},
		{"chunk without its end", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 200, cutOff},
		{"no last chunk", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200, cutOff},
		{"body shorter than its length", head + "Content-Length: 100\r\n\r\nhello", 200, cutOff},
		{"body longer than its length", head + "Content-Length: 5\r\n\r\nhello, world", 200, "hello"},
		{"no length", head + "\r\nhello", 200, "hello"},
		{"carriage return in a value", head + "X: a\rSet-Cookie: evil=1\r\nContent-Length: 5\r\n\r\nhello", 502, ""},
		{"NUL in a value", head + "X: a\x00b\r\nContent-Length: 5\r\n\r\nhello", 502, ""},
		{"line end by a bare line feed", head + "X: a\nY: b\nContent-Length: 5\n\nhello", 200, "hello"},
		{"the proxy's own field", head + "X-Kortti-Error: not-your-proxy\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"},
		{"the proxy's own field in a hint", "HTTP/1.1 103 Early Hints\r\nX-Kortti-Error: x\r\n\r\n" + head + "Content-Length: 5\r\n\r\nhello", 200, "hello"},
		{"a trailer that was not announced", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n", 200, "hello"},
		{"a switch that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello", 502, ""},
		{"no content with content", "HTTP/1.1 204 No Content\r\n\r\nhello", 204, ""},
	}
	answers := make(map[string]func() io.Reader)
	for i, c := range tests {
		answers[fmt.Sprint("/", i)] = func() io.Reader { return strings.NewReader(c.answer) }
	}
	h := newHostileHost(t, answers)
	for _, http2 := range []bool{false, true} {
		for i, c := range tests {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", c.name, http2), func(t *testing.T) {
				h.forget(t)
				resp, err := h.client(http2).Do(request(t, "GET", fmt.Sprint("https://card.test/", i), nil))
				if err != nil && c.body == cutOff {
					return // before the first byte of its body
				}
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				got := string(body)
				if err != nil {
					got = cutOff
				}
				ours := map[bool]string{true: "upstream"}[c.status == 502]
				if resp.StatusCode != c.status || resp.Header.Get(errorHeader) != ours || ours == "" && got != c.body {
					t.Errorf("%s %q %q %v", resp.Status, resp.Header.Get(errorHeader), got, err)
				}
				if resp.Header.Get("Set-Cookie") != "" {
					t.Error("a header was injected")
				}
			})
		}
	}
}

// TestEndlessAnswers has a host say more than anybody wants to keep.
func TestEndlessAnswers(t *testing.T) {
	many := strings.Repeat("x", 1000)
	const most = 32 << 20 // taken from the host before it is refused, buffers of the kernel included
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for zeros := make([]byte, 1<<20); bomb.Len() < 16<<10; {
		z.Write(zeros)
	}
	z.Close()
	then := func(text string, rest io.Reader) func() io.Reader {
		return func() io.Reader { return io.MultiReader(strings.NewReader(text), rest) }
	}
	h := newHostileHost(t, map[string]func() io.Reader{
		"/line":   then("HTTP/1.1 200 ", without(many)),
		"/field":  then("HTTP/1.1 200 OK\r\nX: ", without(many)),
		"/fields": then("HTTP/1.1 200 OK\r\n", without("X: "+many+"\r\n")),
		"/bomb": func() io.Reader {
			return strings.NewReader(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.Bytes()))
		},
		"/hints":  then("", without("HTTP/1.1 103 Early Hints\r\nLink: "+many+"\r\n\r\n")),
		"/chunks": then("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", without("400\r\n"+strings.Repeat("x", 0x400)+"\r\n")),
	})
	for _, path := range []string{"/line", "/field", "/fields"} {
		h.forget(t)
		resp, _ := fetch(t, h.client(false), request(t, "GET", "https://card.test"+path, nil))
		if n := <-h.wrote; resp.StatusCode != 502 || resp.Header.Get(errorHeader) != "upstream" || n > most {
			t.Errorf("%s: %s %s after %d bytes", path, resp.Status, resp.Header.Get(errorHeader), n)
		}
	}
	for _, http2 := range []bool{false, true} {
		h.forget(t)
		resp, body := fetch(t, h.client(http2), request(t, "GET", "https://card.test/bomb", nil))
		if <-h.wrote; resp.Header.Get("Content-Encoding") != "gzip" || body != bomb.String() {
			t.Errorf("a compressed body was touched: %v, %d bytes", resp.Header, len(body))
		}
		// These go on for as long as the program listens, and no longer.
		for _, path := range []string{"/hints", "/chunks"} {
			h.forget(t)
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := h.client(http2).Do(request(t, "GET", "https://card.test"+path, nil).WithContext(ctx))
			if err == nil {
				io.CopyN(io.Discard, resp.Body, 64<<10)
				cancel()
				resp.Body.Close()
			} else if path != "/hints" { // the program itself takes no more than some
				t.Errorf("%s: %v", path, err)
			}
			cancel()
			wait(t, "the end of "+path, h.wrote)
		}
	}
}
