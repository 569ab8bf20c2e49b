package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/verify"
)

// Result of a check.
type Result string

// The results, from good to bad.
const (
	OK       Result = "ok"
	NotTried Result = "not tried"
	// Weak: the server holds, and the proxy does not do its part.
	Weak Result = "weak"
	// Hole: somebody can get in, or keep others out, who should not.
	Hole Result = "HOLE"
)

// Finding is what came of one check.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Detail string `json:"detail,omitempty"`
	Mend   string `json:"mend,omitempty"` // the line to write, for each proxy
}

// Config says what to attack, and with what.
type Config struct {
	URL    string // https://host[:port] of the site, through its proxy
	Secret Secret
	Roots  *x509.CertPool // of the site's own certificate; nil = the system's
	// Dial connects in place of DNS; optional.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Backend is the address of the server behind the proxy, which should not be
	// reachable from here; "" = not tried.
	Backend string
	// Must be refused, with the code that is expected; for staging, where the
	// server trusts a test CA.
	Refused []Bad
}

// Bad is a certificate that must not be let in.
type Bad struct {
	Name        string // "revoked"
	Code        string // of package verify
	Certificate tls.Certificate
}

// ErrNotYours says that the target has not proved to know the secret. Nothing but
// one harmless question was sent.
var ErrNotYours = errors.New("the target does not answer as your own server would; set [probe] secret to the same file there, reload it, and see that the proxy hands " + Path + " on")

// run is one run of the probe.
type run struct {
	Config
	site     *url.URL
	forged   tls.Certificate
	findings []Finding
}

// Run attacks. An error means that nothing can be said; what was found is in the
// findings.
func Run(ctx context.Context, c Config) ([]Finding, error) {
	site, err := url.Parse(c.URL)
	if err != nil || site.Scheme != "https" || site.Host == "" {
		return nil, fmt.Errorf("%q is not the https URL of a site", c.URL)
	}
	r := &run{Config: c, site: site}
	if r.Dial == nil {
		r.Dial = new(net.Dialer).DialContext
	}
	if r.forged, err = forge(); err != nil {
		return nil, err
	}
	if _, err := r.ask(ctx, r.client(nil, false), nil); err != nil {
		return nil, fmt.Errorf("%w (%v)", ErrNotYours, err)
	}
	r.headers(ctx)
	r.address(ctx)
	r.oldTLS(ctx)
	r.resumption(ctx)
	r.foreign(ctx)
	r.refused(ctx)
	r.otherHost(ctx)
	r.metrics(ctx)
	r.backend(ctx)
	return r.findings, nil
}

func (r *run) found(check string, result Result, detail, mend string) {
	r.findings = append(r.findings, Finding{check, result, detail, mend})
}

// forge makes a certificate that nobody has issued, for nobody.
func forge() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Kortti probe", SerialNumber: "99900000"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// client is a browser that shows a certificate, or none.
func (r *run) client(certificate *tls.Certificate, http2 bool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: r.Dial, ForceAttemptHTTP2: http2, DisableKeepAlives: true,
			TLSClientConfig: r.tls(certificate),
		},
		Timeout:       15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (r *run) tls(certificate *tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: r.Roots, ServerName: r.site.Hostname(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certificate == nil {
				return new(tls.Certificate), nil
			}
			return certificate, nil
		},
	}
}

// question is the path with a proof that we know the secret.
func (r *run) question() (nonce, path string) {
	raw := make([]byte, nonceSize)
	rand.Read(raw) // never fails (crypto/rand)
	nonce = hex.EncodeToString(raw)
	return nonce, Path + "?nonce=" + nonce + "&mac=" + r.Secret.mac("asks", nonce)
}

// ask sends a request, changed by the attack, and gives what has reached the
// server.
func (r *run) ask(ctx context.Context, client *http.Client, attack func(*http.Request)) (answer, error) {
	nonce, path := r.question()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.site.Host+path, nil)
	if err != nil {
		return answer{}, err
	}
	if attack != nil {
		attack(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	return r.read(resp, nonce)
}

// errTurnedAway is an answer that is not our server's: the proxy's own.
type errTurnedAway int

func (e errTurnedAway) Error() string { return fmt.Sprintf("answered with status %d", int(e)) }

func (r *run) read(resp *http.Response, nonce string) (a answer, err error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, err
	}
	if !hmac.Equal([]byte(resp.Header.Get(macHeader)), []byte(r.Secret.mac("answers", string(body)))) {
		return answer{}, errTurnedAway(resp.StatusCode)
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Nonce != nonce {
		return answer{}, errors.New("an old answer was sent again")
	}
	return a, nil
}

// headers claims the forged certificate in each header that some proxy writes.
func (r *run) headers(ctx context.Context) {
	sum := fmt.Sprintf("%x", sha256.Sum256(r.forged.Certificate[0]))
	for _, name := range evidence.IdentityHeaders() {
		check := "forged header " + name
		worst := Finding{Check: check, Result: OK}
		for _, spelling := range []string{name, strings.ReplaceAll(name, "-", "_"), strings.ToLower(name), strings.ToUpper(name)} {
			for _, value := range r.claims() {
				for _, http2 := range []bool{false, true} {
					a, err := r.ask(ctx, r.client(nil, http2), func(req *http.Request) { req.Header[spelling] = []string{value} })
					if f := r.judge(check, spelling, sum, a, err); rank(f.Result) > rank(worst.Result) {
						worst = f
					}
				}
			}
			a, err := r.askTwice(ctx, spelling)
			if f := r.judge(check, spelling, sum, a, err); rank(f.Result) > rank(worst.Result) {
				worst = f
			}
		}
		r.findings = append(r.findings, worst)
	}
}

func rank(result Result) int {
	return map[Result]int{OK: 0, NotTried: 1, Weak: 2, Hole: 3}[result]
}

// claims are the ways in which a header can name the forged certificate.
func (r *run) claims() []string {
	der := r.forged.Certificate[0]
	b64 := base64.StdEncoding.EncodeToString(der)
	return []string{
		url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		":" + b64 + ":",
		fmt.Sprintf("Hash=%x;Cert=%q", sha256.Sum256(der), url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))),
		b64,
		"/C=FI/serialNumber=99900000",
		"SUCCESS",
	}
}

