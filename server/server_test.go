package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server"
	"github.com/kortti-id/kortti/server/audit"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/users"
)

const satu = "99912345V"

// testPKI is made once, with its OCSP responder on a loopback port, and stopped
// by TestMain.
var testPKI = sync.OnceValues(func() (*fineidtest.PKI, error) { return fineidtest.New(fineidtest.Options{}) })

func TestMain(m *testing.M) {
	pki, err := testPKI()
	if err != nil {
		panic(err)
	}
	stop, err := pki.Serve()
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if err := stop(); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// site is a running server with an application behind it.
type site struct {
	t     *testing.T
	dir   string
	pki   *fineidtest.PKI
	srv   *server.Server
	ahead atomic.Int64 // how far the server's clock is ahead, in nanoseconds
	seen  atomic.Pointer[http.Request]
	log   lockedBuffer
	stop  func()        // ends the serving
	held  chan struct{} // the application is at /hold
	leave chan struct{} // lets it go on
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newSite writes what a configuration needs into a directory and starts a server
// by it. The listen section comes from the test.
func newSite(t *testing.T, listen string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), held: make(chan struct{}), leave: make(chan struct{})}
	s.pki, _ = testPKI()
	s.write("roots.pem", s.pki.RootsPEM())
	s.write("issuing.pem", s.pki.IssuingPEM())
	s.ownCertificate()
	responder, err := url.Parse(s.pki.BaseURL())
	s.must(err)
	text := listen + `
[trust]
roots = ["roots.pem"]
issuing = ["issuing.pem"]
[[trust.revocation]]
issuer = "*"
hosts = ["` + responder.Host + `"]
max_age = "1m"
[session]
sessionless = ["/api/"]
[audit]
dir = "audit"
instance = "test"
`
	for _, i := range s.pki.Issuers() {
		text += fmt.Sprintf("[[trust.issuer]]\ncn = %q\norganization = %q\nclass = %q\nfamily = %q\n", i.CN, i.Org, i.Class, i.Family)
	}
	config, err := server.Load(s.write("kortti-server.toml", []byte(text)))
	s.must(err)
	for _, problem := range server.Check(config) {
		if !problem.Warning {
			t.Fatal(problem)
		}
	}
	s.start(config)
	return s
}

// ownCertificate writes a new certificate for the server itself.
func (s *site) ownCertificate() {
	s.t.Helper()
	certificate, err := s.pki.ServerCert("kortti.example", "127.0.0.1")
	s.must(err)
	s.write("server.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}))
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	s.must(err)
	s.write("server-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

const native = `[listen]
https = "127.0.0.1:0"
admin = "127.0.0.1:0"
cert = "server.pem"
key = "server-key.pem"
`

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) write(name string, content []byte) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, content, 0o600))
	return path
}

func (s *site) start(config server.Config) {
	s.t.Helper()
	var err error
	s.srv, err = server.New(s.t.Context(), config, server.Options{
		Log: slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) },
	})
	s.must(err)
	s.must(s.srv.Listen())
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	ended := make(chan error)
	go func() { ended <- s.srv.ListenAndServe(ctx, http.HandlerFunc(s.hello)) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Errorf("serving ended: %v", err)
		}
		if err := s.srv.Close(); err != nil {
			s.t.Error(err)
		}
		// However much is logged, nobody is named.
		if log := strings.ToUpper(s.log.String()); strings.Contains(log, satu) || strings.Contains(log, "MAIJA") || strings.Contains(log, "MÄKELÄ") {
			s.t.Errorf("the log names a person:\n%s", log)
		}
	})
}

// hello is the application.
func (s *site) hello(w http.ResponseWriter, r *http.Request) {
	s.seen.Store(r)
	switch r.URL.Path {
	case "/hold":
		s.held <- struct{}{}
		<-s.leave
	case "/panic":
		panic("the application's mistake")
	}
	user, _ := server.UserFrom(r.Context())
	fmt.Fprintf(w, "hello %s", user.Name())
}

func (s *site) approve(who string) {
	s.t.Helper()
	db, err := database.OpenExisting(s.t.Context(), "sqlite:"+filepath.Join(s.dir, "kortti.db"))
	s.must(err)
	defer db.Close()
	_, err = users.New(db, time.Now).Approve(s.t.Context(), who)
	s.must(err)
}

