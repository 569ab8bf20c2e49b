package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// busySite answers in all the ways that go on for ever, and says when each has
// begun.
func busySite(begun chan<- string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) {
		begun <- "silent"
		<-r.Context().Done()
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		begun <- "events"
		<-r.Context().Done()
	})
	mux.HandleFunc("/download", func(w http.ResponseWriter, r *http.Request) {
		begun <- "download"
		for some := make([]byte, 4096); ; {
			if _, err := w.Write(some); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		http.NewResponseController(w).Flush()
		begun <- "upload"
		io.Copy(io.Discard, r.Body)
	})
	mux.HandleFunc("/switch", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		begun <- "switch"
		io.Copy(conn, rw)
	})
	return mux
}

// underWay is a request that ends only when it is made to.
type underWay struct {
	name  string
	ended chan ending
}

type ending struct {
	at     time.Time
	status int    // 0 without a header
	code   string // of the proxy's own answer
	err    error
}

// begin makes the request; endless bodies are sent until it ends.
func begin(program *http.Transport, name, method string) underWay {
	u := underWay{name, make(chan ending, 1)}
	go func() {
		var body io.Reader
		if method == "POST" {
			body = endless{}
		}
		req, err := http.NewRequest(method, "https://"+siteName+"/"+name, body)
		if err != nil {
			panic(err)
		}
		resp, err := program.RoundTrip(req)
		if err != nil {
			u.ended <- ending{time.Now(), 0, "", err}
			return
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		u.ended <- ending{time.Now(), resp.StatusCode, resp.Header.Get("X-Kortti-Error"), err}
	}()
	return u
}

// endless is a body that comes slowly and never ends.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond) // the pace of the body, nothing that the test waits for
	return 1, nil
}

// switched changes protocols over a connection of its own.
func (w *world) switched(t *testing.T) underWay {
	t.Helper()
	raw, err := net.Dial("tcp", w.Proxy())
	check(t, err)
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(2 * patience))
	fmt.Fprintf(raw, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", siteName)
	resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
	check(t, err)
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: w.throughProxy(t).TLSClientConfig.RootCAs, ServerName: siteName})
	fmt.Fprintf(c, "GET /switch HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", siteName)
	in := bufio.NewReader(c)
	resp, err = http.ReadResponse(in, nil)
	check(t, err)
	fmt.Fprintln(c, "hei")
	if heard, err := in.ReadString('\n'); heard != "hei\n" {
		t.Fatalf("%s: %q %v", resp.Status, heard, err)
	}
	u := underWay{"switch", make(chan ending, 1)}
	go func() {
		_, err := in.ReadByte()
		u.ended <- ending{time.Now(), 101, "", err}
	}()
	return u
}

// TestEndOfEverything locks or pulls the card while everything that can go on
// for ever goes on: all of it ends, and nothing dials again by itself. What has
// nothing to do with the card goes on.
func TestEndOfEverything(t *testing.T) {
	for _, test := range []struct {
		name  string
		http2 bool
		pull  bool
	}{{"lock HTTP2", true, false}, {"lock HTTP1", false, false}, {"pull HTTP2", true, true}, {"pull HTTP1", false, true}} {
		t.Run(test.name, func(t *testing.T) {
			begun := make(chan string, 100)
			w := newWorld(t, "consent = \"always\"\n", func(site *httptest.Server) {
				site.EnableHTTP2, site.Config.Handler = test.http2, busySite(begun)
			})
			w.unlockNow(t)
			all := []underWay{w.switched(t)}
			for _, http2 := range []bool{false, true} {
				program := w.throughProxy(t)
				program.ForceAttemptHTTP2 = http2
				for _, name := range []string{"silent", "events", "download"} {
					all = append(all, begin(program, name, "GET"))
				}
				all = append(all, begin(program, "upload", "POST"))
			}
			for range all {
				select {
				case <-begun:
				case <-time.After(patience):
					t.Fatal("not all requests have reached the site")
				}
			}
			tunnel := w.tunnelToEcho(t)
			stream := w.attend(t)
			asked := w.waitForConsent(t, stream)
			dials, signatures := w.dials.Load(), w.count(t, "signatures")

			from := time.Now()
			if test.pull {
				check(t, w.card.Pull())
				all = append(all, asked) // it could only have been for this card
			} else {
				check(t, w.client.Lock(within(t), control.CardSelection{}))
			}
			last := from
			for _, u := range all {
				select {
				case e := <-u.ended:
					if e.err == nil && e.code != control.CodeLocked && e.code != control.CodeCardRemoved {
						t.Errorf("%s ended with %d %q", u.name, e.status, e.code)
					}
					if e.at.After(last) {
						last = e.at
					}
				case <-time.After(patience):
					t.Fatalf("%s goes on", u.name)
				}
			}
			t.Logf("all had ended after %v", last.Sub(from))
			waitFor(t, "the end of all that could dial", func() bool {
				return running("tlsclient.(*Transport).roundTrip(") == 0 && running("tlsclient.(*Transport).dial(") == 0
			})
			if d, s := w.dials.Load(), w.count(t, "signatures"); d != dials || s != signatures {
				t.Errorf("%d new connections and %d signatures", d-dials, s-signatures)
			}
			if c := w.transport.Counters().Connections; c != 0 {
				t.Errorf("%d connections to hosts are open", c)
			}
			tunnel("still here")
		})
	}
}

// waitForConsent is a request to another host that waits for the person's leave.
func (w *world) waitForConsent(t *testing.T, stream *control.Stream) underWay {
	t.Helper()
	const other = "toinen.example.fi"
	_, err := w.client.PutHost(within(t), control.Host{Name: other, Consent: "ask", Address: w.site.Listener.Addr().String()})
	check(t, err)
	trust, err := w.client.Trust(within(t), other)
	check(t, err)
	program := w.throughProxy(t)
	program.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(trust.PEM))
	u := underWay{"consent", make(chan ending, 1)}
	req, err := http.NewRequestWithContext(within(t), "GET", "https://"+other+"/", nil)
	check(t, err)
	go func() {
		resp, err := program.RoundTrip(req)
		if err != nil {
			u.ended <- ending{time.Now(), 0, "", err}
			return
		}
		resp.Body.Close()
		u.ended <- ending{time.Now(), resp.StatusCode, resp.Header.Get("X-Kortti-Error"), nil}
	}()
	if p := next(t, stream, control.EventPrompt).Prompt; p.Kind != control.PromptConsent {
		t.Fatalf("%+v", p)
	}
	return u
}

// tunnelToEcho opens a tunnel to a host that is not listed. The function says
// something in it and wants to hear the same.
func (w *world) tunnelToEcho(t *testing.T) func(string) {
	t.Helper()
	host, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { host.Close() })
	go func() {
		if c, err := host.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.Proxy())
	check(t, err)
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", host.Addr())
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	check(t, err)
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	return func(said string) {
		t.Helper()
		c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintln(c, said)
		if heard, err := in.ReadString('\n'); heard != said+"\n" {
			t.Errorf("the tunnel said %q, %v", heard, err)
		}
	}
}
