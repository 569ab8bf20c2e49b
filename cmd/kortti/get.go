package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
)

const (
	// maxRedirects is what browsers follow too.
	maxRedirects = 20
	// maxRefusal bounds the proxy's own error answers, in bytes.
	maxRefusal = 64 << 10
	// errorHeader marks answers of the proxy itself with their code.
	errorHeader = "X-Kortti-Error"
)

// fetch is one `kortti get`.
type fetch struct {
	std      stdio
	way      way
	client   *control.Client
	url      *url.URL
	header   http.Header
	to       string // the file, "" for standard output
	showHead bool
}

func runGet(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "get", "URL")
	socket := socketFlag(fs)
	f := &fetch{std: std, header: http.Header{}}
	fs.StringVar(&f.to, "output", "", "write the page to this `FILE`")
	fs.StringVar(&f.to, "o", "", "the same as --output `FILE`")
	fs.BoolVar(&f.showHead, "i", false, "show the answer's status and header too")
	asJSON := fs.Bool("json", false, "print an error in machine-readable form")
	fs.Func("H", "send this header line too, `'NAME: VALUE'`; may be given many times", f.addHeader)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if f.url, err = webAddress(rest[0]); err != nil {
		return err
	}
	err = withAgent(*socket, func(c *control.Client) (err error) {
		f.client = c
		if f.way, err = findWay(ctx, c); err != nil {
			return err
		}
		return f.run(ctx)
	})
	if err != nil && *asJSON {
		return errors.Join(printJSON(std.out, map[string]control.Error{"error": asError(err)}), err)
	}
	return err
}

// asError is an error in the form of the control API.
func asError(err error) control.Error {
	var ce *control.Error
	if errors.As(err, &ce) {
		return *ce
	}
	message, hint := describe(err)
	return control.Error{Code: "failed", Message: message, Hint: hint}
}

func (f *fetch) addHeader(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok || strings.TrimSpace(name) == "" || strings.ContainsAny(line, "\r\n") {
		return errors.New("want 'NAME: VALUE'")
	}
	f.header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	return nil
}

// webAddress reads a URL as a person writes it; without a scheme it is https.
func webAddress(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, wrongUse("%q is not a URL", text)
	case u.Scheme != "https":
		return nil, wrongUse("%q: certificates are for https:// only", text)
	case u.User != nil:
		return nil, wrongUse("leave the user name and password out of the URL")
	}
	return u, nil
}

// listed tells whether requests to a URL get the card.
func (f *fetch) listed(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	for _, h := range f.way.hosts {
		if name, p, err := config.ParseName(h.Name); err == nil && (config.Host{Name: name, Port: p}).Match(u.Hostname(), port) > 0 {
			return true
		}
	}
	return false
}

// run gets the page. Where the agent finds nobody to ask and a person sits at
// this terminal, it asks here and tries once more: nothing has been sent to the
// host before.
func (f *fetch) run(ctx context.Context) error {
	if !f.listed(f.url) {
		return &control.Error{Code: "not-listed", Message: f.url.Host + " is not a listed host, so it would get no certificate", Hint: "List it with: kortti hosts add " + f.url.Host}
	}
	err := f.get(ctx)
	_, person := terminal(f.std.in)
	if !person || !errors.Is(err, &control.Error{Code: control.CodeNoFrontEnd}) {
		return err
	}
	return whileAnswering(ctx, f.std, f.client, f.get)
}

// get sends the request and writes what comes at the end of its redirects.
func (f *fetch) get(ctx context.Context) error {
	client, err := f.httpClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url.String(), nil)
	if err != nil {
		return err
	}
	// The proxy's own errors come as JSON to those who name it; a host is told
	// that any other form is as good.
	req.Header.Set("Accept", "*/*, application/json;q=0.9")
	req.Header.Set("User-Agent", "kortti/"+version)
	for name, values := range f.header {
		req.Header[name] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		return f.failed(err)
	}
	defer resp.Body.Close()
	if code := resp.Header.Get(errorHeader); code != "" {
		return refusal(resp, code)
	}
	if err := f.write(resp); err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		return &control.Error{Code: "http-status", Status: resp.StatusCode, Message: fmt.Sprintf("%s answered %s", resp.Request.URL.Host, resp.Status)}
	}
	return nil
}

// httpClient trusts the system's anchors and the local roots, and goes through
// the agent's proxy only.
func (f *fetch) httpClient() (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's trust anchors: %w", err)
	}
	roots.AppendCertsFromPEM(f.way.roots)
	jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Jar: jar,
		Transport: &http.Transport{
			Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: f.way.proxy}),
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: f.follow,
	}, nil
}

// follow goes where a host sends us, as a browser does, but never back to plain
// HTTP; what the person has given for one host is not sent to another.
func (f *fetch) follow(next *http.Request, before []*http.Request) error {
	if next.URL.Scheme != "https" {
		return &control.Error{Code: "redirect", Message: fmt.Sprintf("%s leads to %s://%s, which is not https; it was not followed", before[len(before)-1].URL.Host, next.URL.Scheme, next.URL.Host)}
	}
	if len(before) > maxRedirects {
		return &control.Error{Code: "redirect", Message: fmt.Sprintf("more than %d redirects; the last one is to %s", maxRedirects, next.URL.Host)}
	}
	if next.URL.Host != f.url.Host {
		for name := range f.header {
			next.Header.Del(name)
		}
	}
	if next.URL.Host != before[len(before)-1].URL.Host {
		note := ""
		if !f.listed(next.URL) {
			note = " (not listed: it gets no certificate)"
		}
		fmt.Fprintf(f.std.err, "kortti get: goes on at %s%s\n", next.URL.Host, note)
	}
	return nil
}

// refusal is an error answer of the proxy.
func refusal(resp *http.Response, code string) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	var body struct{ Error control.Error }
	if json.Unmarshal(raw, &body) == nil && body.Error.Message != "" {
		body.Error.Code, body.Error.Status = code, resp.StatusCode
		return &body.Error
	}
	message, hint, _ := strings.Cut(strings.TrimPrefix(string(raw), "kortti: "), "\n")
	return &control.Error{Code: code, Status: resp.StatusCode, Message: message, Hint: strings.TrimSpace(hint)}
}

// failed says what went wrong on the way, without the URL, which may hold what
// is nobody's business.
func (f *fetch) failed(err error) error {
	var ce *control.Error
	if errors.As(err, &ce) {
		return ce
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "proxyconnect" {
		return &control.Error{Code: "proxy", Message: "the agent's proxy at " + f.way.proxy + " did not answer: " + err.Error(), Hint: "See what is wrong with: kortti doctor"}
	}
	return fmt.Errorf("get the page from %s: %w", f.url.Host, err)
}

// write copies the answer to where the person wants it.
func (f *fetch) write(resp *http.Response) (err error) {
	out := f.std.out
	if f.to != "" && f.to != "-" {
		file, err := os.Create(f.to)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	if f.showHead {
		fmt.Fprintf(out, "%s %s\r\n", resp.Proto, resp.Status)
		if err := resp.Header.Write(out); err != nil {
			return err
		}
		fmt.Fprint(out, "\r\n")
	}
	p := newProgress(f.std.err, out, resp.ContentLength)
	n, err := io.Copy(out, io.TeeReader(resp.Body, p))
	p.end()
	if err != nil {
		return fmt.Errorf("the answer of %s ended early, after %d bytes: %w", resp.Request.URL.Host, n, err)
	}
	return nil
}
