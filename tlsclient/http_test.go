package tlsclient_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/tlsclient"
)

// echo switches to a protocol that answers each line in capitals.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "shout" {
		ok(w, r)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n")
	rw.Flush()
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		rw.WriteString(strings.ToUpper(line))
		rw.Flush()
	}
}

// An upgrade gets an HTTP/1.1 connection, beside HTTP/2 if need be, with the
// same identity; End closes it too.
func TestUpgrade(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, k, []*ca{people}, echo)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			mustGet(t, tr, "https://card.test/")

			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://card.test/", nil)
			req.Header.Set("Connection", "keep-alive, Upgrade")
			req.Header.Set("Upgrade", "shout")
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(resp.Status)
			}
			stream := resp.Body.(io.ReadWriteCloser)
			defer stream.Close()
			lines := bufio.NewReader(stream)
			for _, word := range []string{"hei", "moi"} {
				fmt.Fprintln(stream, word)
				if got, err := lines.ReadString('\n'); err != nil || got != strings.ToUpper(word)+"\n" {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			mustGet(t, tr, "https://card.test/") // others go on
			if got := key.signatures.Load(); got > 2 || k.tickets && k.version == tls.VersionTLS12 && got != 1 {
				t.Errorf("%d signatures", got)
			}
			tr.End(fingerprint(cert), tlsclient.ErrRemoved)
			if _, err := lines.ReadByte(); !errors.Is(err, tlsclient.ErrRemoved) {
				t.Errorf("the switched connection lives on: %v", err)
			}
		})
	}
}

// What HTTP can do passes: informational responses, trailers both ways, and a
// compressed body as it is.
func TestPassesHTTP(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, _ := newCard(t, people, "meri")
			s := newServer(t, kind{tls.VersionTLS13, h2, true}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", "</style.css>")
				w.WriteHeader(http.StatusEarlyHints)
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("Trailer", "Sum")
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("Accepts", r.Header.Get("Accept-Encoding"))
				fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("Count"))
				w.Header().Set("Sum", "42")
			})
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			var early []int
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					early = append(early, code)
					if h.Get("Link") == "" {
						t.Error("the hint has lost its header")
					}
					return nil
				},
			})
			req, _ := http.NewRequestWithContext(ctx, "POST", "https://card.test/", io.NopCloser(strings.NewReader("body")))
			req.Trailer = http.Header{"Count": {"4"}}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if string(body) != "body 4" || resp.Trailer.Get("Sum") != "42" || resp.Request != req {
				t.Errorf("got %q, trailer %v", body, resp.Trailer)
			}
			if len(early) != 1 || early[0] != http.StatusEarlyHints {
				t.Errorf("informational responses: %v", early)
			}
			if resp.Header.Get("Accepts") != "" || resp.Header.Get("Content-Encoding") != "gzip" || resp.Uncompressed {
				t.Errorf("compression was meddled with: %v", resp.Header)
			}
		})
	}
}

// A connection that the host closes while it is idle is replaced without an
// error, and without a signature where there is a ticket.
func TestHostClosesIdleConnection(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, k, []*ca{people}, ok)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			for i := range 5 {
				mustGet(t, tr, "https://card.test/")
				s.CloseClientConnections()
				eventually(t, "the close is seen", func() bool { return tr.Counters().Connections == 0 })
				want := int64(1)
				if !k.tickets {
					want = int64(i + 1)
				}
				if got := key.signatures.Load(); got != want {
					t.Fatalf("%d signatures after %d closed connections, want %d", got, i, want)
				}
			}
		})
	}
}

// A host that says goodbye in the middle of a load loses no request: HTTP/2
// tells which ones it has not seen (GOAWAY), HTTP/1.1 says "close".
func TestHostSaysGoodbyeUnderLoad(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, kind{tls.VersionTLS13, h2, true}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/bye" {
					w.Header().Set("Connection", "close") // GOAWAY in HTTP/2
				}
				ok(w, r)
			})
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			mustGet(t, tr, "https://card.test/")
			var failed []error
			results := make(chan []error)
			for range 5 {
				go func() { results <- burst(t.Context(), tr, 40, "https://card.test/") }()
				go func() { results <- burst(t.Context(), tr, 1, "https://card.test/bye") }()
			}
			for range 10 {
				for _, err := range <-results {
					if err != nil {
						failed = append(failed, err)
					}
				}
			}
			if len(failed) > 0 {
				t.Errorf("%d requests failed, the first with: %v", len(failed), failed[0])
			}
			if got := key.signatures.Load(); got != 1 {
				t.Errorf("%d signatures, want 1", got)
			}
		})
	}
}

