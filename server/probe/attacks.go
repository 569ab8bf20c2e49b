package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kortti-id/kortti/server/evidence"
)

// elsewhere is a name that no site has (RFC 6761).
const elsewhere = "kortti-probe.invalid"

const (
	tickets = "nginx: ssl_session_tickets off; ssl_session_cache off; · Apache: SSLSessionTickets off, SSLSessionCache none · HAProxy: no-tls-tickets, tune.ssl.cachesize 0 · Caddy: session_tickets { disabled } in its JSON configuration, a Caddyfile cannot"
	names   = "nginx: a default_server that returns 421 · Apache: UseCanonicalName On and a first VirtualHost that refuses · HAProxy: http-request deny unless { hdr(host) -i NAME } · Caddy: name the site in its address"
	hops    = `nginx: proxy_set_header Connection ""; · Apache: RequestHeader edit* Connection "(?i)client-cert|x-real-ip" "close" · HAProxy: http-request del-header connection · Caddy: request_header -Connection`
	framing = "update the proxy, which does not agree with the server where a request ends (RFC 9112 section 6.3); Apache: HttpProtocolOptions Strict · HAProxy: no option accept-invalid-http-request"
)

func drop(name string) string {
	return fmt.Sprintf("nginx: proxy_set_header %[1]s \"\"; · Apache: RequestHeader unset %[1]s · HAProxy: http-request del-header %[1]s · Caddy: request_header -%[1]s", name)
}

// claims are the ways in which a header can name the claimed certificate.
func (r *run) claims() []string {
	der := r.claimed.Certificate[0]
	b64 := base64.StdEncoding.EncodeToString(der)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return []string{
		url.PathEscape(text),
		":" + b64 + ":",
		fmt.Sprintf("Hash=%x;Cert=%q", sha256.Sum256(der), url.QueryEscape(text)),
		b64,
		"/C=FI/serialNumber=99900001",
		"SUCCESS",
	}
}

// partner is the second of two headers that mean something only together.
func partner(name string) (header, value string) {
	switch name {
	case "X-SSL-User-DN":
		return "X-SSL-Authenticated", "SUCCESS"
	case "X-SSL-Authenticated":
		return "X-SSL-User-DN", "/C=FI/serialNumber=99900001"
	}
	return "", ""
}

// headers claims a certificate in each header that some proxy writes, as nobody and
// as somebody with a certificate of one's own.
func (r *run) headers(ctx context.Context) {
	for _, name := range evidence.IdentityHeaders() {
		f := Finding{Check: "forged header " + name, Result: OK}
		for _, spelling := range []string{name, strings.ReplaceAll(name, "-", "_"), strings.ToLower(name), strings.ToUpper(name)} {
			forge := func(values ...string) func(*http.Request) {
				return func(req *http.Request) {
					req.Header[spelling] = values
					if other, value := partner(name); other != "" {
						req.Header.Set(other, value)
					}
				}
			}
			judge := func(certificate *tls.Certificate, http2 bool, values ...string) {
				f = worst(f, r.judge(f.Check, "sent as "+spelling, spelling, certificate, r.try(ctx, func() (answer, error) {
					return r.askBy(ctx, r.client(certificate, http2), "https://"+r.site.Host, forge(values...))
				})))
			}
			for _, value := range r.claims() {
				judge(nil, false, value)
				judge(nil, true, value)
			}
			judge(nil, false, r.claims()[0], r.claims()[1])
			judge(nil, true, r.claims()[1], r.claims()[1])
			judge(&r.shown, false, r.claims()[0])
			judge(&r.shown, false, r.claims()[1])
		}
		r.found(f)
	}
}

