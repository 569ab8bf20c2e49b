// Package server_test runs kortti-server behind real reverse proxies, with the
// sample configurations that the documentation gives.
package server_test

import (
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
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/tests/programs"
	"github.com/kortti-id/kortti/tests/rootfs"
)

func TestMain(m *testing.M) { programs.Main(m, "./cmd/kortti-server") }

const site = "kirjaudu.kortti.test"

// proxy is a reverse proxy of the tests' own root file system.
type proxy struct {
	name   string
	sample string // file in docs/proxies
	format string // of the certificate's header
	header string
	escape func(der []byte) string // as the format writes a certificate
	uid    func(*testing.T) int    // of the processes that connect, as seen outside
	start  func(*front)
	// strict: the proxy itself ends the handshakes of expired and of signature
	// certificates.
	strict bool
	// http1: the sample speaks no HTTP/2.
	http1 bool
	// resumes: its configuration cannot turn TLS tickets off.
	resumes bool
	// edit and settings, if there are any, change the sample's text and
	// kortti-server's configuration.
	edit, settings func(string) string
}

var (
	nginx = proxy{
		name: "nginx", sample: "nginx.conf", format: evidence.NginxEscapedPEM, header: evidence.DefaultHeader,
		escape: escapedPEM, uid: caller, start: (*front).startNginx,
	}
	apache = proxy{
		name: "Apache", sample: "apache.conf", format: evidence.RFC9440, header: "Client-Cert",
		escape: byteSequence, uid: wwwData, start: (*front).startApache, strict: true, http1: true,
	}
	haproxy = proxy{
		name: "HAProxy", sample: "haproxy.cfg", format: evidence.RFC9440, header: "Client-Cert",
		escape: byteSequence, uid: caller, start: (*front).startHAProxy,
	}
	caddy = proxy{
		name: "Caddy", sample: "Caddyfile", format: evidence.RFC9440, header: "Client-Cert",
		escape: byteSequence, uid: caller, start: (*front).startCaddy, resumes: true,
	}
)

// protocols are those that the proxy speaks with its clients.
func (p proxy) protocols() []protocol {
	if p.http1 {
		return []protocol{http11}
	}
	return []protocol{http11, http20}
}

// behindEach runs a test behind each proxy.
func behindEach(t *testing.T, test func(*testing.T, *front)) {
	for _, p := range []proxy{nginx, apache, haproxy, caddy} {
		t.Run(p.name, func(t *testing.T) { test(t, newFront(t, p)) })
	}
}

func escapedPEM(der []byte) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func byteSequence(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }

// caller is the tests' own user, which a daemon that stays root in the root file
// system is outside.
func caller(*testing.T) int { return os.Getuid() }

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
[limits]
refusals = 1000000
[audit]
dir = "audit"
`, f.socket, responder.Host, f.format, f.uid(f.t), os.Getuid())
	for _, i := range f.pki.Issuers() {
		fmt.Fprintf(&config, "[[trust.issuer]]\ncn = %q\nclass = %q\nfamily = %q\n", i.CN, i.Class, i.Family)
	}
	text := config.String()
	if f.settings != nil {
		text = f.settings(text)
	}
	f.write("server.toml", []byte(text))
	f.write("roots.pem", f.pki.RootsPEM())
	f.write("issuing.pem", f.pki.IssuingPEM())
	programs.Daemon(f.t, f.server("serve"), syscall.SIGTERM, "unix", f.socket)
}

// configure fills in the documentation's configuration for the proxy and returns
// where it is in the root file system.
func (f *front) configure() string {
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
	f.write("site.pem.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	text, err := os.ReadFile(filepath.Join(programs.Root(), "docs", "proxies", f.sample))
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = programs.FreeAddr(f.t)
	host, port, err := net.SplitHostPort(f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	filled := strings.NewReplacer(
		"@LISTEN@", f.addr, "@ADDRESS@", host, "@PORT@", port, "@SERVER_NAME@", site,
		"@CERT@", inside("site.pem"), "@KEY@", inside("site.pem.key"),
		"@ISSUING@", inside("issuing.pem"), "@ROOTS@", inside("roots.pem"), "@SOCKET@", inside("kortti.sock")).Replace(string(text))
	if f.edit != nil {
		filled = f.edit(filled)
	}
	f.write("site.conf", []byte(filled))
	return inside("site.conf")
}

// inside is a file of the test's folder in the root file system.
func inside(name string) string { return rootfs.Shared + "/" + name }

// run starts the proxy in the root file system.
func (f *front) run(name string, args ...string) {
	f.t.Helper()
	cmd := rootfs.Command(context.Background(), f.t, f.dir, name, args...)
	programs.Daemon(f.t, cmd, os.Kill, "tcp", f.addr) // unshare passes no other signal on
}

// startNginx runs nginx as one process of the test's own user.
func (f *front) startNginx() {
	f.t.Helper()
	f.write("nginx.conf", []byte(`user root; daemon off; pid /run/nginx.pid; error_log stderr;
events {}
http { access_log off; include `+f.configure()+`; }
`))
	f.run("nginx", "-c", inside("nginx.conf"))
}

// startApache runs Apache, whose workers are never root's.
func (f *front) startApache() {
	f.t.Helper()
	var config strings.Builder
	for _, module := range []string{"mpm_event", "authz_core", "headers", "ssl", "proxy", "proxy_http"} {
		fmt.Fprintf(&config, "LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", module)
	}
	sample := f.configure()
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
	f.run("apache2", "-f", inside("apache.conf"), "-D", "FOREGROUND")
}

// startHAProxy runs HAProxy as one process of the test's own user.
func (f *front) startHAProxy() {
	f.t.Helper()
	f.run("haproxy", "-db", "-f", f.configure())
}

// startCaddy runs Caddy, whose folders of its own end with it.
func (f *front) startCaddy() {
	f.t.Helper()
	f.run("env", "HOME=/tmp", "caddy", "run", "--adapter", "caddyfile", "--config", f.configure())
}

// client is a browser with this certificate, or without one.
func (f *front) client(certificate *fineidtest.Issued, maxVersion uint16) *http.Client {
	tr := &http.Transport{
		TLSClientConfig: f.tlsConfig(certificate, maxVersion), ForceAttemptHTTP2: true,
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

func (f *front) tlsConfig(certificate *fineidtest.Issued, maxVersion uint16) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.pki.WebRootsPEM())
	config := &tls.Config{RootCAs: roots, ServerName: site, MaxVersion: maxVersion}
	if certificate != nil {
		c := certificate.TLS()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	return config
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
	user, reason = userIn(body)
	return resp.StatusCode, user, reason
}

// userIn reads an answer of /whoami. Other answers have no user.
func userIn(body []byte) (user, reason string) {
	var who door.Whoami
	if json.Unmarshal(body, &who) != nil || !who.Authenticated {
		return "", who.Reason
	}
	return who.User.Username, who.Reason
}

func (f *front) write(name string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}
