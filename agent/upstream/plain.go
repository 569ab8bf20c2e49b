package upstream

import (
	"net/http"
	"net/url"
)

// Sender sends requests and keeps connections for more of them.
type Sender interface {
	http.RoundTripper
	CloseIdleConnections()
}

// Plain returns a Sender for http URLs that sends requests by t, through
// the other proxy where the setting says so. It takes t over. What the proxy
// itself says is an *Error and never the host's answer, as far as the two can be
// told apart: by status 407.
func (d *Dialer) Plain(t *http.Transport) Sender {
	t.DialContext = d.dial
	t.Proxy = d.proxyForRequest
	if d.config.TLS != nil {
		t.TLSClientConfig = d.config.TLS.Clone() // a plain request needs TLS for its proxy alone
	}
	return &plain{d, t}
}

type plain struct {
	dialer *Dialer
	*http.Transport
}

func (d *Dialer) proxyForRequest(r *http.Request) (*url.URL, error) {
	address := r.URL.Host
	if r.URL.Port() == "" {
		address += ":80"
	}
	return d.proxyFor("http", address)
}

// RoundTrip implements http.RoundTripper.
func (p *plain) RoundTrip(r *http.Request) (*http.Response, error) {
	proxy, err := p.dialer.proxyForRequest(r)
	if err != nil {
		return nil, err
	}
	resp, err := p.Transport.RoundTrip(r)
	switch {
	case proxy == nil:
		return resp, err
	case err != nil:
		return nil, blame(r.Context(), proxy, err)
	case resp.StatusCode == http.StatusProxyAuthRequired:
		resp.Body.Close()
		return nil, loginError(resp.Header, proxy)
	}
	return resp, nil
}