// judge says what it means that a claim has come so far, which a client with this
// certificate of its own, or without one, has made.
func (r *run) judge(check, how, header string, own *tls.Certificate, t tried) Finding {
	switch {
	case t.err != nil:
		return Finding{check, Failed, how + ": " + t.err.Error(), ""}
	case t.away:
	case t.Certificate == sum(r.claimed), own == nil && (t.Verdict == "" || t.Source != ""):
		return Finding{check, Hole, how + " by a client that does not hold that certificate, it was believed", drop(header)}
	case t.Refused != "":
		return Finding{check, Weak, fmt.Sprintf("%s, the proxy hands it on; the server refused it (%s), and so whoever sends it keeps only himself out", how, t.Refused), drop(header)}
	}
	return Finding{Check: check, Result: OK} // dropped, or turned away by the proxy
}

// trailers claims a certificate after the body. Proxies hand that on, and have no
// line against it: here the server stands alone.
func (r *run) trailers(ctx context.Context) {
	f := Finding{Check: "forged header after the body", Result: OK}
	for _, name := range evidence.IdentityHeaders() {
		for _, value := range r.claims()[:2] {
			found := r.judge(f.Check, name+" sent as a trailer", name, nil, r.try(ctx, func() (answer, error) {
				return r.raw(ctx, r.tls(nil), "GET %s HTTP/1.1\r\nHost: "+r.site.Host+"\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: "+name+"\r\n\r\n0\r\n"+name+": "+strings.ReplaceAll(value, "%", "%%")+"\r\n\r\n")
			}))
			if found.Result == Weak {
				f.Detail = "handed on by the proxy, refused by the server"
				continue
			}
			f = worst(f, found)
		}
	}
	r.found(f)
}

// connection names headers that are to be dropped on the way (RFC 9110 section
// 7.6.1): the proxy must do that before it sets its own.
func (r *run) connection(ctx context.Context) {
	const check = "headers dropped at a client's wish"
	plain := r.try(ctx, func() (answer, error) { return r.ask(ctx, &r.shown, nil) })
	certificate := &r.shown
	if plain.away { // a proxy that takes certificates of known CAs alone
		certificate = nil
		plain = r.try(ctx, func() (answer, error) { return r.ask(ctx, nil, nil) })
	}
	wish := strings.Join(append(evidence.IdentityHeaders(), evidence.AddressHeader), ", ")
	t := r.try(ctx, func() (answer, error) {
		return r.ask(ctx, certificate, func(req *http.Request) { req.Header.Set("Connection", "close, "+wish) })
	})
	switch err := errors.Join(plain.err, t.err); {
	case err != nil:
		r.found(Finding{check, Failed, err.Error(), ""})
	case t.away:
		r.found(Finding{Check: check, Result: OK})
	case t.Refused != "":
		r.found(Finding{check, Weak, "the proxy hands on what a client's Connection header names; the server refused it (" + t.Refused + ")", hops})
	case t.Address != plain.Address:
		r.found(Finding{check, Hole, "a client's Connection header takes its address away: limits and the audit log are led astray", hops})
	case t.Certificate != plain.Certificate:
		r.found(Finding{check, Weak, "a client's Connection header takes its own certificate away", hops})
	default:
		r.found(Finding{Check: check, Result: OK})
	}
}

// address claims to come from elsewhere.
func (r *run) address(ctx context.Context) {
	const elsewhere = "192.0.2.66" // RFC 5737
	for _, name := range []string{evidence.AddressHeader, "X-Forwarded-For", "Forwarded"} {
		f := Finding{Check: "forged address in " + name, Result: OK}
		value := elsewhere
		if name == "Forwarded" {
			value = "for=" + elsewhere
		}
		for _, spelling := range []string{name, strings.ReplaceAll(name, "-", "_")} {
			for _, values := range [][]string{{value}, {value, value}} {
				t := r.try(ctx, func() (answer, error) {
					return r.ask(ctx, nil, func(req *http.Request) { req.Header[spelling] = values })
				})
				switch {
				case t.err != nil:
					f = worst(f, Finding{f.Check, Failed, t.err.Error(), ""})
				case t.away:
				case t.Address == elsewhere:
					f = worst(f, Finding{f.Check, Hole, "the server takes it for the client's address: limits and the audit log are led astray",
						"nginx: proxy_set_header X-Real-IP $remote_addr; · Apache: RequestHeader set X-Real-IP expr=%{REMOTE_ADDR} · HAProxy: http-request set-header X-Real-IP %[src] · Caddy: header_up X-Real-IP {remote_host}"})
				case t.Refused != "":
					f = worst(f, Finding{f.Check, Weak, "the proxy hands " + spelling + " on beside its own; the server refused the request (" + t.Refused + ")", "make the proxy replace " + spelling})
				}
			}
		}
		r.found(f)
	}
}

