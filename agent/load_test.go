package agent

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