func (s *site) issue(ca *fineidtest.CA) *fineidtest.Issued {
	s.t.Helper()
	issued, err := s.pki.Issue(ca, fineidtest.Leaf{GivenName: "MAIJA", Surname: "MÄKELÄ", SerialNumber: satu})
	s.must(err)
	return issued
}

// browser is an HTTP client with cookies. When card holds a certificate it is
// shown to a server that asks.
type browser struct {
	*http.Client
	t    *testing.T
	base string
	card atomic.Pointer[tls.Certificate]
}

// newBrowser makes a client that keeps TLS tickets, if it is given any.
func (s *site) newBrowser(version uint16, http2 bool) *browser {
	s.t.Helper()
	b := &browser{t: s.t, base: "https://" + s.srv.Addr().String()}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.pki.WebRootsPEM())
	transport := &http.Transport{
		ForceAttemptHTTP2: http2,
		TLSClientConfig: &tls.Config{
			RootCAs: roots, MinVersion: version, MaxVersion: version,
			ClientSessionCache: tls.NewLRUClientSessionCache(4),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if card := b.card.Load(); card != nil {
					return card, nil
				}
				return new(tls.Certificate), nil
			},
		},
	}
	jar, err := cookiejar.New(nil)
	s.must(err)
	b.Client = &http.Client{Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.t.Cleanup(b.CloseIdleConnections)
	return b
}

func (b *browser) insert(card *fineidtest.Issued) {
	certificate := card.TLS()
	b.card.Store(&certificate)
}

// do sends a request and returns the answer with its body.
func (b *browser) do(method, path string, headers ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		req.Header[name] = []string{value}
	}
	resp, err := b.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(body)
}

func (b *browser) expect(method, path string, status int, want string, headers ...string) *http.Response {
	b.t.Helper()
	resp, body := b.do(method, path, headers...)
	if resp.StatusCode != status || !strings.Contains(resp.Header.Get("Location")+body, want) {
		b.t.Errorf("%s %s: %d %q %s; want %d with %q", method, path, resp.StatusCode, resp.Header.Get("Location"), body, status, want)
	}
	return resp
}

func (b *browser) whoami() (answer door.Whoami) {
	b.t.Helper()
	_, body := b.do("GET", "/whoami")
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		b.t.Fatal(err)
	}
	return answer
}

// The way from the first visit to a revoked card, over every protocol.
func TestNativeTLS(t *testing.T) {
	for _, test := range []struct {
		name    string
		version uint16
		http2   bool
		rsa     bool
	}{
		{"TLS 1.2, HTTP/1.1, RSA", tls.VersionTLS12, false, true},
		{"TLS 1.2, HTTP/2, P-384", tls.VersionTLS12, true, false},
		{"TLS 1.3, HTTP/1.1, P-384", tls.VersionTLS13, false, false},
		{"TLS 1.3, HTTP/2, RSA", tls.VersionTLS13, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, native)
			ca := s.pki.CitizenEC
			if test.rsa {
				ca = s.pki.CitizenRSA
			}
			card := s.issue(ca)
			b := s.newBrowser(test.version, test.http2)
			b.insert(card)

			resp := b.expect("GET", "/", http.StatusForbidden, `"unknown-user"`)
			if resp.TLS.Version != test.version || (resp.ProtoMajor == 2) != test.http2 {
				t.Errorf("spoke %s over %s", resp.Proto, tls.VersionName(resp.TLS.Version))
			}
			b.expect("POST", "/login", http.StatusSeeOther, "/inactive")
			b.expect("GET", "/inactive", http.StatusForbidden, "inactive")
			s.approve(satu)
			b.expect("POST", "/login?next=/docs", http.StatusSeeOther, "/docs")
			b.expect("GET", "/docs", http.StatusOK, "hello Maija Mäkelä")
			if who := b.whoami(); !who.Authenticated || who.User.Username != satu || who.Session == nil {
				t.Errorf("whoami %+v", who)
			}
			b.expect("GET", "/docs", http.StatusBadRequest, "header", "X-SSL-Client-Cert: x")

			s.must(s.pki.Revoke(card.Certificate, time.Now(), 1))
			s.ahead.Store(int64(2 * time.Minute)) // past the life of the good answer
			b.expect("GET", "/docs", http.StatusForbidden, `"revoked"`)
			if who := b.whoami(); who.Authenticated || who.Reason != "revoked" {
				t.Errorf("whoami %+v", who)
			}
			s.checkAudit()
			s.checkMetrics()
		})
	}
}