// smuggling hides a second request, with a claim, in the body of a first, for a
// proxy that takes another end of the first for its end than the server does.
func (r *run) smuggling(ctx context.Context) {
	f := Finding{Check: "second request hidden in a first", Result: OK}
	open := r.try(ctx, func() (answer, error) {
		return r.ask(ctx, nil, func(req *http.Request) { req.Header.Set("Client-Cert", r.claims()[1]) })
	})
	dropped := open.err == nil && open.Refused == "" // so that one that comes through was hidden
	for _, coding := range []string{
		"Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding:\tchunked",
		"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "X: y\r\n Transfer-Encoding: chunked", "Transfer-Encoding: chunked, identity",
	} {
		for _, chunked := range []bool{false, true} {
			f = worst(f, r.smuggle(ctx, f.Check, coding, chunked, dropped))
		}
	}
	r.found(f)
}

// smuggle hides a request behind an empty last chunk, which a proxy passes that goes
// by the length, or in a chunk, where a server ends that does.
func (r *run) smuggle(ctx context.Context, check, coding string, inChunk, dropped bool) Finding {
	hidden, path := r.question()
	inner := "GET " + path + " HTTP/1.1\r\nHost: " + r.site.Host + "\r\n" + evidence.DefaultHeader + ": " + r.claims()[0] + "\r\nClient-Cert: " + r.claims()[1] + "\r\n\r\n"
	_, first := r.question()
	_, last := r.question()
	body := "0\r\n\r\n" + inner
	length := len(body)
	if inChunk {
		size := fmt.Sprintf("%x\r\n", len(inner))
		body, length = size+inner+"\r\n0\r\n\r\n", len(size)
	}
	conn, err := r.connect(ctx, r.tls(nil))
	if err != nil {
		return Finding{check, Failed, err.Error(), ""}
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil { // a proxy that waits for more is one that was not fooled
		return Finding{check, Failed, err.Error(), ""}
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n%s\r\n\r\n%sGET %s HTTP/1.1\r\nHost: %[2]s\r\nConnection: close\r\n\r\n",
		first, r.site.Host, length, coding, body, last)
	for reader := bufio.NewReader(conn); err == nil; {
		var resp *http.Response
		if resp, err = http.ReadResponse(reader, nil); err != nil {
			break
		}
		a, bad := r.readAny(resp)
		if bad == nil && a.Nonce == hidden && (a.Certificate == sum(r.claimed) || dropped && a.Refused != "") {
			return Finding{check, Hole, fmt.Sprintf("a request went past the proxy's rules behind %q", coding), framing}
		}
		if resp.Close {
			break
		}
	}
	return Finding{Check: check, Result: OK}
}

// oldTLS tries versions that RFC 8996 has withdrawn.
func (r *run) oldTLS(ctx context.Context) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		check := tls.VersionName(version)
		config := r.tls(nil)
		config.MinVersion, config.MaxVersion = version, version
		t := r.try(ctx, func() (answer, error) {
			conn, err := r.connect(ctx, config)
			if err != nil {
				return answer{}, err
			}
			return answer{}, conn.Close()
		})
		switch {
		case t.away:
			r.found(Finding{Check: check, Result: OK})
		case t.err != nil:
			r.found(Finding{check, Failed, t.err.Error(), ""})
		default:
			r.found(Finding{check, Hole, "the site speaks it", "nginx: ssl_protocols TLSv1.2 TLSv1.3; · Apache: SSLProtocol -all +TLSv1.2 +TLSv1.3 · HAProxy: ssl-min-ver TLSv1.2 · Caddy: protocols tls1.2 tls1.3"})
		}
	}
}

