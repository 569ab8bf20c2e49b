// Package probe follows the redirects of a login, as a browser would, and finds
// the hosts on its way that ask for a client certificate: those are the hosts
// to list. It uses no card, presents no certificate, signs nothing and asks
// nobody; so it ends at the latest where a host does not go on without one.
//
// It sees what a server asks for in a TLS handshake, the first one or, in TLS
// 1.2, a later one. A server that would ask later within TLS 1.3 cannot be
// seen, and neither can what a page's script or a person's choice leads to: the
// result says where the way ended and why.
//
//	result, err := probe.Follow(ctx, probe.Config{}, "https://asiointi.example.fi/login")
//	for _, host := range result.Asking() { … }
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

const (
	// MaxHops is how many pages are asked for at most; browsers give up after
	// 20 redirects too.
	MaxHops = 20
	// hopTime bounds one page, and maxPage what is read of it, in bytes.
	hopTime = 20 * time.Second
	maxPage = 256 << 10
)

// Config says how to reach hosts. All fields may be left out.
type Config struct {
	// DialContext connects to host:port; nil for the system's own way.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Roots are the trust anchors for the hosts' certificates; nil for the
	// system's.
	Roots *x509.CertPool
	// UserAgent is sent to the hosts.
	UserAgent string
}

// Hop is one page on the way. It has no more of the URL than is shown: a login's
// query holds what is nobody's business.
type Hop struct {
	Host string `json:"host"` // name, with :port unless that is 443
	Path string `json:"path"`
	// Status is the HTTP status; 0 when no answer came.
	Status int `json:"status,omitempty"`
	// Asks tells that the server asked for a client certificate, Late that it
	// did so only after the request, in a renegotiation.
	Asks bool `json:"asks"`
	Late bool `json:"late,omitempty"`
	// CAs are the names of the issuers that it takes; empty means any.
	CAs []string `json:"acceptable_cas,omitempty"`
	// TLS is "1.2" or "1.3".
	TLS   string `json:"tls,omitempty"`
	Error string `json:"error,omitempty"`
}

// Ending says why a probe ended where it did.
type Ending string

// The endings of a probe.
const (
	Answered Ending = "answered" // with a page that leads nowhere by itself
	Needs    Ending = "needs-card"
	Form     Ending = "form"     // the page has a form, which a person or a script sends
	Script   Ending = "script"   // the page goes on by script
	NotHTTPS Ending = "plain"    // to http:// or something else that is not followed
	TooLong  Ending = "too-long" // more than MaxHops
	Failed   Ending = "failed"   // no connection, no trust, no answer
)

// Result is what a probe saw, in the order in which it came.
type Result struct {
	Hops []Hop  `json:"hops"`
	End  Ending `json:"end"`
	// Next is the host that the way leads to where End is NotHTTPS.
	Next string `json:"next,omitempty"`
}

// Asking returns the hosts that asked for a certificate, each once.
func (r Result) Asking() []string {
	var hosts []string
	for _, h := range r.Hops {
		if h.Asks && !slices.Contains(hosts, h.Host) {
			hosts = append(hosts, h.Host)
		}
	}
	return hosts
}

// prober is one probe.
type prober struct {
	cfg Config
	jar http.CookieJar
}

// Follow starts at an https URL and goes on until the way ends. An error means
// that nothing could be asked at all; what a host did wrong is in the result.
func Follow(ctx context.Context, cfg Config, start string) (Result, error) {
	u, err := url.Parse(start)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return Result{}, errors.New("a probe starts at an https:// URL")
	}
	jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	if err != nil {
		return Result{}, err
	}
	p := &prober{cfg, jar}
	result := Result{Hops: []Hop{}, End: TooLong}
	for len(result.Hops) < MaxHops {
		hop, page, err := p.ask(ctx, u)
		result.Hops = append(result.Hops, hop)
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
		next, end := follow(hop, page, err)
		if next == nil {
			result.End = end
			return result, nil
		}
		if next = u.ResolveReference(next); next.Scheme != "https" || next.Hostname() == "" {
			result.End, result.Next = NotHTTPS, next.Scheme+"://"+next.Host
			return result, nil
		}
		u = next
	}
	return result, nil
}

