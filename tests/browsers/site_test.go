package browsers_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// site is a host that nobody without a card gets anything from.
type site struct {
	*httptest.Server
	address  string // host:port
	requests atomic.Int64
	projects string // the folder with git repositories
}

func startSite(t *testing.T, pki *fineidtest.PKI) *site {
	t.Helper()
	s := &site{projects: t.TempDir()}
	cert, err := pki.ServerCert(siteHost)
	check(t, err)
	clients := x509.NewCertPool()
	clients.AddCert(pki.Root.Certificate)
	clients.AddCert(pki.CitizenEC.Certificate)
	s.Server = httptest.NewUnstartedServer(s.handler())
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.StartTLS()
	s.address = s.Listener.Addr().String()
	t.Cleanup(func() {
		s.CloseClientConnections() // the agent keeps them, and pages their events
		s.Close()
	})
	return s
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	text := func(pattern, kind, content string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-store")
			io.WriteString(w, content)
		})
	}
	text("GET /{$}", "text/html; charset=utf-8", sitePage)
	text("GET /page.css", "text/css", "#css { color: rgb(1, 2, 3) }")
	text("GET /page.js", "text/javascript; charset=utf-8", siteScript)
	mux.HandleFunc("GET /image/", serveImage)
	mux.HandleFunc("GET /events", serveEvents)
	mux.Handle("GET /echo", websocket.Handler(func(c *websocket.Conn) { io.Copy(c, c) }))
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	mux.Handle("/git/", &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend", Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + s.projects, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=card"},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		mux.ServeHTTP(w, r)
	})
}

// images is how many there are on the page.
const images = 6

// sitePage says in its body's data what has come; the script is not its own, so
// that it comes by a request too.
const sitePage = `<!DOCTYPE html>
<html lang="en"><head><title>A site</title><link rel="stylesheet" href="/page.css"></head>
<body><h1 id="css">A site behind a card</h1>
<img src="/image/1"><img src="/image/2"><img src="/image/3"><img src="/image/4"><img src="/image/5"><img src="/image/6">
<p>WebSocket: <b id="ws"></b>, events: <b id="sse"></b></p>
<script src="/page.js"></script></body></html>`

const siteScript = `
const ws = new WebSocket("wss://" + location.host + "/echo");
ws.onopen = () => ws.send("hyvää päivää");
ws.onmessage = e => { document.getElementById("ws").textContent = e.data; };
ws.onerror = () => { document.getElementById("ws").textContent = "failed"; };
const sse = new EventSource("/events");
sse.onmessage = e => { document.getElementById("sse").textContent = e.data; };
`

func serveImage(w http.ResponseWriter, _ *http.Request) {
	m := image.NewRGBA(image.Rect(0, 0, 40, 40))
	for i := range 40 * 40 {
		m.Set(i%40, i/40, color.RGBA{R: 0, G: 80, B: 160, A: 255})
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Cache-Control", "no-store")
	png.Encode(w, m)
}

// serveEvents sends three events, and keeps the connection.
func serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 3 {
		fmt.Fprintf(w, "data: event %d\n\n", i+1)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
	}
	<-r.Context().Done()
}

// startForeign serves a page of another origin, which is not listed, that wants
// all that a page can want of the listed hosts. It tells in its title what it got.
func startForeign(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, foreignPage, siteHost)
	}))
	t.Cleanup(s.Close)
	return s
}

const foreignPage = `<!DOCTYPE html><html lang="en"><head><title>waiting</title></head><body><h1>Another site</h1>
<script>
const host = "%s", got = {};
function tell(what, how) {
  got[what] = how;
  if (Object.keys(got).length == 5) document.title = ["image", "script", "frame", "fetch", "socket"].map(k => k + " " + got[k]).join(", ");
}
function put(tag, what, path) {
  const e = document.createElement(tag);
  e.onload = () => tell(what, "loaded");
  e.onerror = () => tell(what, "refused");
  e.src = "https://" + host + path;
  document.body.append(e);
}
put("img", "image", "/image/1");
put("script", "script", "/page.js");
put("iframe", "frame", "/");
fetch("https://" + host + "/name", {mode: "no-cors", credentials: "include"}).then(r => tell("fetch", r.type), () => tell("fetch", "refused"));
const ws = new WebSocket("wss://" + host + "/echo");
ws.onopen = () => tell("socket", "open");
ws.onerror = () => tell("socket", "refused");
</script></body></html>`