// resumption visits two times: a session that is taken up again is one in which
// nobody is asked for a card, and nobody's certificate is looked at.
func (r *run) resumption(ctx context.Context) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			check  string
			first  *tls.Certificate
			result Result
			detail string
		}{
			{"card after a visit without", nil, Hole, "the TLS session is taken up again and nobody is asked for the card: it will not work until the browser is restarted"},
			{"second visit with a card", &r.shown, Weak, "the TLS session is taken up again, and of a certificate that has ended meanwhile the proxy takes no notice; the server looks at it anew"},
		} {
			check := c.check + ", " + tls.VersionName(version)
			cache := tls.NewLRUClientSessionCache(1)
			resumed := false
			visit := func(certificate *tls.Certificate) tried {
				return r.try(ctx, func() (answer, error) {
					config := r.tls(certificate)
					config.MinVersion, config.MaxVersion, config.ClientSessionCache = version, version, cache
					conn, err := r.connect(ctx, config)
					if err != nil {
						return answer{}, err
					}
					defer conn.Close()
					resumed = conn.ConnectionState().DidResume
					nonce, path := r.question()
					if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, r.site.Host); err != nil {
						return answer{}, err
					}
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // brings the tickets of TLS 1.3, too
					if err != nil {
						return answer{}, err
					}
					return r.read(resp, nonce)
				})
			}
			first := visit(c.first)
			if first.err == nil {
				first = visit(&r.shown)
			}
			switch {
			case resumed:
				r.found(Finding{check, c.result, c.detail, tickets})
			case first.err != nil:
				r.found(Finding{check, Failed, first.err.Error(), ""})
			case first.away:
				r.found(Finding{check, OK, "the proxy itself turns an unknown certificate away", ""})
			default:
				r.found(Finding{Check: check, Result: OK})
			}
		}
	}
}

// otherName makes the handshake under another name than the site's, where a proxy
// might not ask for a card, and then asks for the site.
func (r *run) otherName(ctx context.Context) {
	const check = "handshake under another name than Host"
	card := func() *tls.Config { return r.tls(&r.shown) }
	request := "GET %s HTTP/1.1\r\nHost: " + r.site.Host + "\r\nConnection: close\r\n\r\n"
	asked := r.try(ctx, func() (answer, error) { return r.raw(ctx, card(), request) })
	config := card()
	config.ServerName = elsewhere
	config.InsecureSkipVerify = true // by the name that was asked for; VerifyConnection does it by the site's
	config.VerifyConnection = func(state tls.ConnectionState) error {
		intermediates := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			intermediates.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: r.site.Hostname(), Roots: r.Roots, Intermediates: intermediates})
		return err
	}
	t := r.try(ctx, func() (answer, error) { return r.raw(ctx, config, request) })
	switch {
	case asked.err != nil || t.err != nil:
		r.found(Finding{check, Failed, errors.Join(asked.err, t.err).Error(), ""})
	case !t.away && (asked.away || asked.Certificate != t.Certificate):
		r.found(Finding{check, Weak, "under another name nobody is asked for the card, and yet the site answers", "nginx: ssl_reject_handshake on; in a default_server · Apache: SSLStrictSNIVHostCheck on · HAProxy: strict-sni on the bind line · Caddy: strict_sni_host on"})
	default:
		r.found(Finding{Check: check, Result: OK})
	}
}

// otherHost asks under another name than the one of the handshake.
func (r *run) otherHost(ctx context.Context) {
	f := Finding{Check: "Host other than the name of the handshake", Result: OK}
	const rest = "\r\nConnection: close\r\n\r\n"
	for _, way := range []struct{ how, request string }{
		{"as Host", "GET %s HTTP/1.1\r\nHost: " + elsewhere + rest},
		{"as a second Host", "GET %s HTTP/1.1\r\nHost: " + r.site.Host + "\r\nHost: " + elsewhere + rest},
		{"in the request's first line", "GET https://" + elsewhere + "%s HTTP/1.1\r\nHost: " + r.site.Host + rest},
	} {
		t := r.try(ctx, func() (answer, error) { return r.raw(ctx, r.tls(nil), way.request) })
		switch {
		case t.err != nil:
			f = worst(f, Finding{f.Check, Failed, t.err.Error(), ""})
		case t.Host == elsewhere:
			f = worst(f, Finding{f.Check, Weak, "another name, " + way.how + ", reaches the server: it is served under any", names})
		}
	}
	r.found(f)
}