// The audit log tells what was decided without saying who people are.
func (s *site) checkAudit() {
	s.t.Helper()
	content := s.audited()
	var got []string
	for line := range strings.Lines(content) {
		var record door.Record
		s.must(json.Unmarshal([]byte(line), &record))
		got = append(got, string(record.Event)+" "+record.Code)
		if record.Event == door.EventLogin && (record.Address != "127.0.0.1" || len(record.Report) == 0) {
			s.t.Errorf("record %s", line)
		}
	}
	want := "request unknown-user, login inactive, request inactive, login ok, evidence untrusted-peer, request revoked, session-ended revoked, request revoked"
	if strings.Join(got, ", ") != want {
		s.t.Errorf("audited %q, want %q", got, want)
	}
	if strings.Contains(content, satu) || strings.Contains(strings.ToUpper(content), "MAIJA") {
		s.t.Errorf("the audit log names the person:\n%s", content)
	}
}

// audited are the decisions on record, one a line, from a chain that fits together.
func (s *site) audited() string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "audit")
	if r, err := audit.Verify(dir, nil); err != nil || r.Problem != nil {
		s.t.Errorf("%+v, %v", r, err)
	}
	var lines strings.Builder
	s.must(audit.Read(dir, func(e audit.Entry) error {
		lines.Write(append(e.Record, '\n'))
		return nil
	}))
	return lines.String()
}

func (s *site) checkMetrics() {
	s.t.Helper()
	s.expectMetric(`kortti_server_decisions_total{event="login",code="ok"} 1`)
	s.expectMetric(`kortti_server_decisions_total{event="request",code="revoked"} 2`)
	s.expectMetric(`kortti_server_revocation_total{result="good"} 1`)
}

func (s *site) metrics() string {
	s.t.Helper()
	resp, err := http.Get("http://" + s.srv.AdminAddr().String() + "/metrics")
	s.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s.must(err)
	return string(body)
}

func (s *site) expectMetric(line string) {
	s.t.Helper()
	if body := s.metrics(); !strings.Contains(body, line+"\n") {
		s.t.Errorf("no %s in\n%s", line, body)
	}
}

// waitForMetric waits for what a goroutine of the server does by itself.
func (s *site) waitForMetric(line string) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(s.metrics(), line+"\n"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never %s in\n%s", line, s.metrics())
		}
	}
}

// Whoever comes without a card first and puts it in then is asked for it: no
// TLS session of the visit without one may be resumed.
func TestCardAfterVisitWithout(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := newSite(t, native)
			b := s.newBrowser(version, true)
			if who := b.whoami(); who.Reason != "no-certificate" {
				t.Errorf("whoami %+v", who)
			}
			b.CloseIdleConnections()
			b.insert(s.issue(s.pki.CitizenEC))
			resp := b.expect("GET", "/whoami", http.StatusOK, `"reason":"unknown-user"`)
			if resp.TLS.DidResume {
				t.Error("a TLS session was resumed")
			}
		})
	}
}

// Clients are told the issuing CAs, and nothing else.
func TestAdvertisedCAs(t *testing.T) {
	s := newSite(t, native)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var got []string
		conn, err := tls.Dial("tcp", s.srv.Addr().String(), &tls.Config{
			InsecureSkipVerify: true, MaxVersion: version,
			GetClientCertificate: func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				for _, ca := range info.AcceptableCAs {
					got = append(got, string(ca))
				}
				return new(tls.Certificate), nil
			},
		})
		s.must(err)
		conn.Close()
		issuing, err := server.ParseCertificates(s.pki.IssuingPEM())
		s.must(err)
		if len(got) != len(issuing) {
			t.Errorf("%s: %d CAs, want %d", tls.VersionName(version), len(got), len(issuing))
		}
		for _, ca := range issuing {
			if !strings.Contains(strings.Join(got, "\n"), string(ca.RawSubject)) {
				t.Errorf("%s is not among them", ca.Subject.CommonName)
			}
		}
	}
}

// behindProxy starts a site on a Unix socket that trusts a uid, and gives a
// client that speaks through it as nginx would.
func behindProxy(t *testing.T, uid int) (*site, *browser) {
	t.Helper()
	s := newSite(t, fmt.Sprintf("[listen]\nhttp = \"unix:kortti.sock\"\n[forwarded]\nformat = \"nginx-escaped-pem\"\nfrom = [\"unix:uid=%d\"]\n", uid))
	b := &browser{t: t, base: "http://kortti.example"}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "kortti.sock"))
	}}
	b.Client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(transport.CloseIdleConnections)
	return s, b
}

