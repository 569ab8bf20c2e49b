package load

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// The hosts that the programs use. Those of Anna's card lose it now and then;
// Bertta's stays, so nothing may go wrong at hers.
const (
	annaH2   = "h2.anna.example.fi"
	anna12   = "tls12.anna.example.fi"
	berttaH2 = "h2.bertta.example.fi"
	berttaH1 = "h1.bertta.example.fi"
	failH2   = "h2.failing.example.fi"
	failH1   = "h1.failing.example.fi"

	refused  = "refused.example.fi"  // nobody listens
	stranger = "stranger.example.fi" // shows another host's certificate
	reset    = "reset.example.fi"    // resets each connection
	silent   = "silent.example.fi"   // accepts and never says a word
)

// quick is a key exchange that costs little: the load is not to be one of
// arithmetic alone.
var quick = []tls.CurveID{tls.X25519}

// site is one server that plays several hosts and checks who comes.
type site struct {
	*httptest.Server
	accepted atomic.Int64
}

// sites are all servers of the test.
type sites struct {
	pki                        *fineidtest.PKI
	belongs                    map[string]string // the certificate of each host's card, SHA-256
	h2, h1, tls12, open, plain *site
	reset, silent              net.Listener

	wrong    atomic.Int64 // requests with another certificate, or one for another host
	requests atomic.Int64
	mu       sync.Mutex
	full     map[string]int // full handshakes by host and protocol
}

func startSites(t *testing.T, pki *fineidtest.PKI, anna, bertta string) *sites {
	t.Helper()
	s := &sites{pki: pki, full: make(map[string]int), belongs: map[string]string{
		annaH2: anna, anna12: anna, berttaH2: bertta, berttaH1: bertta, failH2: bertta, failH1: bertta, stranger: bertta,
	}}
	s.h2 = s.start(t, true, tls.VersionTLS13)
	s.h1 = s.start(t, false, tls.VersionTLS13)
	s.tls12 = s.start(t, false, tls.VersionTLS12)
	// Not listed: asks for a certificate too, and must never get one.
	s.open = s.unstarted(http.HandlerFunc(s.serveOpen))
	s.open.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, CurvePreferences: quick}
	s.open.StartTLS()
	s.plain = s.unstarted(http.HandlerFunc(serve))
	s.plain.Start()
	s.reset = listen(t, func(c net.Conn) {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	})
	s.silent = listen(t, func(c net.Conn) {
		io.Copy(io.Discard, c)
		c.Close()
	})
	t.Cleanup(s.close)
	return s
}

func (s *sites) close() {
	for _, one := range []*site{s.h2, s.h1, s.tls12, s.open, s.plain} {
		one.CloseClientConnections()
		one.Close()
	}
}

// unstarted is a server that says nothing of the many clients that run away.
func (s *sites) unstarted(handler http.Handler) *site {
	one := &site{Server: httptest.NewUnstartedServer(handler)}
	one.Config.ErrorLog = log.New(io.Discard, "", 0)
	one.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			one.accepted.Add(1)
		}
	}
	return one
}

func (s *sites) start(t *testing.T, http2 bool, version uint16) *site {
	t.Helper()
	var names []string
	for name := range s.belongs {
		if name != stranger {
			names = append(names, name)
		}
	}
	cert, err := s.pki.ServerCert(names...)
	check(t, err)
	clients := x509.NewCertPool()
	clients.AddCert(s.pki.Root.Certificate)
	clients.AddCert(s.pki.CitizenEC.Certificate)
	one := s.unstarted(http.HandlerFunc(s.serveOwn))
	one.EnableHTTP2 = http2
	one.TLS = &tls.Config{
		CurvePreferences: quick,
		Certificates:     []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MaxVersion: version,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !state.DidResume {
				s.mu.Lock()
				s.full[state.ServerName+" "+state.NegotiatedProtocol]++
				s.mu.Unlock()
			}
			return nil
		},
	}
	one.StartTLS()
	return one
}

// handshakes is how many of a host's were full and agreed on a protocol by ALPN.
func (s *sites) handshakes(host, protocol string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full[host+" "+protocol]
}

// serveOwn answers nobody but the one whose card belongs to the host.
func (s *sites) serveOwn(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	if hex.EncodeToString(sum[:]) != s.belongs[r.Host] || r.Host != r.TLS.ServerName {
		s.wrong.Add(1)
		http.Error(w, "this is not your host", http.StatusTeapot)
		return
	}
	serve(w, r)
}

func (s *sites) serveOpen(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) > 0 {
		s.wrong.Add(1)
	}
	serve(w, r)
}

// serve does what the path says; X-Id comes back, so that no program gets
// another's answer.
func serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Id", r.Header.Get("X-Id"))
	flush := http.NewResponseController(w).Flush
	switch r.URL.Path {
	case "/get":
		size, _ := strconv.Atoi(r.URL.Query().Get("size"))
		w.Write(body(r.Header.Get("X-Id"), size))
	case "/echo":
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "data: %s %d\n\n", r.Header.Get("X-Id"), i); err != nil || flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	case "/switch":
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "HTTP/1.1 only", http.StatusUpgradeRequired)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		io.Copy(conn, rw)
	default:
		fail(w, r)
	}
}

// fail is the ways in which a host can go wrong.
func fail(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w).Flush
	switch r.URL.Path {
	case "/error":
		w.WriteHeader(http.StatusInternalServerError)
	case "/away": // GOAWAY over HTTP/2
		w.Header().Set("Connection", "close")
	case "/middle": // the end of the connection, of the stream over HTTP/2
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "begun")
		flush()
		panic(http.ErrAbortHandler)
	case "/reset":
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
			conn.(*tls.Conn).NetConn().Close()
			return
		}
		panic(http.ErrAbortHandler)
	default: // never ends
		for flush() == nil {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
				w.Write(body("more", 1000))
			}
		}
	}
}

// body is size bytes that only this id has.
func body(id string, size int) []byte {
	line := []byte(id + "\n")
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

// listen runs f for each connection until the test ends, and waits for all.
func listen(t *testing.T, f func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l
}