// judge says what it means that a claim has come so far.
func (r *run) judge(check, sent, sum string, a answer, err error) Finding {
	mend := fmt.Sprintf("nginx: proxy_set_header %[1]s \"\"; · Apache: RequestHeader unset %[1]s · HAProxy: http-request del-header %[1]s · Caddy: request_header -%[1]s", sent)
	_, turnedAway := errors.AsType[errTurnedAway](err)
	switch {
	case err != nil && !turnedAway:
		return Finding{check, NotTried, err.Error(), ""}
	case err == nil && (a.Certificate == sum || a.Verdict == "" || a.Source != ""):
		return Finding{check, Hole, fmt.Sprintf("sent as %s by a client without a certificate, it was believed", sent), mend}
	case err == nil && a.Refused != "":
		return Finding{check, Weak, fmt.Sprintf("sent as %s, the proxy hands it on; the server refused it (%s), and so whoever sends it keeps only himself out", sent, a.Refused), mend}
	}
	return Finding{Check: check, Result: OK} // dropped, or turned away by the proxy
}

// askTwice sends a header two times, which http.Client does too, over a connection
// of its own, so that no library puts it right.
func (r *run) askTwice(ctx context.Context, name string) (answer, error) {
	nonce, path := r.question()
	claim := r.claims()[1]
	return r.raw(ctx, nonce, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s: %s\r\n%[3]s: %[4]s\r\n\r\n", path, r.site.Host, name, claim))
}

func (r *run) raw(ctx context.Context, nonce, request string) (answer, error) {
	conn, err := r.connect(ctx, r.tls(nil))
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{}, err
	}
	return r.read(resp, nonce)
}

// connect makes a TLS connection, for HTTP/1.1.
func (r *run) connect(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	address := r.site.Host
	if r.site.Port() == "" {
		address = net.JoinHostPort(address, "443")
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	raw, err := r.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// address claims to come from elsewhere.
func (r *run) address(ctx context.Context) {
	const elsewhere = "192.0.2.66" // RFC 5737
	for _, name := range []string{evidence.AddressHeader, "X-Forwarded-For", "Forwarded"} {
		value := elsewhere
		if name == "Forwarded" {
			value = "for=" + elsewhere
		}
		check := "forged address in " + name
		a, err := r.ask(ctx, r.client(nil, false), func(req *http.Request) { req.Header.Set(name, value) })
		switch {
		case err != nil:
			r.found(check, NotTried, err.Error(), "")
		case a.Address == elsewhere:
			r.found(check, Hole, "the server takes it for the client's address: limits and the audit log are led astray",
				"nginx: proxy_set_header X-Real-IP $remote_addr; · Apache: RequestHeader set X-Real-IP expr=%{REMOTE_ADDR} · HAProxy: http-request set-header X-Real-IP %[src] · Caddy: header_up X-Real-IP {remote_host}")
		case a.Refused != "":
			r.found(check, Weak, "the proxy hands it on beside its own; the server refused the request ("+a.Refused+")", "make the proxy replace "+name)
		default:
			r.found(check, OK, "", "")
		}
	}
}

// oldTLS tries versions that RFC 8996 has withdrawn.
func (r *run) oldTLS(ctx context.Context) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		check := tls.VersionName(version)
		config := r.tls(nil)
		config.MinVersion, config.MaxVersion = version, version
		conn, err := r.connect(ctx, config)
		if err != nil {
			r.found(check, OK, "", "")
			continue
		}
		conn.Close()
		r.found(check, Hole, "the site speaks it", "nginx: ssl_protocols TLSv1.2 TLSv1.3; · Apache: SSLProtocol -all +TLSv1.2 +TLSv1.3 · HAProxy: ssl-min-ver TLSv1.2 · Caddy: protocols tls1.2 tls1.3")
	}
}