func TestBehindProxy(t *testing.T) {
	s, b := behindProxy(t, os.Geteuid())
	card := s.issue(s.pki.CitizenEC)
	certificate := "X-Ssl-Client-Cert: " + url.PathEscape(string(card.PEM()))
	const address = "X-Real-Ip: 192.0.2.7"

	info, err := os.Stat(filepath.Join(s.dir, "kortti.sock"))
	s.must(err)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v, want 0660", info.Mode())
	}
	b.expect("GET", "/whoami", http.StatusOK, "no-certificate", address)
	b.expect("GET", "/whoami", http.StatusOK, "unknown-user", certificate, address)
	b.expect("POST", "/login", http.StatusSeeOther, "/inactive", certificate, address)
	s.approve(satu)
	resp := b.expect("POST", "/login", http.StatusSeeOther, "/account", certificate, address)
	cookie := "Cookie: " + resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	b.expect("GET", "/docs", http.StatusOK, "hello Maija", certificate, address, cookie)
	seen := s.seen.Load()
	if seen.RemoteAddr != "192.0.2.7:0" || seen.Header.Get("X-SSL-Client-Cert") != "" {
		t.Errorf("the application saw %s, %v", seen.RemoteAddr, seen.Header)
	}
	// A stolen cookie without its card, and with another one.
	b.expect("GET", "/docs", http.StatusUnauthorized, "no-certificate", address, cookie)
	other, err := s.pki.Issue(s.pki.CitizenEC, fineidtest.Leaf{})
	s.must(err)
	b.expect("GET", "/docs", http.StatusForbidden, "unknown-user", "X-Ssl-Client-Cert: "+url.PathEscape(string(other.PEM())), address, cookie)
	b.expect("GET", "/docs", http.StatusUnauthorized, "no-session", certificate, address, cookie)
	b.expect("GET", "/docs", http.StatusBadRequest, "", certificate, "X_SSL_Client_Cert: x")
	b.expect("GET", "/docs", http.StatusBadRequest, "", certificate, "Client-Cert: x")
}

func TestUntrustedPeer(t *testing.T) {
	s, b := behindProxy(t, os.Geteuid()+1)
	card := s.issue(s.pki.CitizenEC)
	b.expect("GET", "/whoami", http.StatusBadRequest, "", "X-Ssl-Client-Cert: "+url.PathEscape(string(card.PEM())))
	b.expect("GET", "/whoami", http.StatusOK, "no-certificate")
}

func TestSocketLeftBehind(t *testing.T) {
	s, _ := behindProxy(t, os.Geteuid())
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	config.Audit.Dir = t.TempDir() // the site's is in use
	listen := func() error {
		srv, err := server.New(t.Context(), config, server.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer srv.Close()
		if err := srv.Listen(); err != nil {
			return err
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		return srv.Serve(ctx)
	}
	if err := listen(); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("took a socket in use: %v", err)
	}
	// As a killed process leaves it.
	path := filepath.Join(s.dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	s.must(err)
	l.SetUnlinkOnClose(false)
	s.must(l.Close())
	config.Listen.HTTP = "unix:" + path
	if err := listen(); err != nil {
		t.Errorf("a socket left behind: %v", err)
	}
	config.Listen.HTTP = "unix:" + s.write("file", nil)
	if err := listen(); err == nil || !strings.Contains(err.Error(), "something else is there") {
		t.Errorf("took a file for a socket: %v", err)
	}
}

func TestEmbedded(t *testing.T) {
	s := newSite(t, native)
	config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
	s.must(err)
	config.Audit.Dir = t.TempDir() // the site's is in use
	config.Listen = server.Listen{}
	srv, err := server.New(t.Context(), config, server.Options{Log: slog.New(slog.DiscardHandler)})
	s.must(err)
	defer srv.Close()
	if c := srv.TLSConfig(); c.ClientAuth != tls.RequestClientCert || !c.SessionTicketsDisabled || len(c.Certificates) != 0 {
		t.Errorf("TLS configuration %+v", c)
	}
	if err := srv.Listen(); err == nil || !strings.Contains(err.Error(), "neither https nor http") {
		t.Errorf("listens nowhere: %v", err)
	}
}
