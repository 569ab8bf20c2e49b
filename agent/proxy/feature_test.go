package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
)

// firstRead is a body that tells when it is first read.
type firstRead struct {
	io.Reader
	read func()
}

func (b *firstRead) Read(p []byte) (int, error) {
	b.read()
	return b.Reader.Read(p)
}

// A body that waits for 100 (Continue) is sent when the host says so, and not at
// all when the host refuses it. Of an HTTP/2 program net/http's server does not
// say that it waits; there the proxy itself takes the body (RFC 9110, section
// 10.1.1, lets it), and the refusal comes with or after it.
func TestExpectContinue(t *testing.T) {
	ways(t, func(t *testing.T, way way) {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/refused" {
				w.Header().Set("Connection", "close")
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			io.Copy(w, r.Body) // the first read sends 100
		}, way.origin, func(c *Config) { c.Transport.(*http.Transport).ExpectContinueTimeout = patience })
		r.proxy.plain.(*http.Transport).ExpectContinueTimeout = patience
		client := r.client(way.http2)
		client.Transport.(*http.Transport).ExpectContinueTimeout = patience
		send := func(path string) (status int, body string, continued, read bool) {
			var got, sent atomic.Bool
			req := request(t, "POST", way.base+path, &firstRead{strings.NewReader("the body"), func() {
				if path == "/taken" && !got.Load() {
					t.Error("the body was read before the host took it")
				}
				sent.Store(true)
			}})
			req.Header.Set("Expect", "100-continue")
			req.ContentLength = int64(len("the body"))
			resp, body := fetch(t, client, req.WithContext(httptrace.WithClientTrace(t.Context(),
				&httptrace.ClientTrace{Got100Continue: func() { got.Store(true) }})))
			return resp.StatusCode, body, got.Load(), sent.Load()
		}
		if status, body, continued, read := send("/taken"); status != 200 || body != "the body" || !continued || !read {
			t.Errorf("taken: %d %q, 100: %v, read: %v", status, body, continued, read)
		}
		if status, _, continued, read := send("/refused"); status != http.StatusExpectationFailed || (continued || read) && !way.http2 {
			t.Errorf("refused: %d, 100: %v, read: %v", status, continued, read)
		}
	})
}

// A program that goes away ends its request at the host: before the answer,
// while the answer comes, and while the request is sent.
func TestProgramGoesAway(t *testing.T) {
	for _, when := range []string{"/before", "/answer", "/upload"} {
		t.Run(when[1:], func(t *testing.T) {
			ways(t, func(t *testing.T, way way) { goAway(t, way, when) })
		})
	}
}

func goAway(t *testing.T, way way, when string) {
	asked, ended := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		if r.URL.Path == "/upload" {
			io.ReadFull(r.Body, make([]byte, 4))
		} else if r.URL.Path == "/answer" {
			w.(http.Flusher).Flush()
		}
		close(asked)
		if r.URL.Path == "/upload" {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				t.Error("the host took a part for the whole")
			}
			return
		}
		<-r.Context().Done()
	}, way.origin)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var body io.Reader
	if when == "/upload" {
		part, more := io.Pipe()
		go io.WriteString(more, "part")
		context.AfterFunc(ctx, func() { more.CloseWithError(context.Canceled) })
		body = part
	}
	req := request(t, "POST", way.base+when, body).WithContext(ctx)
	client := r.client(way.http2)
	done := make(chan error, 1)
	go func() {
		resp, err := client.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		done <- err
	}()
	wait(t, "the request at the host", asked)
	cancel()
	wait(t, "the end of the request at the host", ended)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A host that breaks off its answer is not taken for one that has ended it.
func TestHostBreaksOff(t *testing.T) {
	ways(t, func(t *testing.T, way way) {
		read := make(chan struct{})
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/length" {
				w.Header().Set("Content-Length", "1000")
			}
			io.WriteString(w, "part")
			w.(http.Flusher).Flush()
			<-read
			panic(http.ErrAbortHandler)
		}, way.origin)
		for _, path := range []string{"/length", "/open"} {
			resp, err := r.client(way.http2).Do(request(t, "GET", way.base+path, nil))
			if err != nil {
				t.Fatal(err)
			}
			part := make([]byte, 4)
			if _, err := io.ReadFull(resp.Body, part); err != nil || string(part) != "part" {
				t.Errorf("%s: %q, %v", path, part, err)
			}
			read <- struct{}{}
			if rest, err := io.ReadAll(resp.Body); err == nil || len(rest) != 0 {
				t.Errorf("%s: %q, %v: want an error", path, rest, err)
			}
			resp.Body.Close()
		}
	})
}

