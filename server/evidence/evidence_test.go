package evidence

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newCertificate makes a self-signed certificate; what it says is of no
// interest here.
func newCertificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// nginxEscape is ngx_escape_uri(NGX_ESCAPE_URI_COMPONENT): everything but
// letters, digits and "-._~".
func nginxEscape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// proxied is a request on a connection from an address in a trusted network.
func proxied(t testing.TB, rd *Reader, address string, header http.Header) *http.Request {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header
	return r.WithContext(rd.ConnContext(context.Background(), fakeConn{address: address}))
}

type fakeConn struct {
	net.Conn
	address string
}

func (c fakeConn) RemoteAddr() net.Addr { return stringAddr(c.address) }

type stringAddr string

func (a stringAddr) Network() string { return "tcp" }
func (a stringAddr) String() string  { return string(a) }

func newReader(t testing.TB, from ...string) *Reader {
	t.Helper()
	rd, err := New(Config{Format: NginxEscapedPEM, From: from})
	if err != nil {
		t.Fatal(err)
	}
	return rd
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return "not an *Error: " + err.Error()
	}
	return ""
}

func TestConfig(t *testing.T) {
	fingerprint := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name string
		Config
		want string // part of the error, "" = none
	}{
		{"off", Config{}, ""},
		{"off by name", Config{Format: Off}, ""},
		{"off with proxies", Config{Format: Off, From: []string{"unix:uid=33"}}, "format is off"},
		{"nobody trusted", Config{Format: NginxEscapedPEM}, "no proxy is trusted"},
		{"empty entry", Config{Format: NginxEscapedPEM, From: []string{""}}, "is not understood"},
		{"unix", Config{Format: NginxEscapedPEM, From: []string{"unix:uid=33"}}, ""},
		{"unix by name", Config{Format: NginxEscapedPEM, From: []string{"unix:uid=www-data"}}, "numeric"},
		{"unix negative", Config{Format: NginxEscapedPEM, From: []string{"unix:uid=-1"}}, "numeric"},
		{"unix anybody", Config{Format: NginxEscapedPEM, From: []string{"unix:"}}, "is not understood"},
		{"mtls", Config{Format: NginxEscapedPEM, From: []string{"mtls:" + fingerprint}}, ""},
		{"mtls short", Config{Format: NginxEscapedPEM, From: []string{"mtls:abcd"}}, "64 hexadecimal"},
		{"network", Config{Format: NginxEscapedPEM, From: []string{"10.0.0.0/8"}}, ""},
		{"internet", Config{Format: NginxEscapedPEM, From: []string{"10.0.0.0/8", "0.0.0.0/0"}}, "of the Internet"},
		{"internet in halves", Config{Format: NginxEscapedPEM, From: []string{"0.0.0.0/1", "128.0.0.0/1"}}, "of the Internet"},
		{"internet 6", Config{Format: NginxEscapedPEM, From: []string{"::/0"}}, "of the Internet"},
		{"bare address", Config{Format: NginxEscapedPEM, From: []string{"10.0.0.1"}}, "is not understood"},
		{"mapped", Config{Format: NginxEscapedPEM, From: []string{"::ffff:10.0.0.0/104"}}, "IPv4 form"},
		{"RFC 9440", Config{Format: RFC9440, From: []string{"unix:uid=33"}}, ""},
		{"RFC 9440 by its name", Config{Format: RFC9440, Header: "client-cert", From: []string{"unix:uid=33"}}, ""},
		{"RFC 9440 by another name", Config{Format: RFC9440, Header: "X-Cert", From: []string{"unix:uid=33"}}, `has the header "Client-Cert" and no other`},
		{"Envoy", Config{Format: EnvoyXFCC, From: []string{"unix:uid=33"}}, ""},
		{"Traefik", Config{Format: Traefik, From: []string{"unix:uid=33"}}, ""},
		{"nobody trusted for RFC 9440", Config{Format: RFC9440}, "no proxy is trusted"},
		{"legacy", Config{Format: InsecureLegacyDN, From: []string{"unix:uid=33"}}, ""},
		{"legacy from a network", Config{Format: InsecureLegacyDN, From: []string{"unix:uid=33", "10.0.0.0/8"}}, "remove the networks"},
		{"unknown format", Config{Format: "nginx", From: []string{"unix:uid=33"}}, "unknown header format"},
		{"underscore name", Config{Format: NginxEscapedPEM, Header: "X_Cert", From: []string{"unix:uid=33"}}, "cannot carry"},
		{"taken name", Config{Format: NginxEscapedPEM, Header: "X-Real-IP", From: []string{"unix:uid=33"}}, "cannot carry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.Config)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if w := newReader(t, "127.0.0.0/8").Warnings(); len(w) != 1 || !strings.Contains(w[0], "loopback") {
		t.Errorf("warnings for loopback: %q", w)
	}
	if w := newReader(t, "10.0.0.0/8").Warnings(); len(w) != 0 {
		t.Errorf("warnings for an inner network: %q", w)
	}
}