// foreign shows a certificate that nobody has issued.
func (r *run) foreign(ctx context.Context) {
	r.mustRefuse(ctx, Bad{Name: "certificate of nobody", Certificate: r.shown})
}

// refused shows certificates that must not be let in.
func (r *run) refused(ctx context.Context) {
	for _, bad := range r.Refused {
		r.mustRefuse(ctx, bad)
	}
}

func (r *run) mustRefuse(ctx context.Context, bad Bad) {
	t := r.try(ctx, func() (answer, error) { return r.ask(ctx, &bad.Certificate, nil) })
	switch {
	case t.err != nil:
		r.found(Finding{bad.Name, Failed, t.err.Error(), ""})
	case t.away:
		r.found(Finding{bad.Name, OK, "turned away by the proxy", ""})
	case t.Verdict == "":
		r.found(Finding{bad.Name, Hole, "the server accepts it", "look at [trust] in kortti-server.toml, with kortti-server why"})
	case t.Certificate != sum(bad.Certificate):
		r.found(Finding{bad.Name, OK, "the proxy does not hand it on", ""})
	case bad.Code != "" && t.Verdict != bad.Code:
		r.found(Finding{bad.Name, Weak, fmt.Sprintf("refused as %s, not as %s", t.Verdict, bad.Code), "look with kortti-server why"})
	default:
		r.found(Finding{bad.Name, OK, "refused: " + t.Verdict, ""})
	}
}

// plain asks without TLS, where there is no card and no secret is safe.
func (r *run) plain(ctx context.Context) {
	const check = "site without TLS"
	client := r.client(nil, false)
	a, err := r.askBy(ctx, client, "http://"+net.JoinHostPort(r.site.Hostname(), "80"), func(req *http.Request) { req.Host = r.site.Hostname() })
	slow, ok := errors.AsType[net.Error](err)
	switch {
	case err == nil && a.Nonce != "":
		r.found(Finding{check, Hole, "the server answers on port 80: whoever listens on the way takes sessions over", "nginx: listen 80; return 301 https://$host$request_uri; · Apache: Redirect permanent / https://NAME/ · HAProxy: http-request redirect scheme https · Caddy: no http:// site address"})
	case ok && slow.Timeout():
		r.found(Finding{check, OK, "port 80 does not answer", ""})
	default:
		r.found(Finding{Check: check, Result: OK})
	}
}

// metrics looks for what is the administrator's alone.
func (r *run) metrics(ctx context.Context) {
	const check = "public /metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.site.Host+"/metrics", nil)
	if err != nil {
		r.found(Finding{check, Failed, err.Error(), ""})
		return
	}
	r.report.Requests++
	resp, err := r.client(nil, false).Do(req)
	if err != nil {
		r.found(Finding{check, Failed, err.Error(), ""})
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what has come is enough
	if resp.StatusCode == http.StatusOK && bytes.Contains(body, []byte("kortti_server_")) {
		r.found(Finding{check, Hole, "anybody can read it", "do not proxy /metrics to listen.admin"})
		return
	}
	r.found(Finding{Check: check, Result: OK})
}

// backend tries to pass the proxy by.
func (r *run) backend(ctx context.Context) {
	const check = "server reachable past the proxy"
	if r.Backend == "" {
		r.found(Finding{check, NotTried, "name the server's own address with --backend", ""})
		return
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	if _, err := r.askBy(ctx, client, "http://"+r.Backend, nil); err == nil {
		r.found(Finding{check, Hole, r.Backend + " answers", `let the server listen on a Unix socket: http = "unix:/run/kortti/server.sock"`})
		return
	}
	r.found(Finding{Check: check, Result: OK})
}