// A request that was sent and lost is not sent again if it may have changed
// something.
func TestNothingIsReplayed(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, _ := newCard(t, people, "meri")
			seen := make(chan struct{}, 10)
			var s *server
			s = newServer(t, kind{tls.VersionTLS13, h2, true}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/lost" {
					seen <- struct{}{}
					go s.CloseClientConnections()
					<-r.Context().Done()
					return
				}
				ok(w, r)
			})
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			mustGet(t, tr, "https://card.test/") // net/http's transport replays on reused connections
			req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "https://card.test/lost", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tr.RoundTrip(req)
			var upstream *tlsclient.UpstreamError
			if !errors.As(err, &upstream) || upstream.Op != "request" {
				t.Errorf("got %v, want an UpstreamError", err)
			}
			if len(seen) != 1 {
				t.Errorf("the host saw the request %d times", len(seen))
			}
			mustGet(t, tr, "https://card.test/")
		})
	}
}

// A waiting request that is given up does not take a connection with it.
func TestCancelledWait(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	poll := make(chan struct{})
	release := sync.OnceFunc(func() { close(poll) })
	s := newServer(t, kind{tls.VersionTLS13, false, false}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/poll" {
			<-poll
		}
		ok(w, r)
	})
	t.Cleanup(release) // before the server's end, which waits for its handlers
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	mustGet(t, tr, "https://card.test/")
	polls := make(chan []error)
	go func() { polls <- burst(t.Context(), tr, 1, "https://card.test/poll") }()
	eventually(t, "the poll is with the host", func() bool { return tlsclient.InFlight(tr, host) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan []error)
	go func() { waits <- burst(ctx, tr, 10, "https://card.test/") }()
	eventually(t, "the others wait", func() bool { return tlsclient.InFlight(tr, host) == 11 })
	cancel()
	for _, err := range <-waits {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	}
	release()
	if err := (<-polls)[0]; err != nil {
		t.Error(err)
	}
	mustGet(t, tr, "https://card.test/")
	if got := key.signatures.Load(); got != 1 {
		t.Errorf("%d signatures, want 1", got)
	}
}

// Requests that have ended before they begin leave the connections as they are.
func TestEndedRequestsCostNothing(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, kind{tls.VersionTLS13, h2, false}, []*ca{people}, ok)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			mustGet(t, tr, "https://card.test/")
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			for range 20 {
				if _, err := get(ended, tr, "https://card.test/"); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want the context's error", err)
				}
			}
			mustGet(t, tr, "https://card.test/")
			if got := tr.Counters().Requests; got != 2 || key.signatures.Load() != 1 || tlsclient.InFlight(tr, host) != 0 {
				t.Errorf("%d requests handed over and %d signatures, want 2 and 1", got, key.signatures.Load())
			}
		})
	}
}

// A ticket that the host does not take costs no signature where a connection is
// at hand: the requests go on with what there is.
func TestRefusedTicketsCostNothing(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, key := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, false, true}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Millisecond) // so that the others look for further connections
		ok(w, r)
	}, func(c *tls.Config) {
		base := c.Clone()
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			var key [32]byte
			rand.Read(key[:])
			fresh := base.Clone()
			fresh.SetSessionTicketKeys([][32]byte{key}) // no ticket outlives its connection
			return fresh, nil
		}
	})
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	for _, err := range burst(t.Context(), tr, 40, "https://card.test/") {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := key.signatures.Load(); got != 1 || tr.Counters().Handshakes.Resumed != 0 {
		t.Errorf("%d signatures, want 1; %+v", got, tr.Counters())
	}
}

func TestForceHTTP1(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok)
	settings := s.settings()
	settings.ForceHTTP1 = true
	tr := client(t, s, tlsclient.Config{
		Source:       tlsclient.Static(cert),
		HostSettings: func(string, string) tlsclient.HostSettings { return settings },
	})
	if got := mustGet(t, tr, "https://CARD.test./"); got != "meri HTTP/1.1" {
		t.Errorf("got %q", got)
	}
}

func TestBadRequests(t *testing.T) {
	tr := tlsclient.New(tlsclient.Config{Source: tlsclient.Static()})
	defer tr.Close()
	for _, url := range []string{"http://card.test/", "https:///nohost"} {
		body := &once{Reader: strings.NewReader("x")}
		req, _ := http.NewRequestWithContext(t.Context(), "POST", url, body)
		if _, err := tr.RoundTrip(req); err == nil || !body.closed.Load() || body.reads.Load() != 0 {
			t.Errorf("%s: error %v, closed %v, reads %d", url, err, body.closed.Load(), body.reads.Load())
		}
	}
}