func TestHeaders(t *testing.T) {
	der := newCertificate(t, "person").Certificate[0]
	good := nginxEscape(pemOf(der))
	const proxy, stranger = "10.1.2.3:4000", "192.0.2.1:4000"
	for _, c := range []struct {
		name, from string
		header     http.Header
		code       string
		present    bool
		address    string
	}{
		{"proxy with certificate", proxy, http.Header{"X-Ssl-Client-Cert": {good}, "X-Real-Ip": {"198.51.100.7"}}, "", true, "198.51.100.7"},
		{"plus signs kept", proxy, http.Header{"X-Ssl-Client-Cert": {strings.ReplaceAll(good, "%2B", "+")}}, "", true, "invalid IP"},
		{"mapped proxy", "[::ffff:10.1.2.3]:4000", http.Header{"X-Ssl-Client-Cert": {good}}, "", true, "invalid IP"},
		{"proxy without certificate", proxy, http.Header{"X-Real-Ip": {"2001:db8::1"}}, "", false, "2001:db8::1"},
		{"proxy with an empty header", proxy, http.Header{"X-Ssl-Client-Cert": {""}}, "", false, "invalid IP"},
		{"stranger with nothing", stranger, http.Header{}, "", false, "192.0.2.1"},
		{"stranger's address is not his to say", stranger, http.Header{"X-Real-Ip": {"10.1.2.3"}}, "", false, "192.0.2.1"},
		{"stranger", stranger, http.Header{"X-Ssl-Client-Cert": {good}}, CodeUntrustedPeer, false, ""},
		{"stranger, empty", stranger, http.Header{"X-Ssl-Client-Cert": {""}}, CodeUntrustedPeer, false, ""},
		{"stranger, underscores", stranger, http.Header{"X_ssl_client_cert": {good}}, CodeUntrustedPeer, false, ""},
		{"stranger, dots", stranger, http.Header{"X.SSL.Client.Cert": {good}}, CodeUntrustedPeer, false, ""},
		{"stranger, RFC 9440", stranger, http.Header{"Client-Cert": {":AA==:"}}, CodeUntrustedPeer, false, ""},
		{"stranger, Envoy", stranger, http.Header{"X-Forwarded-Client-Cert": {"x"}}, CodeUntrustedPeer, false, ""},
		{"stranger, Traefik", stranger, http.Header{"X-Forwarded-Tls-Client-Cert-Info": {"x"}}, CodeUntrustedPeer, false, ""},
		{"stranger, user", stranger, http.Header{"Remote_user": {"x"}}, CodeUntrustedPeer, false, ""},
		{"stranger, our own", stranger, http.Header{"X-Kortti-User": {"x"}}, CodeUntrustedPeer, false, ""},
		{"stranger, legacy", stranger, http.Header{"X-Ssl-User-Dn": {"x"}}, CodeUntrustedPeer, false, ""},
		{"twice", proxy, http.Header{"X-Ssl-Client-Cert": {good, good}}, CodeDuplicate, false, ""},
		{"alias", proxy, http.Header{"X-Ssl-Client-Cert": {good}, "X_ssl_client_cert": {good}}, CodeAlias, false, ""},
		{"alias alone", proxy, http.Header{"X-Ssl-Client_cert": {good}}, CodeAlias, false, ""},
		{"not canonical", proxy, http.Header{"X-SSL-Client-Cert": {good}}, CodeAlias, false, ""},
		{"second format", proxy, http.Header{"X-Ssl-Client-Cert": {good}, "Client-Cert": {":AA==:"}}, CodeSecondFormat, false, ""},
		{"second format alone", proxy, http.Header{"Remote-User": {"x"}}, CodeSecondFormat, false, ""},
		{"dropped on the way", proxy, http.Header{"Connection": {"close, X-SSL-Client-Cert"}}, CodeHopByHop, false, ""},
		{"dropped, alias", stranger, http.Header{"Connection": {"keep-alive", "x_ssl_client_cert"}}, CodeHopByHop, false, ""},
		{"address dropped", proxy, http.Header{"Connection": {"x-real-ip"}}, CodeHopByHop, false, ""},
		{"harmless connection", proxy, http.Header{"Connection": {"keep-alive, Upgrade"}}, "", false, "invalid IP"},
		{"two addresses", proxy, http.Header{"X-Real-Ip": {"192.0.2.1", "192.0.2.2"}}, CodeDuplicate, false, ""},
		{"address alias", proxy, http.Header{"X-Real-Ip": {"192.0.2.1"}, "X_real_ip": {"192.0.2.2"}}, CodeAlias, false, ""},
		{"no address", proxy, http.Header{"X-Real-Ip": {"unknown"}}, CodeBadValue, false, ""},
		{"Apache's null", proxy, http.Header{"X-Ssl-Client-Cert": {"(null)"}}, CodeBadValue, false, ""},
		{"Caddy's placeholder", proxy, http.Header{"X-Ssl-Client-Cert": {"{http.request.tls.client.certificate_pem}"}}, CodeBadValue, false, ""},
		{"too long", proxy, http.Header{"X-Ssl-Client-Cert": {good + strings.Repeat("A", maxHeader)}}, CodeOversize, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rd := newReader(t, "10.0.0.0/8")
			ev, present, err := rd.Read(proxied(t, rd, c.from, c.header))
			if codeOf(err) != c.code || present != c.present {
				t.Fatalf("present %v, error %v; want %v, %q", present, err, c.present, c.code)
			}
			if err == nil && ev.Address.String() != c.address {
				t.Errorf("address %v, want %s", ev.Address, c.address)
			}
			if present && (string(ev.Leaf) != string(der) || ev.Source != NginxEscapedPEM || ev.Chain != nil) {
				t.Errorf("evidence from %q with %d bytes", ev.Source, len(ev.Leaf))
			}
			if err != nil && strings.Contains(err.Error(), good[:40]) {
				t.Error("the error holds the value")
			}
		})
	}
}

