package tlsclient_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kortti-id/kortti/tlsclient"
)

// A host may close a kept connection at the moment when a request goes out on
// it. A safe request without a body is then made once more; another one is not,
// for the host may have seen it.
func TestKeptConnectionCloses(t *testing.T) {
	people := newCA(t, "cards", nil)
	cert, _ := newCard(t, people, "A")
	var mu sync.Mutex // guards what follows
	served := map[string]int{}
	seen := map[string]int{}
	always := false
	s := newServer(t, kind{tls.VersionTLS13, false, true}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		served[r.RemoteAddr]++
		seen[r.Method]++
		closing := served[r.RemoteAddr] > 1 || always
		mu.Unlock()
		if closing {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				c.Close()
			}
			return
		}
		io.WriteString(w, "ok")
	})
	tr := client(t, s, tlsclient.Config{Source: newReader(cert)})
	mustGet(t, tr, "https://"+host+"/") // leaves a kept connection
	mustGet(t, tr, "https://"+host+"/")
	if seen["GET"] != 3 {
		t.Errorf("the host saw %d requests, want three: the second one twice", seen["GET"])
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := tr.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Error("a POST that the host may have seen was made again")
	}
	if seen["POST"] != 1 {
		t.Errorf("the host saw %d POSTs", seen["POST"])
	}
	mustGet(t, tr, "https://"+host+"/")
	mu.Lock()
	always, seen["GET"] = true, 0
	mu.Unlock()
	if _, err := get(t.Context(), tr, "https://"+host+"/"); err == nil {
		t.Error("a host that always closes has answered")
	}
	if seen["GET"] != 2 {
		t.Errorf("the host saw %d requests, want two: once more is enough", seen["GET"])
	}
}

// A request that was routed before a lock, and permitted after the card was
// unlocked again, takes nothing of the new time down with it.
func TestEndEpoch(t *testing.T) {
	people := newCA(t, "cards", nil)
	cert, _ := newCard(t, people, "A")
	src, f := newReader(cert), fingerprint(cert)
	begun, finish := make(chan bool), make(chan bool)
	s := newServer(t, kind{tls.VersionTLS13, false, true}, []*ca{people}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			begun <- true
			<-finish
			io.WriteString(w, "end")
		}
	})
	var tr *tlsclient.Transport
	var stall atomic.Bool
	var epoch atomic.Uint64
	stalled, goOn := make(chan bool), make(chan bool)
	tr = client(t, s, tlsclient.Config{
		Source: epochs{src, &epoch},
		Unlock: func(context.Context, tlsclient.UnlockRequest) error { src.lock(f, false); return nil },
		Permit: func(_ context.Context, _, _ string, id tlsclient.Identity) error {
			if stall.Swap(false) {
				stalled <- true
				<-goOn
			}
			if id.Epoch != epoch.Load() {
				tr.EndEpoch(id.Fingerprint, id.Epoch, tlsclient.ErrLocked)
				return tlsclient.ErrLocked
			}
			return nil
		},
	})
	mustGet(t, tr, "https://"+host+"/")
	stall.Store(true)
	late := make(chan error, 1)
	go func() {
		_, err := get(t.Context(), tr, "https://"+host+"/")
		late <- err
	}()
	<-stalled
	src.lock(f, true)
	tr.End(f, tlsclient.ErrLocked)
	epoch.Add(1)
	src.lock(f, false)
	healthy := make(chan error, 1)
	go func() {
		_, err := get(t.Context(), tr, "https://"+host+"/slow")
		healthy <- err
	}()
	<-begun
	goOn <- true
	if err := <-late; err == nil {
		t.Error("the late request was made with the new identity")
	}
	finish <- true
	if err := <-healthy; err != nil {
		t.Errorf("the request of the new time: %v", err)
	}
}

// epochs gives identities of the epoch that the test sets.
type epochs struct {
	*reader
	n *atomic.Uint64
}

func (e epochs) Identities() []tlsclient.Identity {
	ids := e.reader.Identities()
	for i := range ids {
		ids[i].Epoch = e.n.Load()
	}
	return ids
}
