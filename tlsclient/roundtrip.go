package tlsclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// maxAttempts limits how often a request looks for a connection: again after
// one that died before the request was on it, or after a pool that ended quietly.
const maxAttempts = 8

// RoundTrip implements http.RoundTripper for https URLs. The request, its body
// included, is handed over only when a connection is at hand, and only once.
// Errors: those of this package, *UpstreamError, and what Config.Permit,
// Config.Unlock, Config.Choose or the request's context returned.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.roundTrip(req)
	if err != nil && req.Body != nil {
		req.Body.Close() // http.RoundTripper demands it; a second Close does no harm
	}
	return resp, err
}

func (t *Transport) roundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Scheme != "https" || req.Header == nil {
		return nil, fmt.Errorf("send a request: it needs an https URL and a header map")
	}
	tg, err := newTarget(req.URL.Host)
	if err != nil {
		return nil, fmt.Errorf("send a request: %w", err)
	}
	for attempt := 1; ; attempt++ {
		c, err := t.conn(req, tg)
		if err != nil {
			return nil, err
		}
		t.requests.Add(1)
		resp, err, again := c.roundTrip(req, newBody(req.Body), attempt == 1)
		if c.pool.identity != nil && !c.owed.Swap(false) {
			t.avoided.Add(1)
		}
		again, err = t.heed(req, c, resp, err, again)
		switch {
		case resp != nil && (!again || attempt == maxAttempts):
			return resp, nil
		case resp != nil:
			discard(resp)
		case !again || attempt == maxAttempts:
			return nil, t.blame(req.Context(), tg, err)
		}
	}
}

// blame says that err is the host's, unless the request's own end caused it or
// it says already whose it is.
func (t *Transport) blame(ctx context.Context, tg target, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var up *UpstreamError
	if errors.As(err, &up) {
		return err
	}
	return &UpstreamError{tg.address(), "request", err}
}

// conn returns a connection on which the request may be made, once.
func (t *Transport) conn(req *http.Request, tg target) (*conn, error) {
	ctx := req.Context()
	for attempt := 1; ; attempt++ {
		p, err := t.route(req, tg)
		if err != nil {
			return nil, err
		}
		if t.config.Permit != nil && p.identity != nil {
			if err := t.config.Permit(ctx, tg.host, tg.port, *p.identity); err != nil {
				return nil, err
			}
		}
		if wantsUpgrade(req) || t.profile(tg).HTTP1 {
			p = p.forUpgrade()
		}
		c, err := p.get(ctx)
		switch {
		case err == nil:
			return c, nil
		case !errors.Is(err, errRenew):
			return nil, err
		case attempt == maxAttempts:
			return nil, fmt.Errorf("connect to %s: %w", tg.address(), err)
		}
	}
}

// wantsUpgrade reports whether the request asks for another protocol, such as
// WebSocket, which only HTTP/1.1 can switch to (RFC 9110 section 7.8).
func wantsUpgrade(req *http.Request) bool {
	if req.Header.Get("Upgrade") == "" {
		return false
	}
	for _, v := range req.Header.Values("Connection") {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}
