package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// forwardListed sends a request of a listed host with the card's transport.
// Each of change may change what is sent and what comes back.
func (p *Proxy) forwardListed(w http.ResponseWriter, r *http.Request, ctx context.Context, to target, change ...func(*httputil.ReverseProxy)) {
	rp := p.reverseProxy(p.cfg.Transport, &url.URL{Scheme: "https", Host: to.authority("443")})
	rp.ModifyResponse = func(resp *http.Response) error {
		if err := checkAnswer(resp); err != nil {
			return err
		}
		resp.Header.Del(errorHeader) // ours alone
		// Another way to the host would go past the card.
		resp.Header.Del("Alt-Svc")
		return nil
	}
	rp.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the program is gone, or the proxy ends
		}
		if errors.Is(err, errBadAnswer) {
			answer{http.StatusBadGateway, "upstream", "the answer of " + to.host + " is not HTTP as it should be", ""}.write(w, r)
			return
		}
		p.explain(w, r, err)
	}
	for _, f := range change {
		f(rp)
	}
	p.serve(rp, w, r.WithContext(ctx))
}

// errBadAnswer says that a host has answered what net/http passes on and
// ReverseProxy cannot.
var errBadAnswer = errors.New("the host's answer has no valid status or switches to a protocol that was not asked for")

func checkAnswer(resp *http.Response) error {
	switched := resp.StatusCode == http.StatusSwitchingProtocols
	if resp.StatusCode < 100 || switched && !strings.EqualFold(resp.Header.Get("Upgrade"), resp.Request.Header.Get("Upgrade")) {
		return errBadAnswer
	}
	return nil
}

// explain answers an error of Admit or of the transport.
func (p *Proxy) explain(w http.ResponseWriter, r *http.Request, err error) {
	var a answer
	a.Status, a.Code, a.Message, a.Hint = p.cfg.Explain(err)
	if a.Status == 0 {
		a.Status = http.StatusBadGateway
	}
	if a.Code == "" {
		a.Code = "upstream"
	}
	var hold *Hold
	if !errors.As(err, &hold) {
		hold = new(Hold)
	}
	a.hold(w, r, hold.For)
}

// servePlain forwards a request in absolute form. A listed host is never
// reached with the card over plain HTTP; it is sent to https instead, with
// method and body kept (308).
func (p *Proxy) servePlain(w http.ResponseWriter, r *http.Request) {
	to, err := parseAuthority(r.URL.Host, "80")
	if err != nil || r.URL.Scheme != "http" || r.URL.User != nil {
		answer{http.StatusBadRequest, "bad-target", "only http:// URLs with a host are forwarded", "Use CONNECT for https."}.write(w, r)
		return
	}
	if p.isOwnName(to) {
		loopAnswer.write(w, r)
		return
	}
	secure := to
	if secure.port == "80" {
		secure.port = "443"
	}
	if _, ok := p.cfg.Hosts.Lookup(secure.host, secure.port); ok {
		w.Header().Set("Location", "https://"+secure.authority("443")+r.URL.RequestURI())
		answer{http.StatusPermanentRedirect, "https-only", to.host + " is reached over https only", ""}.write(w, r)
		return
	}
	rp := p.reverseProxy(p.plain, &url.URL{Scheme: "http", Host: to.authority("80")})
	rp.ModifyResponse = func(resp *http.Response) error {
		if err := checkAnswer(resp); err != nil {
			return err
		}
		resp.Header.Del(errorHeader) // ours alone
		return nil
	}
	rp.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler)
		}
		unreachable(to, err).write(w, r)
	}
	p.serve(rp, w, r)
}

func (p *Proxy) serve(rp *httputil.ReverseProxy, w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.Header.Get("Upgrade") != "" {
		// A connection that has switched protocols is no more the server's to
		// close, and the end of one direction leaves the other open.
		program := r.Context().Value(connKey{}).(net.Conn)
		stop := context.AfterFunc(r.Context(), func() { program.Close() })
		defer stop()
	}
	if strings.ContainsAny(r.RequestURI, " #") {
		// HTTP/2 can say a space, and a host that speaks HTTP/1.1 would take what
		// follows for the protocol (RFC 9112, section 3.2). A fragment is never
		// sent (RFC 9110, section 4.2.5), and hosts disagree about where it begins.
		answer{http.StatusBadRequest, "bad-target", "the request's path has a space or a # in it", ""}.write(w, r)
		return
	}
	r, body := watchBody(r)
	explain := rp.ErrorHandler
	rp.ErrorHandler = func(w http.ResponseWriter, in *http.Request, err error) {
		if body.broken.Load() && r.Context().Err() == nil {
			w.Header().Set("Connection", "close")
			brokenBody.write(w, r)
			return
		}
		explain(w, in, err)
	}
	rp.ServeHTTP(newHeaderWriter(w, r), r)
	if r.ProtoMajor == 1 && body.broken.Load() && w.Header().Get(errorHeader) == "" {
		panic(http.ErrAbortHandler) // nobody knows where the next request begins
	}
}

// reverseProxy makes a one-request proxy that changes nothing but the
// hop-by-hop headers (RFC 9110, section 7.6.1) and adds nothing of its own.
func (p *Proxy) reverseProxy(transport http.RoundTripper, base *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:      transport,
		FlushInterval:  -1,
		ModifyResponse: checkAnswer,
		BufferPool:     copyBuffers,
		ErrorLog:       slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			in, out := pr.In, pr.Out
			out.URL.Scheme, out.URL.Host = base.Scheme, base.Host
			if path := sentPath(in); path != out.URL.EscapedPath() && !strings.HasPrefix(path, "//") {
				out.URL.Opaque = path
			}
			// ReverseProxy takes these away; to a host that the program asked
			// for itself they are the program's to send.
			out.URL.RawQuery = in.URL.RawQuery
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := in.Header[name]; ok {
					out.Header[name] = values
				}
			}
			for name := range out.Header {
				if strings.HasPrefix(name, "Proxy-") {
					delete(out.Header, name)
				}
			}
			if strings.EqualFold(out.Header.Get("Upgrade"), "h2c") {
				// What is asked for in it would go past every check of the host's name.
				out.Header.Del("Upgrade")
				out.Header.Del("Connection")
			}
			// The values come after the body, into the map of the request.
			out.Trailer = in.Trailer
		},
	}
}

// sentPath is the path as the program has written it. net/url writes anew what
// RFC 3986 does not allow, and takes "%2F" for "/" in doing so; hosts and
// signatures of URLs may see the difference.
func sentPath(r *http.Request) string {
	uri, _, _ := strings.Cut(r.RequestURI, "?")
	if r.URL.IsAbs() {
		_, rest, _ := strings.Cut(uri, "://")
		_, path, _ := strings.Cut(rest, "/")
		return "/" + path
	}
	return uri
}

// buffers keeps the copy buffers of bodies.
type buffers struct{ pool sync.Pool }

var copyBuffers = &buffers{}

const copyBufferSize = 32 << 10

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[copyBufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, copyBufferSize)
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[copyBufferSize]byte)(buf)) }
