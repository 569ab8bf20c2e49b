package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// The benchmarks here compare the proxy with the plainest program that does the
// same, in turns in one run, and give the ratio: 1 means as fast as that.

// ratio runs both in turns, batches of n units, and reports units a second of
// ours, of the plain one, and the ratio of the two.
func ratio(b *testing.B, unit string, n float64, plain, ours func()) {
	plain() // what is made on first use is not measured
	ours()
	var plainTime, oursTime time.Duration
	for i := 0; b.Loop(); i++ {
		for turn := range 2 {
			start := time.Now()
			if (turn+i)%2 == 0 {
				plain()
				plainTime += time.Since(start)
			} else {
				ours()
				oursTime += time.Since(start)
			}
		}
	}
	done := n * float64(b.N)
	b.ReportMetric(0, "ns/op") // of both together, which says nothing
	b.ReportMetric(done/oursTime.Seconds(), unit+"/s")
	b.ReportMetric(done/plainTime.Seconds(), "plain-"+unit+"/s")
	b.ReportMetric(plainTime.Seconds()/oursTime.Seconds(), "ratio")
}

// plainTunnel is the shortest proxy for CONNECT: it reads a header, connects to
// one address, whatever was asked for, and copies.
func plainTunnel(b *testing.B, to string) (addr string) {
	b.Helper()
	l := listenLocal(b)
	serveEach(b, l, func(program *net.TCPConn) {
		in := bufio.NewReader(program)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
		}
		upstream, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer upstream.Close()
		io.WriteString(program, established)
		var back sync.WaitGroup
		back.Go(func() {
			io.Copy(program, upstream)
			program.CloseWrite()
		})
		io.Copy(upstream, program)
		upstream.(*net.TCPConn).CloseWrite()
		back.Wait()
	})
	return l.Addr().String()
}

func listenLocal(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveEach handles each connection in a goroutine of its own and closes it. The
// test ends with the listener and all handlers.
func serveEach(t testing.TB, l net.Listener, handle func(*net.TCPConn)) {
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		handlers.Wait()
	})
}

// through opens a tunnel by the proxy at addr.
func through(b *testing.B, addr string) *net.TCPConn {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	io.WriteString(c, "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\nUser-Agent: benchmark\r\n\r\n")
	if _, err := io.ReadFull(c, make([]byte, len(established))); err != nil {
		b.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// BenchmarkTunnelConnections opens tunnels to a host that is not listed, says a
// little there and back, and closes them; eight at a time.
func BenchmarkTunnelConnections(b *testing.B) {
	host := listenLocal(b)
	serveEach(b, host, func(c *net.TCPConn) { io.Copy(c, c) })
	r := newRig(b, nil, dialTo(host.Addr().String()))
	const each, workers = 32, 8
	batch := func(addr string) func() {
		return func() {
			var all sync.WaitGroup
			for range workers {
				all.Go(func() {
					for range each {
						c := through(b, addr)
						io.WriteString(c, "hello")
						io.ReadFull(c, make([]byte, 5))
						c.Close()
					}
				})
			}
			all.Wait()
		}
	}
	ratio(b, "conn", each*workers, batch(plainTunnel(b, host.Addr().String())), batch(r.addr))
}

// BenchmarkTunnelBytes passes 64 MB through one tunnel, either way.
func BenchmarkTunnelBytes(b *testing.B) {
	const size = 64 << 20
	chunk := make([]byte, 256<<10)
	send := func(c net.Conn) {
		for range size / len(chunk) {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}
	for _, v := range []struct {
		name string
		host func(*net.TCPConn)
		ours func(*net.TCPConn)
	}{
		{"up", func(c *net.TCPConn) { io.CopyN(io.Discard, c, size); c.Write(chunk[:1]) }, func(c *net.TCPConn) { send(c); io.ReadFull(c, make([]byte, 1)) }},
		{"down", func(c *net.TCPConn) { send(c) }, func(c *net.TCPConn) { io.CopyN(io.Discard, c, size) }},
	} {
		b.Run(v.name, func(b *testing.B) {
			host := listenLocal(b)
			serveEach(b, host, v.host)
			r := newRig(b, nil, dialTo(host.Addr().String()))
			batch := func(addr string) func() {
				return func() {
					c := through(b, addr)
					defer c.Close()
					v.ours(c)
				}
			}
			ratio(b, "MB", size/1e6, batch(plainTunnel(b, host.Addr().String())), batch(r.addr))
		})
	}
}

// BenchmarkReverseProxy compares requests to a listed host, 16 at a time, with
// httputil.ReverseProxy behind a TLS server and nothing else around it.
func BenchmarkReverseProxy(b *testing.B) {
	for _, v := range []struct {
		name  string
		http2 bool
	}{{"h1", false}, {"h2", true}} {
		b.Run(v.name, func(b *testing.B) {
			r := newRig(b, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
			plain := httptest.NewUnstartedServer(&httputil.ReverseProxy{
				Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(&url.URL{Scheme: "https", Host: "card.test"}) },
				Transport: r.transport(),
				ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, 0),
			})
			plain.EnableHTTP2 = true
			plain.StartTLS()
			defer plain.Close()
			plainTransport := plain.Client().Transport.(*http.Transport)
			plainTransport.ForceAttemptHTTP2, plainTransport.MaxIdleConnsPerHost = v.http2, 16
			if !v.http2 {
				plainTransport.TLSClientConfig.NextProtos = []string{"http/1.1"}
			}
			oursClient := r.client(v.http2)
			oursClient.Transport.(*http.Transport).MaxIdleConnsPerHost = 16
			const each, workers = 25, 16
			batch := func(c *http.Client, url string) func() {
				return func() {
					var all sync.WaitGroup
					for range workers {
						all.Go(func() {
							for range each {
								if resp, body := fetch(b, c, request(b, "GET", url, nil)); body != "ok" {
									panic(fmt.Sprint(resp.Status, body))
								}
							}
						})
					}
					all.Wait()
				}
			}
			ratio(b, "req", each*workers, batch(plain.Client(), plain.URL), batch(oursClient, "https://card.test/"))
		})
	}
}
