package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/tlsclient"
)

// TestColdBurst has 40 programs make their very first request at once, with the
// card locked: one prompt and one signature serve them all.
func TestColdBurst(t *testing.T) {
	const programs = 40
	for _, test := range []struct {
		name  string
		http2 bool
		tls   uint16
	}{
		{"HTTP2", true, tls.VersionTLS13},
		{"HTTP1 TLS1.3", false, tls.VersionTLS13},
		{"HTTP1 TLS1.2", false, tls.VersionTLS12},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "consent = \"always\"\n", func(site *httptest.Server) {
				site.EnableHTTP2, site.TLS.MaxVersion = test.http2, test.tls
			})
			stream := w.attend(t)
			var ends []<-chan reply
			for range programs {
				ends = append(ends, w.curling(t, "/"))
			}
			p := next(t, stream, control.EventPrompt).Prompt
			check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
			for _, end := range ends {
				if r := <-end; r.err != nil || r.status != 200 {
					t.Errorf("%+v", r)
				}
			}
			status, err := w.client.Status(within(t))
			check(t, err)
			if s, l := w.count(t, "signatures"), w.count(t, "C_Login"); s != 1 || l != 1 || status.Counters.Prompts != 1 {
				t.Errorf("%d signatures, %d logins; %+v", s, l, status.Counters)
			}
			t.Logf("%d connections, %+v", w.dials.Load(), status.Counters)
		})
	}
}

// TestEndInTheMiddle locks or pulls the card while many requests are being
// answered and more wait for a connection, as a host without tickets has them
// do: all of them end, and none dials, asks or signs again by itself.
func TestEndInTheMiddle(t *testing.T) {
	const programs = 24
	for name, end := range map[string]func(*testing.T, *world){
		"lock": func(t *testing.T, w *world) { check(t, w.client.Lock(within(t), control.CardSelection{})) },
		"pull": func(t *testing.T, w *world) { check(t, w.card.Pull()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "consent = \"always\"\n", func(site *httptest.Server) {
				site.EnableHTTP2, site.TLS.SessionTicketsDisabled = false, true
			})
			w.attend(t)
			w.unlockNow(t)
			var ends []<-chan reply
			for range programs {
				ends = append(ends, w.curling(t, "/hang"))
			}
			for range tlsclient.TicketlessConns {
				<-w.hanging
			}
			waitFor(t, "all requests to be there", func() bool { return running("tlsclient.(*pool).get(") == programs-tlsclient.TicketlessConns })
			dials, signatures := w.dials.Load(), w.count(t, "signatures")
			end(t, w)
			cut, refused := 0, 0
			for _, end := range ends {
				switch r := <-end; {
				case r.err != nil: // in the middle of its answer
					cut++
				case r.status == 503 && (r.code() == control.CodeLocked || r.code() == control.CodeCardRemoved):
					refused++
				default:
					t.Errorf("%+v", r)
				}
			}
			if cut != tlsclient.TicketlessConns || cut+refused != programs {
				t.Errorf("%d requests were cut off, %d refused", cut, refused)
			}
			status, err := w.client.Status(within(t))
			check(t, err)
			if d, s := w.dials.Load(), w.count(t, "signatures"); d != dials || s != signatures || status.Counters.Prompts != 1 {
				t.Errorf("%d new connections, %d new signatures; %+v", d-dials, s-signatures, status.Counters)
			}
		})
	}
}

// kindOfHost is what a host speaks.
type kindOfHost struct {
	http2      bool
	version    uint16 // of TLS
	ticketless bool
}

func (k kindOfHost) String() string {
	name := strings.ReplaceAll(strings.ToLower(tls.VersionName(k.version)), " ", "")
	name = strings.ReplaceAll(name, ".", "")
	if k.http2 {
		name += "-http2"
	}
	if k.ticketless {
		name += "-ticketless"
	}
	return name
}

