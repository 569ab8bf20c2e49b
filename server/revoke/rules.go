package revoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds an OCSP answer, in bytes. Real ones have 1,000 to 5,000.
const maxAnswer = 64 << 10

// rule is a Rule in force.
type rule struct {
	Rule
	hosts  map[string]bool // lower case, with or without port
	client *http.Client
}

func newRule(r Rule) (*rule, error) {
	if r.Issuer == "" {
		return nil, errors.New(`the issuing CA's common name, or "*", is missing`)
	}
	if r.Policy == "" {
		r.Policy = Must
	}
	switch r.Policy {
	case Must, PreferCRL:
	case Grace:
		if r.Grace <= 0 {
			return nil, errors.New(`policy "grace" needs a time, such as grace = "4h"`)
		}
	case Open:
		if strings.TrimSpace(r.Reason) == "" {
			return nil, errors.New(`policy "open" lets revoked cards in and needs a reason = "…"`)
		}
	default:
		return nil, fmt.Errorf("unknown policy %q; use %q, %q, %q or %q", r.Policy, Must, PreferCRL, Grace, Open)
	}
	if r.Policy != Grace && r.Grace != 0 {
		return nil, fmt.Errorf("a grace time has no meaning with policy %q", r.Policy)
	}
	if r.MaxAge < 0 {
		return nil, errors.New("the largest age of an answer is negative")
	}
	if r.MaxAge == 0 {
		r.MaxAge = defaultMaxAge
	}
	parsed := &rule{Rule: r, hosts: map[string]bool{}}
	for _, host := range r.Hosts {
		if host == "" || strings.ContainsAny(host, "/@?# ") {
			return nil, fmt.Errorf(`%q is not a host; write "ocsp.example.fi" or "ocsp.example.fi:8080"`, host)
		}
		parsed.hosts[strings.ToLower(host)] = true
	}
	if r.URL != "" {
		u, err := parsed.allowed(r.URL)
		if err != nil {
			return nil, err
		}
		parsed.hosts[strings.ToLower(u.Host)] = true // named by the owner
	}
	for _, address := range r.CRL {
		if !isURL(address) {
			continue
		}
		if _, err := parsed.allowed(address); err != nil {
			return nil, err
		}
	}
	parsed.client = newHTTPClient(len(parsed.hosts) > 0)
	return parsed, nil
}

// allowed tells whether a responder may be asked. An empty list of hosts leaves
// that to the dialer, which keeps to public addresses.
func (r *rule) allowed(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the address %q of a responder or list is not a plain http or https URL", address)
	}
	u.Fragment = ""
	if len(r.hosts) > 0 && !r.hosts[strings.ToLower(u.Host)] && !r.hosts[strings.ToLower(u.Hostname())] {
		return nil, fmt.Errorf("%q is not among the hosts that may be asked; add it to hosts", u.Host)
	}
	return u, nil
}

// newHTTPClient asks directly, without a proxy, and follows nothing.
func newHTTPClient(privateToo bool) *http.Client {
	dialer := &net.Dialer{Timeout: defaultTimeout}
	if !privateToo {
		dialer.ControlContext = publicOnly
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    defaultTimeout,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    4,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// publicOnly refuses addresses inside of somebody's network. It runs after the
// name has been resolved, so a name that points inwards gains nothing.
func publicOnly(_ context.Context, _, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := a.Addr().Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || sharedSpace.Contains(ip) {
		return fmt.Errorf("the address %v of a responder or list is in a private or local network; list its host in hosts to allow it", ip)
	}
	return nil
}

// sharedSpace is what providers use inside of their networks (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// post sends a question (RFC 6960 appendix A.1).
func post(ctx context.Context, client *http.Client, target *url.URL, request []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask OCSP responder: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("OCSP responder %s answered with status %d", target.Host, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of OCSP responder %s: %w", target.Host, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer of OCSP responder %s is longer than %d bytes", target.Host, maxAnswer)
	}
	return body, nil
}
