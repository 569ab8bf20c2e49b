package proxy

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// ServeFixed answers connections to a listener of its own, whose requests all go
// to one listed host: for programs that know no proxy and take another address
// instead. host is lower case, port decimal. It ends as Serve does, and may be
// called for several listeners beside Serve.
//
// Such a listener would be an open door for every web page, so it is not for
// browsers at all. Of what the host answers only Location is rewritten, where it
// names the host itself; cookies, links and CORS headers stay the host's own.
func (p *Proxy) ServeFixed(ctx context.Context, listener net.Listener, host, port string) error {
	if err := requireLoopback(listener.Addr().String()); err != nil {
		listener.Close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &fixed{Proxy: p, own: unmap(listener.Addr()).String(), to: target{host, port}}
	var running sync.WaitGroup
	server := p.server(ctx, http.HandlerFunc(f.serve), &running)
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(newAccepting(listener, p, &running)) }()
	var err error
	select {
	case <-ctx.Done():
		server.Close()
		<-failed
	case err = <-failed:
	}
	cancel()
	server.Close()
	running.Wait()
	return err
}

// fixed is one such listener.
type fixed struct {
	*Proxy
	own string // host:port of the listener
	to  target
}

func (f *fixed) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect || r.URL.IsAbs() || r.RequestURI == "*":
		answer{http.StatusBadRequest, "not-a-proxy", "this address leads to " + f.to.host + " alone and is no proxy", "See the proxy's address with: kortti status"}.write(w, r)
	case !isAt(r.Host, f.own) || fromBrowser(r.Header):
		answer{http.StatusForbidden, "not-for-web-pages", "this address is for programs, not for browsers", "Set the proxy in the browser (kortti status shows its address), and open https://" + f.to.authority("443") + "/"}.write(w, r)
	default:
		f.serveHost(w, r, f.to, f.rewrite)
	}
}

// fromBrowser tells requests of browsers: they say where a request comes from
// whenever the address is on this machine (Fetch Metadata Request Headers,
// section 2.1), and older ones send Origin or Referer with what a page causes.
func fromBrowser(h http.Header) bool {
	return h.Get("Sec-Fetch-Site") != "" || h.Get("Origin") != "" || h.Get("Referer") != ""
}

// rewrite makes a request one to the host, and keeps the program here when the
// host sends it to itself.
func (f *fixed) rewrite(rp *httputil.ReverseProxy) {
	rewrite, modify := rp.Rewrite, rp.ModifyResponse
	rp.Rewrite = func(pr *httputil.ProxyRequest) {
		rewrite(pr)
		pr.Out.Host = ""
	}
	rp.ModifyResponse = func(resp *http.Response) error {
		if to, err := url.Parse(resp.Header.Get("Location")); err == nil && to.Scheme == "https" && to.User == nil {
			if t, err := parseAuthority(to.Host, "443"); err == nil && t == f.to {
				to.Scheme, to.Host = "http", f.own
				resp.Header.Set("Location", to.String())
			}
		}
		return modify(resp)
	}
}

// isAt compares Host with a listener's own address, by number or as localhost,
// and always with the port.
func isAt(host, own string) bool {
	_, port, _ := net.SplitHostPort(own) // a listener's address always splits
	return host == own || strings.EqualFold(host, net.JoinHostPort("localhost", port))
}