// follow says where a page leads, or why the way ends there.
func follow(hop Hop, page page, err error) (*url.URL, Ending) {
	if err != nil {
		if hop.Asks {
			return nil, Needs
		}
		return nil, Failed
	}
	if page.location != nil {
		return page.location, ""
	}
	switch {
	case hop.Asks:
		return nil, Needs
	case page.script:
		return nil, Script
	case page.form:
		return nil, Form
	}
	return nil, Answered
}

// ask gets one page. A host that refuses without having asked may be one that
// asks only after the request, which TLS 1.3 lets nobody see: TLS 1.2 does.
func (p *prober) ask(ctx context.Context, u *url.URL) (Hop, page, error) {
	hop, page, err := p.askWith(ctx, u, tls.VersionTLS13)
	refused := hop.Status == http.StatusForbidden || hop.Status == http.StatusUnauthorized || err != nil && hop.TLS != ""
	if !refused || hop.Asks || hop.TLS != "1.3" {
		return hop, page, err
	}
	again, pageAgain, errAgain := p.askWith(ctx, u, tls.VersionTLS12)
	if !again.Asks {
		return hop, page, err
	}
	return again, pageAgain, errAgain
}

// askWith gets one page on a connection of its own. HTTP/1.1, because HTTP/2
// forbids to ask late (RFC 9113, section 9.2.3).
func (p *prober) askWith(ctx context.Context, u *url.URL, newest uint16) (hop Hop, got page, err error) {
	hop = Hop{Host: hostOf(u), Path: u.EscapedPath()}
	ctx, cancel := context.WithTimeout(ctx, hopTime)
	defer cancel()
	var seen handshakes
	defer seen.into(&hop)
	transport := &http.Transport{
		DialContext:       p.cfg.DialContext,
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS12, MaxVersion: newest, NextProtos: []string{"http/1.1"},
			Renegotiation: tls.RenegotiateOnceAsClient, GetClientCertificate: seen.asked, VerifyConnection: seen.verified,
		},
	}
	defer transport.CloseIdleConnections()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{TLSHandshakeDone: seen.ended})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return hop, got, err
	}
	req.Header.Set("Accept", "text/html,*/*;q=0.8") // as browsers do: a login differs for programs
	req.Header.Set("User-Agent", p.cfg.UserAgent)
	for _, c := range p.jar.Cookies(u) {
		req.AddCookie(c)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		hop.Error = reason(err)
		return hop, got, err
	}
	defer resp.Body.Close()
	p.jar.SetCookies(u, resp.Cookies())
	hop.Status = resp.StatusCode
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		hop.Error = reason(err)
		return hop, got, err
	}
	got = readPage(resp, body)
	return hop, got, nil
}

// handshakes is what happens in the handshakes of one page. They run in
// goroutines of net/http, which may outlive a page that was given up.
type handshakes struct {
	mu   sync.Mutex // guards all
	done bool       // the first one
	tls  string
	asks bool
	late bool
	cas  []string
}

// ended is httptrace's TLSHandshakeDone, which does not tell of renegotiations.
func (h *handshakes) ended(tls.ConnectionState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
}

func (h *handshakes) verified(state tls.ConnectionState) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tls = map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"}[state.Version]
	return nil
}

// asked presents no certificate.
func (h *handshakes) asked(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asks, h.late, h.cas = true, h.done, names(request.AcceptableCAs)
	return &tls.Certificate{}, nil
}

func (h *handshakes) into(hop *Hop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hop.TLS, hop.Asks, hop.Late, hop.CAs = h.tls, h.asks, h.late, h.cas
}

// hostOf is how a host is listed.
func hostOf(u *url.URL) string {
	if port := u.Port(); port != "" && port != "443" {
		return strings.ToLower(u.Hostname()) + ":" + port
	}
	return strings.ToLower(u.Hostname())
}

// reason is an error for people.
func reason(err error) string {
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return "its own certificate is not trusted: " + untrusted.Err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %v", hopTime)
	}
	return err.Error()
}

// names are the distinguished names of a CertificateRequest; what is none is
// left out.
func names(raw [][]byte) []string {
	var all []string
	for _, der := range raw {
		var rdn pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &rdn); err != nil || len(rest) > 0 {
			continue
		}
		all = append(all, rdn.String())
	}
	return all
}