// resumption visits without a certificate and then with one. A session of the
// first visit that is taken up again is one in which nobody is asked for a card.
func (r *run) resumption(ctx context.Context) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		check := "card after a visit without, " + tls.VersionName(version)
		cache := tls.NewLRUClientSessionCache(1)
		visit := func(certificate *tls.Certificate) (resumed bool, err error) {
			config := r.tls(certificate)
			config.MinVersion, config.MaxVersion, config.ClientSessionCache = version, version, cache
			conn, err := r.connect(ctx, config)
			if err != nil {
				return false, err
			}
			defer conn.Close()
			nonce, path := r.question()
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, r.site.Host); err != nil {
				return false, err
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // brings the tickets of TLS 1.3, too
			if err != nil {
				return false, err
			}
			_, err = r.read(resp, nonce)
			return conn.ConnectionState().DidResume, err
		}
		if _, err := visit(nil); err != nil {
			r.found(check, NotTried, err.Error(), "")
			continue
		}
		resumed, err := visit(&r.forged)
		switch {
		case resumed:
			r.found(check, Hole, "the TLS session is taken up again and nobody is asked for the card: it will not work until the browser is restarted",
				"nginx: ssl_session_tickets off; ssl_session_cache off; · Apache: SSLSessionTickets off, SSLSessionCache none · HAProxy: no-tls-tickets, tune.ssl.cachesize 0 · Caddy: tls { … } has no switch: use a global session_tickets { disabled } by its JSON configuration")
		case err != nil:
			r.found(check, OK, "the proxy itself turns an unknown certificate away", "")
		default:
			r.found(check, OK, "", "")
		}
	}
}

// foreign shows a certificate that nobody has issued.
func (r *run) foreign(ctx context.Context) {
	r.mustRefuse(ctx, Bad{Name: "certificate of nobody", Certificate: r.forged})
}

// refused shows certificates that must not be let in.
func (r *run) refused(ctx context.Context) {
	for _, bad := range r.Refused {
		r.mustRefuse(ctx, bad)
	}
}

func (r *run) mustRefuse(ctx context.Context, bad Bad) {
	a, err := r.ask(ctx, r.client(&bad.Certificate, false), nil)
	sum := fmt.Sprintf("%x", sha256.Sum256(bad.Certificate.Certificate[0]))
	switch {
	case err != nil:
		r.found(bad.Name, OK, "turned away before the server: "+err.Error(), "")
	case a.Verdict == "":
		r.found(bad.Name, Hole, "the server accepts it", "look at [trust] in kortti-server.toml, with kortti-server why")
	case a.Certificate != sum:
		r.found(bad.Name, OK, "the proxy does not hand it on", "")
	case bad.Code != "" && a.Verdict != bad.Code:
		r.found(bad.Name, Weak, fmt.Sprintf("refused as %s, not as %s", a.Verdict, bad.Code), "look with kortti-server why")
	default:
		r.found(bad.Name, OK, "refused: "+a.Verdict, "")
	}
}

// otherHost asks under another name than the one of the handshake.
func (r *run) otherHost(ctx context.Context) {
	const check = "Host other than the name of the handshake"
	const elsewhere = "kortti-probe.invalid"
	a, err := r.ask(ctx, r.client(nil, false), func(req *http.Request) { req.Host = elsewhere })
	if err == nil && a.Host == elsewhere {
		r.found(check, Weak, "the server is reached under any name", "nginx: a default_server that returns 421 · Apache: UseCanonicalName On and a first VirtualHost that refuses · HAProxy: http-request deny unless { hdr(host) -i NAME } · Caddy: name the site in its address")
		return
	}
	r.found(check, OK, "", "")
}

// metrics looks for what is the administrator's alone.
func (r *run) metrics(ctx context.Context) {
	for _, path := range []string{"/metrics", "/admin"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.site.Host+path, nil)
		if err != nil {
			r.found("public "+path, NotTried, err.Error(), "")
			continue
		}
		resp, err := r.client(nil, false).Do(req)
		if err != nil {
			r.found("public "+path, NotTried, err.Error(), "")
			continue
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what has come is enough
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK && bytes.Contains(body, []byte("kortti_server_")) {
			r.found("public "+path, Hole, "anybody can read it", "do not proxy "+path+" to listen.admin")
			continue
		}
		r.found("public "+path, OK, "", "")
	}
}

// backend tries to pass the proxy by.
func (r *run) backend(ctx context.Context) {
	const check = "server reachable past the proxy"
	if r.Backend == "" {
		r.found(check, NotTried, "name the server's own address with --backend", "")
		return
	}
	nonce, path := r.question()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Backend+path, nil)
	if err != nil {
		r.found(check, NotTried, err.Error(), "")
		return
	}
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
	if err == nil {
		_, err = r.read(resp, nonce)
	}
	if err == nil {
		r.found(check, Hole, r.Backend+" answers", `let the server listen on a Unix socket: http = "unix:/run/kortti/server.sock"`)
		return
	}
	r.found(check, OK, "", "")
}

// Codes are the codes that certificates for staging are expected to be refused
// with, by their names.
func Codes() map[string]string {
	return map[string]string{"revoked": verify.CodeRevoked, "expired": verify.CodeExpired, "signature": verify.CodeWrongPurpose}
}
