// Package server_test runs kortti-server behind a real nginx and a real Apache,
// with the sample configurations that the documentation gives.
package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tests/programs"
	"github.com/kortti-id/kortti/tests/rootfs"
)

func TestMain(m *testing.M) { programs.Main(m, "./cmd/kortti-server") }

const site = "kirjaudu.kortti.test"

// proxy is a reverse proxy of the tests' own root file system.
type proxy struct {
	name   string
	format string // of the certificate's header
	header string
	escape func(der []byte) string // as the format writes a certificate
	uid    func(*testing.T) int    // of the processes that connect, as seen outside
	start  func(*front)
	// strict: the proxy itself ends the handshakes of expired and of signature
	// certificates.
	strict bool
}

var (
	nginx = proxy{
		name: "nginx", format: "nginx-escaped-pem", header: "X-SSL-Client-Cert", escape: escapedPEM,
		uid: func(*testing.T) int { return os.Getuid() }, start: (*front).startNginx,
	}
	apache = proxy{
		name: "Apache", format: "rfc9440", header: "Client-Cert", escape: byteSequence,
		uid: wwwData, start: (*front).startApache, strict: true,
	}
)

// behindEach runs a test behind each proxy.
func behindEach(t *testing.T, test func(*testing.T, *front)) {
	for _, p := range []proxy{nginx, apache} {
		t.Run(p.name, func(t *testing.T) { test(t, newFront(t, p)) })
	}
}

func escapedPEM(der []byte) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func byteSequence(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }

// wwwData is the user that Debian's Apache becomes, which in a user namespace is
// one of the caller's subordinate ones (newuidmap(1)).
func wwwData(t *testing.T) int {
	t.Helper()
	const inside = 33
	if os.Getuid() == 0 {
		return inside
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := os.ReadFile("/etc/subuid")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(ranges)) {
		var first int
		if rest, ok := strings.CutPrefix(line, me.Username+":"); ok {
			if _, err := fmt.Sscanf(rest, "%d:", &first); err == nil {
				return first + inside - 1
			}
		}
	}
	t.Fatalf("%s has no subordinate users in /etc/subuid", me.Username)
	return 0
}

// front is kortti-server on a Unix socket with a proxy before it.
type front struct {
	proxy
	t    *testing.T
	dir  string
	pki  *fineidtest.PKI
	addr string // where the proxy listens
	// connections counts those of all clients.
	connections atomic.Int32
	socket      string // where kortti-server listens
}

