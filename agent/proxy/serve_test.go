package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// When the proxy ends, everything that it has started ends with it.
func TestServeLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				defer conn.Close()
				io.WriteString(conn, lines("HTTP/1.1 101 Switching Protocols", "Upgrade: x", "Connection: Upgrade"))
				io.Copy(io.Discard, conn)
			}
			return
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, func(c *Config) { c.Transport.(*http.Transport).ForceAttemptHTTP2 = false })
	r.hosts.set("card.test")

	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	silent := newRig(t, never(t), dialTo(sink.Addr().String()))

	var open []net.Conn
	open = append(open, silent.connect("other.test:443"), r.connect("card.test:443"), r.cardTLS("http/1.1"), r.dial())
	partial := r.dial()
	io.WriteString(partial, "CONNECT card.te")
	upgraded := r.cardTLS("http/1.1")
	io.WriteString(upgraded, lines("GET / HTTP/1.1", "Host: card.test", "Upgrade: x", "Connection: Upgrade"))
	if resp, err := http.ReadResponse(bufio.NewReader(upgraded), nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	open = append(open, partial, upgraded)
	var bodies []io.Closer
	for _, http2 := range []bool{false, true} {
		resp, err := r.client(http2).Do(request(t, "GET", "https://card.test/", nil))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, resp.Body)
	}

	r.stop()
	silent.stop()
	for i, c := range open {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open: %v", i, err)
		}
		c.Close()
	}
	for _, b := range bodies {
		b.Close()
	}
	r.origin.CloseClientConnections()
	r.origin.Close()
	silent.origin.Close()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A switched connection of which the host has ended its direction ends too.
func TestServeEndsHalfClosedUpgrade(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			io.WriteString(conn, lines("HTTP/1.1 101 Switching Protocols", "Upgrade: x", "Connection: Upgrade"))
			conn.Close()
		}
	}, func(c *Config) { c.Transport.(*http.Transport).ForceAttemptHTTP2 = false })
	r.hosts.set("card.test")
	c := r.cardTLS("http/1.1")
	io.WriteString(c, lines("GET / HTTP/1.1", "Host: card.test", "Upgrade: x", "Connection: Upgrade"))
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Fatalf("the host's end was not passed on: %v", err)
	}
	r.stop() // it fails the test if Serve does not return
}

// Serve returns after the last of its handlers, however slow.
func TestServeWaitsForHandlers(t *testing.T) {
	asked := make(chan struct{})
	var ended atomic.Bool
	r := newRig(t, never(t), func(c *Config) {
		c.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			close(asked)
			<-req.Context().Done()
			time.Sleep(50 * time.Millisecond) // time for a Serve that does not wait
			ended.Store(true)
			return nil, req.Context().Err()
		})
	})
	c := r.cardTLS("http/1.1")
	io.WriteString(c, lines("GET / HTTP/1.1", "Host: card.test"))
	wait(t, "the request at the transport", asked)
	r.stop()
	if !ended.Load() {
		t.Error("Serve returned before its handler")
	}
	if answer, _ := io.ReadAll(c); len(answer) != 0 {
		t.Errorf("a request that was cut off was answered: %q", answer)
	}
}

func TestServeRefusesOpenListener(t *testing.T) {
	r := newRig(t, never(t))
	p, err := New(Config{Listen: "127.0.0.1:0", Hosts: r.hosts, Transport: http.DefaultTransport, Roots: r.roots, Peer: refuseAll,
		Admit:   func(ctx context.Context, _ Asked) (context.Context, error) { return ctx, nil },
		Explain: func(error) (int, string, string, string) { return 0, "", "", "" }})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Serve(context.Background(), l); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Error(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}
