package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxAnswer bounds the header of the proxy's answer to CONNECT, in bytes.
const maxAnswer = 64 << 10

// connect asks the proxy at the other end of conn for a tunnel to address (RFC
// 9110 section 9.3.6). It closes conn unless it succeeds.
func (d *Dialer) connect(ctx context.Context, conn net.Conn, proxy *url.URL, address string) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	raw := conn
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx) // the deadline stands
		}
		if err != nil {
			raw.Close()
			if ctx.Err() != nil {
				err = &Error{Proxy: hostPort(proxy), Err: ErrUnreachable, Detail: "no answer: " + context.Cause(ctx).Error()}
			}
		}
	}()
	if proxy.Scheme == "https" {
		config := d.config.TLS.Clone()
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		config.ServerName, config.NextProtos = proxy.Hostname(), []string{"http/1.1"}
		encrypted := tls.Client(conn, config)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return nil, &Error{Proxy: hostPort(proxy), Err: ErrUnreachable, Detail: err.Error()}
		}
		conn = encrypted
	}
	if _, err := io.WriteString(conn, request(proxy, address)); err != nil {
		return nil, &Error{Proxy: hostPort(proxy), Err: ErrProtocol, Detail: reason(err)}
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	in := bufio.NewReader(limited)
	if err := readAnswer(in, proxy); err != nil {
		return nil, err
	}
	early, _ := in.Peek(in.Buffered()) // what is buffered can be had
	if len(early) == 0 {
		return conn, nil
	}
	return &begun{conn, early}, nil
}

// request is the CONNECT request.
func request(proxy *url.URL, address string) string {
	login := ""
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		login = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	return fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", address, address, login)
}

// readAnswer reads the header of the proxy's answer; what follows is left in r.
// Nothing of a refusal's body is passed on: it is not the host's word.
func readAnswer(r *bufio.Reader, proxy *url.URL) error {
	fail := func(err error, detail string) error {
		return &Error{Proxy: hostPort(proxy), Err: err, Detail: detail}
	}
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fail(ErrProtocol, "it closed the connection, or its answer is too long")
		case err != nil:
			return fail(ErrProtocol, "its answer is no HTTP")
		case resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols:
			continue // informational
		case resp.StatusCode < 300 && resp.StatusCode >= 200:
			return nil
		case resp.StatusCode == http.StatusProxyAuthRequired:
			return loginError(resp.Header, proxy)
		}
		return fail(ErrRefused, fmt.Sprintf("status %d", resp.StatusCode))
	}
}

// loginError says what a 407 means to the person.
func loginError(h http.Header, proxy *url.URL) error {
	var schemes []string
	for _, v := range h.Values("Proxy-Authenticate") {
		scheme, _, _ := strings.Cut(strings.TrimSpace(v), " ")
		if isToken(scheme) && !slices.Contains(schemes, scheme) {
			schemes = append(schemes, scheme)
		}
	}
	basic := slices.ContainsFunc(schemes, func(s string) bool { return strings.EqualFold(s, "basic") })
	e := &Error{Proxy: hostPort(proxy), Err: ErrLogin, Detail: "the setting has none"}
	switch {
	case len(schemes) > 0 && !basic:
		e.Err, e.Detail = ErrScheme, strings.Join(schemes, " or ")
	case proxy.User != nil:
		e.Detail = "those in the setting are refused"
	}
	return e
}

// isToken keeps what a proxy says out of our texts unless it is a plain word.
func isToken(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// begun is a connection of which some bytes have been read already.
type begun struct {
	net.Conn
	early []byte
}

// Read gives the early bytes first.
func (c *begun) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends our direction where the connection can do that.
func (c *begun) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}