func newFront(t *testing.T, p proxy) *front {
	t.Helper()
	f := &front{proxy: p, t: t, dir: t.TempDir()}
	var err error
	if f.pki, err = fineidtest.New(fineidtest.Options{}); err != nil {
		t.Fatal(err)
	}
	stop, err := f.pki.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	f.socket = filepath.Join(f.dir, "kortti.sock")
	f.startServer()
	f.start(f)
	f.until(p.name+" listens", func() bool {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return f
}

func (f *front) startServer() {
	f.t.Helper()
	responder, err := url.Parse(f.pki.BaseURL())
	if err != nil {
		f.t.Fatal(err)
	}
	var config strings.Builder
	fmt.Fprintf(&config, `[listen]
http = "unix:%s"
[trust]
roots = ["roots.pem"]
issuing = ["issuing.pem"]
[[trust.revocation]]
issuer = "*"
policy = "must"
max_age = "1s"
hosts = [%q]
[forwarded]
format = %q
from = ["unix:uid=%d", "unix:uid=%d"]
[users]
store = "sqlite:users.db"
create = "inactive"
[session]
sessionless = ["/whoami"]
`, f.socket, responder.Host, f.format, f.uid(f.t), os.Getuid())
	for _, i := range f.pki.Issuers() {
		fmt.Fprintf(&config, "[[trust.issuer]]\ncn = %q\nclass = %q\nfamily = %q\n", i.CN, i.Class, i.Family)
	}
	f.write("server.toml", []byte(config.String()))
	f.write("roots.pem", f.pki.RootsPEM())
	f.write("issuing.pem", f.pki.IssuingPEM())
	f.background(f.server("serve"), syscall.SIGTERM)
	f.until("kortti-server listens", func() bool {
		c, err := net.Dial("unix", f.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// sample fills in the documentation's configuration for the proxy and returns
// where it is in the root file system.
func (f *front) sample(file string) string {
	f.t.Helper()
	cert, err := f.pki.ServerCert(site)
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	f.write("site.pem", chain)
	f.write("site-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	text, err := os.ReadFile(filepath.Join(programs.Root(), "docs", "proxies", file))
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = freeAddr(f.t)
	f.write("site.conf", []byte(strings.NewReplacer(
		"@LISTEN@", f.addr, "@SERVER_NAME@", site, "@CERT@", inside("site.pem"), "@KEY@", inside("site-key.pem"),
		"@ISSUING@", inside("issuing.pem"), "@SOCKET@", inside("kortti.sock")).Replace(string(text))))
	return inside("site.conf")
}

// inside is a file of the test's folder in the root file system.
func inside(name string) string { return rootfs.Shared + "/" + name }

// startNginx runs nginx as one process of the test's own user.
func (f *front) startNginx() {
	f.t.Helper()
	f.write("nginx.conf", []byte(`user root; daemon off; pid /run/nginx.pid; error_log stderr;
events {}
http { access_log off; include `+f.sample("nginx.conf")+`; }
`))
	f.background(rootfs.Command(context.Background(), f.t, f.dir, "nginx", "-c", inside("nginx.conf")), os.Kill) // unshare passes no other signal on
}

// startApache runs Apache, whose workers are never root's.
func (f *front) startApache() {
	f.t.Helper()
	var config strings.Builder
	for _, module := range []string{"mpm_event", "authz_core", "headers", "ssl", "proxy", "proxy_http"} {
		fmt.Fprintf(&config, "LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", module)
	}
	sample := f.sample("apache.conf")
	fmt.Fprintf(&config, `ServerRoot /etc/apache2
PidFile /run/apache2.pid
DefaultRuntimeDir /run
ErrorLog /dev/stderr
User www-data
Group #0
ServerName %s
Listen %s
SSLSessionCache none
Include %s
`, site, f.addr, sample)
	f.write("apache.conf", []byte(config.String()))
	f.background(rootfs.Command(context.Background(), f.t, f.dir, "apache2", "-f", inside("apache.conf"), "-D", "FOREGROUND"), os.Kill)
}

// client is a browser with this certificate, or without one.
func (f *front) client(certificate *fineidtest.Issued, maxVersion uint16) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.pki.WebRootsPEM())
	config := &tls.Config{RootCAs: roots, ServerName: site, MaxVersion: maxVersion}
	if certificate != nil {
		c := certificate.TLS()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	tr := &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			f.connections.Add(1)
			return new(net.Dialer).DialContext(ctx, network, f.addr)
		},
	}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func (f *front) issue(leaf fineidtest.Leaf) *fineidtest.Issued {
	f.t.Helper()
	issued, err := f.pki.Issue(f.pki.CitizenEC, leaf)
	if err != nil {
		f.t.Fatal(err)
	}
	return issued
}

// approve lets somebody in, as an administrator does.
func (f *front) approve(satu fineid.SATU) {
	f.t.Helper()
	if out, err := f.server("users", "approve", satu.String()).CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
}

func (f *front) server(args ...string) *exec.Cmd {
	cmd := exec.Command(programs.Path("kortti-server"), append(args, "--config", "server.toml")...)
	cmd.Dir = f.dir
	return cmd
}

// whoami asks /whoami and returns the status, the user, and why there is none.
func (f *front) whoami(hc *http.Client, headers http.Header) (status int, user, reason string) {
	f.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://"+site+"/whoami", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if headers != nil {
		req.Header = headers
	}
	resp, err := hc.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	var who struct {
		Authenticated bool
		Reason        string
		User          struct{ Username string }
	}
	_ = json.Unmarshal(body, &who) // other answers than JSON have no user
	if !who.Authenticated {
		return resp.StatusCode, "", who.Reason
	}
	return resp.StatusCode, who.User.Username, who.Reason
}

func TestLogsIn(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		satu := fineidtest.SATU(777)
		card := f.issue(fineidtest.Leaf{GivenName: "ÅKE", Surname: "SPECIMEN-NGINX", SerialNumber: satu.String()})
		resp, err := f.client(card, 0).Post("https://"+site+"/login", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || to != "/inactive" {
			t.Fatalf("a new user should be sent to /inactive, not %d %q", resp.StatusCode, to)
		}
		if _, user, reason := f.whoami(f.client(card, 0), nil); user != "" || reason != "inactive" {
			t.Errorf("an inactive user is %q, %q", user, reason)
		}
		f.approve(satu)
		for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
			if status, user, reason := f.whoami(f.client(card, version), nil); user != satu.String() {
				t.Errorf("%s: %d, user %q, reason %q", name, status, user, reason)
			}
		}
		if _, user, reason := f.whoami(f.client(nil, 0), nil); user != "" || reason != "no-certificate" {
			t.Errorf("without a card: user %q, reason %q", user, reason)
		}
		kept := f.client(card, 0)
		if _, user, _ := f.whoami(kept, nil); user == "" {
			t.Fatal("the card is not let in any more")
		}
		foreign, err := fineidtest.New(fineidtest.Options{ECOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := foreign.Issue(foreign.CitizenEC, fineidtest.Leaf{SerialNumber: satu.String()})
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]*fineidtest.Issued{
			"signature certificate": f.issue(fineidtest.Leaf{SerialNumber: satu.String(), Purpose: fineid.Signature}),
			"expired certificate":   f.issue(fineidtest.Leaf{SerialNumber: satu.String(), NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(0, 0, -1)}),
			"foreign CA":            stranger,
		} {
			if f.strict && bad != stranger {
				if _, err := f.client(bad, 0).Get("https://" + site + "/whoami"); err == nil {
					t.Errorf("%s: %s has let it through", name, f.name)
				}
				continue
			}
			if status, user, reason := f.whoami(f.client(bad, 0), nil); user != "" || reason == "" {
				t.Errorf("%s: %d, user %q, reason %q", name, status, user, reason)
			}
		}
	})
}

// Whatever a client writes into identity headers, nobody becomes somebody.
func TestForgedHeaders(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		satu := fineidtest.SATU(778)
		victim := f.issue(fineidtest.Leaf{SerialNumber: satu.String()})
		if _, err := f.client(victim, 0).Post("https://"+site+"/login", "", nil); err != nil {
			t.Fatal(err)
		}
		f.approve(satu)
		if _, user, _ := f.whoami(f.client(victim, 0), nil); user != satu.String() {
			t.Fatal("the victim is not let in, so the test can show nothing")
		}
		forged := f.escape(victim.Certificate.Raw)
		for _, name := range []string{
			f.header, "X-SSL-Client-Cert", "x-ssl-client-cert", "X_SSL_Client_Cert", "X-Ssl_Client-Cert", "Client-Cert", "Client_Cert", "client-cert", "Client-Cert-Chain",
			"X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "Ssl-Client-Cert", "X-Client-Cert", "X-Kortti-User", "Remote-User", "Remote_User",
		} {
			for _, card := range []*fineidtest.Issued{nil, f.issue(fineidtest.Leaf{SerialNumber: fineidtest.SATU(1).String()})} {
				status, user, _ := f.whoami(f.client(card, 0), http.Header{name: {forged}})
				if user == satu.String() {
					t.Errorf("%s: %s (own card: %t) made the client the victim (%d)", name, forged[:20], card != nil, status)
				}
			}
		}
		if status, user, _ := f.whoami(f.client(nil, 0), http.Header{f.header: {forged, forged}}); user != "" {
			t.Errorf("a doubled header made the client %q (%d)", user, status)
		}
	})
}

// A local process that is not the trusted proxy gets 400 for the same header.
func TestHeaderFromUntrustedPeer(t *testing.T) {
	f := newFront(t, nginx)
	victim := f.issue(fineidtest.Leaf{SerialNumber: fineidtest.SATU(779).String()})
	forged := f.escape(victim.Certificate.Raw)
	ask := exec.Command("curl", "--silent", "--unix-socket", f.socket, "--header", f.header+": "+forged,
		"--write-out", "\n%{http_code}", "http://"+site+"/whoami")
	trusted, err := ask.Output()
	if err != nil || !strings.HasSuffix(string(trusted), "\n200") && !strings.HasSuffix(string(trusted), "\n403") && !strings.HasSuffix(string(trusted), "\n401") {
		t.Fatalf("the trusted user should be understood, not: %s (%v)", trusted, err)
	}
	if os.Getuid() != 0 {
		t.Log("not run: becoming another user needs root")
		return
	}
	for _, path := range []string{f.dir, filepath.Dir(f.dir)} { // let the other user reach the socket at all
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(f.socket, 0o777); err != nil {
		t.Fatal(err)
	}
	other := exec.Command(ask.Path, ask.Args[1:]...)
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := other.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "\n400") {
		t.Errorf("another user's header should be 400, not: %s (%v)", out, err)
	}
}

// A certificate that is revoked while a connection lives is out at the next
// request after the good answer's life.
func TestRevokedBehindNginx(t *testing.T) {
	f := newFront(t, nginx)
	satu := fineidtest.SATU(780)
	card := f.issue(fineidtest.Leaf{SerialNumber: satu.String()})
	kept := f.client(card, 0)
	if resp, err := kept.Post("https://"+site+"/login", "", nil); err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	f.approve(satu)
	if _, user, reason := f.whoami(kept, nil); user != satu.String() {
		t.Fatalf("not let in: %q", reason)
	}
	connections := f.connections.Load()
	if err := f.pki.Revoke(card.Certificate, time.Now().Add(-time.Minute), 1); err != nil {
		t.Fatal(err)
	}
	f.until("the revoked card is out", func() bool {
		_, user, reason := f.whoami(kept, nil)
		return user == "" && reason == "revoked"
	})
	if f.connections.Load() != connections {
		t.Error("the connection was not kept, so the test has shown less than it says")
	}
}

// Requests that an HTTP library would not write: whatever the proxy makes of them,
// nobody becomes the victim, and no second request is smuggled past it.
func TestMalformed(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		satu := fineidtest.SATU(781)
		victim := f.issue(fineidtest.Leaf{SerialNumber: satu.String()})
		if resp, err := f.client(victim, 0).Post("https://"+site+"/login", "", nil); err != nil || resp.Body.Close() != nil {
			t.Fatal(err)
		}
		f.approve(satu)
		forged := f.header + ": " + f.escape(victim.Certificate.Raw) + "\r\n"
		host := "Host: " + site + "\r\n"
		config := f.client(nil, 0).Transport.(*http.Transport).TLSClientConfig
		for name, request := range map[string]string{
			"HTTP/1.0":          "GET /whoami HTTP/1.0\r\n" + forged + "\r\n",
			"HTTP/0.9":          "GET /whoami\r\n",
			"absolute form":     "GET https://" + site + "/whoami HTTP/1.1\r\n" + host + forged + "\r\n",
			"another host":      "GET https://else.example/whoami HTTP/1.1\r\nHost: else.example\r\n" + forged + "\r\n",
			"two hosts":         "GET /whoami HTTP/1.1\r\n" + host + "Host: else.example\r\n" + forged + "\r\n",
			"underscores":       "GET /whoami HTTP/1.1\r\n" + host + strings.ReplaceAll(forged[:len(f.header)], "-", "_") + forged[len(f.header):] + "\r\n",
			"space in the name": "GET /whoami HTTP/1.1\r\n" + host + strings.Replace(forged, ":", " :", 1) + "\r\n",
			"folded":            "GET /whoami HTTP/1.1\r\n" + host + "X-Other: a\r\n " + forged + "\r\n",
			"bare line feeds":   strings.ReplaceAll("GET /whoami HTTP/1.1\r\n"+host+forged+"\r\n", "\r\n", "\n"),
			"dropped on the way": "GET /whoami HTTP/1.1\r\n" + host + forged +
				"Connection: close, " + f.header + "\r\n\r\n",
			"two lengths": "POST /whoami HTTP/1.1\r\n" + host + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
				"GET /whoami HTTP/1.1\r\n" + host + forged + "\r\n",
			"trailer": "POST /whoami HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: " + f.header + "\r\n\r\n0\r\n" + forged + "\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				conn, err := tls.Dial("tcp", f.addr, config.Clone())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(conn, request+"GET /healthz HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(conn) // nginx may end the connection as it likes
				if len(answer) == 0 || bytes.Contains(answer, []byte(satu.String())) || bytes.Contains(answer, []byte(`"authenticated":true`)) {
					t.Errorf("answered %q", answer)
				}
			})
		}
	})
}

func (f *front) write(name string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// background runs a program until the test ends, ends it with a signal, and
// shows what it said when the test failed.
func (f *front) background(cmd *exec.Cmd, end os.Signal) {
	f.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := cmd.Process.Signal(end); err != nil {
			f.t.Errorf("%s has ended by itself: %v", filepath.Base(cmd.Path), err)
		}
		_ = cmd.Wait()
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", filepath.Base(cmd.Path), out.String())
		}
	})
}

func (f *front) until(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