// Answers without a body keep what they say of one.
func TestAnswersWithoutBody(t *testing.T) {
	ways(t, func(t *testing.T, way way) {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"x"`)
			switch r.URL.Path {
			case "/head":
				w.Header().Set("Content-Length", "12345")
			case "/304":
				w.WriteHeader(http.StatusNotModified)
			case "/204":
				w.WriteHeader(http.StatusNoContent)
			}
		}, way.origin)
		for path, want := range map[string]struct {
			method string
			status int
			length string
		}{"/head": {"HEAD", 200, "12345"}, "/304": {"GET", 304, ""}, "/204": {"DELETE", 204, ""}, "/empty": {"GET", 200, "0"}} {
			resp, body := fetch(t, r.client(way.http2), request(t, want.method, way.base+path, nil))
			if resp.StatusCode != want.status || resp.Header.Get("Content-Length") != want.length || body != "" || resp.Header.Get("Etag") != `"x"` {
				t.Errorf("%s: %s %q, %v", path, resp.Status, body, resp.Header)
			}
		}
	})
}

// switched opens a connection that has changed protocols, to a host that is
// listed or, in absolute form, to one that is not.
func switched(t *testing.T, r *rig, listed bool) (program net.Conn, in *bufio.Reader) {
	t.Helper()
	target := "http://other.test/chat"
	if listed {
		program, target = r.cardTLS("http/1.1"), "/chat"
	} else {
		program = r.dial()
	}
	host := map[bool]string{true: "card.test", false: "other.test"}[listed]
	io.WriteString(program, lines("GET "+target+" HTTP/1.1", "Host: "+host, "Upgrade: websocket", "Connection: Upgrade"))
	in = bufio.NewReader(program)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return program, in
}

// Bytes pass both ways on a switched connection, and its end reaches the other
// side, whichever of the two is the first to go.
func TestSwitchedConnectionEnds(t *testing.T) {
	for name, listed := range map[string]bool{"listed": true, "absolute form": false} {
		t.Run(name, func(t *testing.T) {
			hostEnded := make(chan struct{}, 1)
			r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				io.WriteString(conn, lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")+"hello\n")
				for {
					line, err := rw.ReadString('\n')
					if err != nil || line == "end\n" {
						break
					}
					io.WriteString(conn, line)
				}
				hostEnded <- struct{}{}
			}, plainOrigin, func(c *Config) { c.Transport.(*http.Transport).ForceAttemptHTTP2 = false })

			for _, last := range []string{"", "end\n"} {
				program, in := switched(t, r, listed)
				for _, line := range []string{"hello\n", "and back\n"} {
					if got, err := in.ReadString('\n'); got != line || err != nil {
						t.Fatalf("%q, %v", got, err)
					}
					if line == "hello\n" {
						io.WriteString(program, "and back\n")
					}
				}
				if last == "" {
					program.Close()
				} else {
					io.WriteString(program, last)
					if _, err := in.ReadByte(); err == nil {
						t.Error("bytes after the host's end")
					}
				}
				wait(t, "the end at the host", hostEnded)
			}
		})
	}
}

// The end of a tunnel's program is the end for its host, and the other way round,
// also when it is no orderly one.
func TestTunnelEnds(t *testing.T) {
	host := listenLocal(t)
	conns := make(chan *net.TCPConn, 1)
	hostEnded := make(chan error, 1)
	serveEach(t, host, func(c *net.TCPConn) {
		conns <- c
		_, err := io.Copy(io.Discard, c)
		hostEnded <- err
	})
	r := newRig(t, never(t), dialTo(host.Addr().String()))

	c := r.connect("other.test:443")
	<-conns
	c.SetLinger(0) // a reset
	c.Close()
	wait(t, "the end at the host after a reset", hostEnded)

	c = r.connect("other.test:443")
	<-conns
	c.Close()
	wait(t, "the end at the host", hostEnded)

	c = r.connect("other.test:443")
	at := <-conns
	at.SetLinger(0)
	at.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("bytes after the host's reset")
	}
}