// addHost starts a site of a kind and lists it.
func (w *world) addHost(t *testing.T, k kindOfHost) (name string) {
	t.Helper()
	name = k.String() + ".example.fi"
	cert, err := w.pki.ServerCert(name)
	check(t, err)
	site := httptest.NewUnstartedServer(w.site.Config.Handler)
	site.EnableHTTP2 = k.http2
	site.TLS = w.site.TLS.Clone()
	site.TLS.NextProtos = nil
	site.TLS.Certificates = []tls.Certificate{cert}
	site.TLS.MaxVersion, site.TLS.SessionTicketsDisabled = k.version, k.ticketless
	site.Config.ErrorLog = w.site.Config.ErrorLog
	site.StartTLS()
	t.Cleanup(site.Close)
	_, err = w.client.PutHost(within(t), control.Host{
		Name: name, Consent: "always", Address: site.Listener.Addr().String(), TLSRoots: filepath.Join(w.dir, "site.pem"),
	})
	check(t, err)
	trust, err := w.client.Trust(within(t), name)
	check(t, err)
	file, err := os.OpenFile(w.root, os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	_, err = file.WriteString(trust.PEM)
	check(t, err)
	check(t, file.Close())
	return name
}

// TestSignaturesPerHost has 16 programs make 1,000 requests that start at once
// with the card locked: one signature for each host and unlock, or a few where a
// host gives no session tickets.
func TestSignaturesPerHost(t *testing.T) {
	const programs, requests, withoutTickets = 16, 1000, 200
	w := newWorld(t, "")
	for _, k := range []kindOfHost{
		{true, tls.VersionTLS13, false}, {false, tls.VersionTLS13, false}, {true, tls.VersionTLS12, false}, {false, tls.VersionTLS12, false},
		{true, tls.VersionTLS13, true}, {false, tls.VersionTLS13, true}, {true, tls.VersionTLS12, true}, {false, tls.VersionTLS12, true},
	} {
		host := w.addHost(t, k)
		for _, anew := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,new=%v", k, anew), func(t *testing.T) {
				n, most := int64(requests), uint64(1)
				if k.ticketless {
					n, most = withoutTickets, tlsclient.TicketlessConns
				}
				stream := w.attend(t)
				check(t, w.client.Lock(within(t), control.CardSelection{}))
				logins, signatures := w.count(t, "C_Login"), w.count(t, "signatures")
				var left atomic.Int64
				left.Store(n)
				var all sync.WaitGroup
				for i := range programs {
					program := w.throughProxy(t)
					program.DisableKeepAlives, program.ForceAttemptHTTP2 = anew, i%2 == 0
					program.TLSClientConfig.CurvePreferences = []tls.CurveID{tls.X25519} // costs little
					all.Go(func() {
						defer program.CloseIdleConnections()
						for left.Add(-1) >= 0 {
							if err := getFrom(program, host); err != nil {
								t.Error(err)
							}
						}
					})
				}
				p := next(t, stream, control.EventPrompt).Prompt
				check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
				all.Wait()
				l, s := w.count(t, "C_Login")-logins, w.count(t, "signatures")-signatures
				if l != 1 || s < 1 || s > most {
					t.Errorf("%d logins and %d signatures, want at most %d", l, s, most)
				}
				t.Logf("%d requests: %d signatures", n, s)
			})
		}
	}
}

// getFrom makes a request that must succeed.
func getFrom(program http.RoundTripper, host string) error {
	req, err := http.NewRequest("GET", "https://"+host+"/", nil)
	if err != nil {
		return err
	}
	resp, err := program.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(string(body), "999") {
		return fmt.Errorf("%s: %q %v", resp.Status, body, err)
	}
	return nil
}

// running counts the goroutines that are in a function.
func running(function string) int {
	stacks := make([]byte, 8<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), function)
}

// TestCycles unlocks, uses and locks or pulls the card again and again: nothing
// piles up, and each cycle costs one login and one signature.
func TestCycles(t *testing.T) {
	const cycles, pullEvery = 30, 6 // a polled card that is pulled takes two seconds
	w := newWorld(t, "consent = \"always\"\n")
	program := &http.Client{Transport: w.throughProxy(t)}
	state := func() control.State { // "" without a card
		status, err := w.client.Status(within(t))
		check(t, err)
		if len(status.Cards) == 0 {
			return ""
		}
		return status.Cards[0].State
	}
	waitFor(t, "the first look at the card", func() bool { return state() == control.Locked })
	w.client.Close() // its idle connections
	before := holdings(t)
	for i := range cycles {
		w.unlockNow(t)
		resp, err := program.Get("https://" + siteName + "/")
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("cycle %d: %s", i, resp.Status)
		}
		if i%pullEvery == pullEvery-1 {
			check(t, w.card.Pull())
			waitFor(t, "the removal", func() bool { return state() == "" })
			check(t, w.card.Insert())
			waitFor(t, "the insertion", func() bool { return state() == control.Locked })
		} else {
			check(t, w.client.Lock(within(t), control.CardSelection{}))
		}
		program.CloseIdleConnections()
	}
	w.client.Close()
	waitFor(t, "goroutines, files and children to be as before", func() bool {
		now := holdings(t)
		return now.goroutines <= before.goroutines && now.files <= before.files && now.children <= before.children
	})
	if l, s := w.count(t, "C_Login"), w.count(t, "signatures"); l != cycles || s != cycles {
		t.Errorf("%d cycles took %d logins and %d signatures", cycles, l, s)
	}
}

// throughProxy sends requests through the agent's proxy.
func (w *world) throughProxy(t *testing.T) *http.Transport {
	t.Helper()
	root, err := os.ReadFile(w.root)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	transport := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: w.Proxy()}),
		TLSClientConfig: &tls.Config{RootCAs: roots},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// held is what a process holds.
type held struct{ goroutines, files, children int }

func holdings(t *testing.T) held {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	h := held{goroutines: runtime.NumGoroutine(), files: len(files)}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	check(t, err)
	for _, path := range tasks {
		if list, err := os.ReadFile(path); err == nil { // else the thread has ended
			h.children += len(strings.Fields(string(list)))
		}
	}
	return h
}