func TestTrailersAreRefused(t *testing.T) {
	rd := newReader(t, "10.0.0.0/8")
	r := proxied(t, rd, "10.1.2.3:1", http.Header{})
	r.Trailer = http.Header{"X-Ssl-Client-Cert": nil}
	if _, _, err := rd.Read(r); codeOf(err) != CodeSecondFormat {
		t.Errorf("error %v", err)
	}
}

// RemoteAddr is writable by middleware that believes X-Forwarded-For; only what
// ConnContext has seen counts.
func TestRemoteAddrAloneIsNotTrusted(t *testing.T) {
	rd := newReader(t, "10.0.0.0/8")
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.1.2.3:4000"
	r.Header.Set(DefaultHeader, "x")
	ev, _, err := rd.Read(r)
	if codeOf(err) != CodeUntrustedPeer || ev.Address.String() != "10.1.2.3" {
		t.Errorf("address %v, error %v", ev.Address, err)
	}
}

func TestOffRefusesEveryIdentityHeader(t *testing.T) {
	rd, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		DefaultHeader, "Client-Cert", "Remote-User", "X-Auth-User", "X-Auth-Request-Email", "X-Forwarded-Email",
		"X-Client-Dn", "X-Tls-Client-Cert", "Ssl-Cert", "X-ARR-ClientCert", "X-Amzn-Mtls-Clientcert", "Cf-Client-Cert-Sha256",
	} {
		r := proxied(t, rd, "10.1.2.3:1", http.Header{})
		r.Header.Set(name, "x")
		if _, _, err := rd.Read(r); codeOf(err) != CodeUntrustedPeer {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestStrip(t *testing.T) {
	rd, err := New(Config{Format: NginxEscapedPEM, Header: "X-Card", From: []string{"10.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	for _, name := range []string{"X-Card", "x_card", "Client-Cert", "Client_cert_chain", "X-SSL-Client-Verify", "X.Kortti.User", "Remote_User", "X-Forwarded-Tls-Client-Cert"} {
		h[name] = []string{"x"}
	}
	h.Set("Accept", "text/html")
	h.Set("Cookie", "a=b")
	rd.Strip(h)
	if len(h) != 2 {
		t.Errorf("left: %v", h)
	}
}

func TestEscapedPEMIsStrict(t *testing.T) {
	der := newCertificate(t, "person").Certificate[0]
	text := pemOf(der)
	block := strings.SplitN(text, "\n", 2)
	for name, value := range map[string]string{
		"two":            nginxEscape(text + text),
		"before":         nginxEscape("x\n" + text),
		"blank before":   nginxEscape("\n" + text),
		"behind":         nginxEscape(text + "x"),
		"key":            nginxEscape("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"other type":     nginxEscape(strings.ReplaceAll(text, "CERTIFICATE", "X509 CRL")),
		"PEM headers":    nginxEscape(block[0] + "\nProc-Type: 4\n\n" + block[1]),
		"cut":            nginxEscape(text[:len(text)-10]),
		"empty block":    nginxEscape("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
		"bad escape":     nginxEscape(text) + "%zz",
		"blanks for +":   strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(text), "%2B", " "), "%0A", "\n") + "x",
		"base64 DER":     "MIIB",
		"end of another": nginxEscape(strings.Replace(text, "-----END CERTIFICATE", "-----END X509 CRL", 1)),
	} {
		if _, err := parseEscapedPEM(value); codeOf(err) != CodeBadValue {
			t.Errorf("%s: error %v", name, err)
		}
	}
	got, err := parseEscapedPEM(nginxEscape(strings.TrimSuffix(text, "\n")))
	if err != nil || string(got) != string(der) {
		t.Errorf("without the last line end: %v", err)
	}
}

// serve runs a real server that answers with what Read says.
func serve(t *testing.T, rd *Reader, l net.Listener, config *tls.Config) {
	t.Helper()
	server := &http.Server{ConnContext: rd.ConnContext, TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ev, present, err := rd.Read(r)
		if err != nil {
			http.Error(w, codeOf(err), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%v %s %d %v", present, ev.Source, len(ev.Chain), ev.Address)
	})}
	done := make(chan error, 1)
	go func() {
		if config != nil {
			done <- server.ServeTLS(l, "", "")
			return
		}
		done <- server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
}

func get(t *testing.T, transport *http.Transport, address string, header http.Header) (int, string) {
	t.Helper()
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest("GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func TestUnixPeer(t *testing.T) {
	header := http.Header{"X-Ssl-Client-Cert": {nginxEscape(pemOf(newCertificate(t, "person").Certificate[0]))}, "X-Real-Ip": {"192.0.2.9"}}
	for _, c := range []struct {
		uid  int
		code int
		body string
	}{
		{os.Getuid(), 200, "true nginx-escaped-pem 0 192.0.2.9"},
		{os.Getuid() + 1, 400, CodeUntrustedPeer},
	} {
		rd := newReader(t, fmt.Sprintf("unix:uid=%d", c.uid))
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, rd, l, nil)
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		code, body := get(t, transport, "http://server/", header)
		if code != c.code || body != c.body {
			t.Errorf("uid %d: %d %q, want %d %q", c.uid, code, body, c.code, c.body)
		}
	}
}

// One TLS listener serves people with cards and a proxy with a pinned
// certificate; neither is taken for the other, over HTTP/1.1 and HTTP/2.
func TestTLSPeers(t *testing.T) {
	server, proxy, person, hint := newCertificate(t, "server"), newCertificate(t, "proxy"), newCertificate(t, "person"), newCertificate(t, "ca")
	person.Certificate = append(person.Certificate, hint.Certificate[0])
	pin := sha256.Sum256(proxy.Certificate[0])
	rd := newReader(t, "mtls:"+hex.EncodeToString(pin[:]))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, rd, l, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequestClientCert})
	header := http.Header{"X-Ssl-Client-Cert": {nginxEscape(pemOf(person.Certificate[0]))}}
	for _, c := range []struct {
		name   string
		client []tls.Certificate
		header http.Header
		code   int
		body   string
	}{
		{"nobody", nil, nil, 200, "false  0 127.0.0.1"},
		{"nobody with a header", nil, header, 400, CodeUntrustedPeer},
		{"person", []tls.Certificate{person}, nil, 200, "true tls 1 127.0.0.1"},
		{"person with a header", []tls.Certificate{person}, header, 400, CodeUntrustedPeer},
		{"proxy", []tls.Certificate{proxy}, header, 200, "true nginx-escaped-pem 0 invalid IP"},
		{"proxy for nobody", []tls.Certificate{proxy}, nil, 200, "false  0 invalid IP"},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/http2=%v", c.name, http2), func(t *testing.T) {
				transport := &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{
					InsecureSkipVerify: true, // the server's certificate is not what is tested
					Certificates:       c.client,
				}}
				code, body := get(t, transport, "https://"+l.Addr().String()+"/", c.header)
				if code != c.code || body != c.body {
					t.Errorf("%d %q, want %d %q", code, body, c.code, c.body)
				}
			})
		}
	}
}

func TestHandshakeMustBeComplete(t *testing.T) {
	rd := newReader(t, "10.0.0.0/8")
	c, err := x509.ParseCertificate(newCertificate(t, "person").Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
	if _, _, err := rd.Read(r); codeOf(err) != CodeHandshake {
		t.Errorf("error %v", err)
	}
}
