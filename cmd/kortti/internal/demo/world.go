package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// The hosts of the demo. They have no DNS: the agent's `address` setting leads
// to them, as it would with split DNS.
const (
	loginHost = "login.kortti.test"
	siteHost  = "site.kortti.test"
	testPIN   = "1234"
)

// world is all that the demo builds: a PKI with its OCSP responder, a test
// card, the server, the site and the agent.
type world struct {
	dir             string // everything is in here, and goes with it
	kortti, server  string // the programs
	site            string
	pki             *fineidtest.PKI
	pkiURL          string
	ocsp            *http.Server
	processes       []*process
	agent           *process // one of them
	client          *control.Client
	proxy           string // host:port
	module          string
	card            string // folder of the test card
	holder          string // the name on the card
	satu            string
	loginAt, siteAt string // host:port on loopback
}

// programs finds curl and the programs beside this one.
func (w *world) programs() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w.kortti = self
	if _, err := exec.LookPath("curl"); err != nil {
		return errors.New("the demo logs in with curl, which is not installed: install the package curl (Debian: apt install curl)")
	}
	for name, path := range map[string]*string{"kortti-server": &w.server, "relyingparty": &w.site} {
		*path = filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(*path); err != nil {
			return fmt.Errorf("the program %s is not beside %s; build all of them: make build", name, self)
		}
	}
	return nil
}

// makePKI makes the test PKI and serves its OCSP responder on loopback.
func (w *world) makePKI() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.pkiURL = "http://" + l.Addr().String()
	if w.pki, err = fineidtest.New(fineidtest.Options{BaseURL: w.pkiURL}); err != nil {
		return errors.Join(err, l.Close())
	}
	w.ocsp = &http.Server{Handler: w.pki.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go w.ocsp.Serve(l)
	if err := w.pki.Save(w.path("pki")); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(w.path("roots.pem"), w.pki.RootsPEM(), 0o600),
		os.WriteFile(w.path("issuing.pem"), w.pki.IssuingPEM(), 0o600),
		os.WriteFile(w.path("site-roots.pem"), w.pki.WebRootsPEM(), 0o600))
}

// makeCard runs `kortti testcard create`, as a person would: no PKCS#11 module
// is loaded into the demo itself, which listens.
func (w *world) makeCard(ctx context.Context) error {
	out, err := output(ctx, w.dir, w.kortti, "testcard", "create", "--dir", w.path("cards"), "--pki", w.path("pki"),
		"--name", "demo", "--pin", testPIN, "--given", "LIISA", "--surname", "SPECIMEN-KORTTI", "--json")
	if err != nil {
		return err
	}
	var made struct{ Dir, Module, Name, SATU string }
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return fmt.Errorf("read what `kortti testcard create` printed: %w", err)
	}
	w.card, w.module, w.holder, w.satu = made.Dir, made.Module, made.Name, made.SATU
	return nil
}

// startServer starts kortti-server for the login host.
func (w *world) startServer(ctx context.Context) (err error) {
	if w.loginAt, err = w.siteFiles(loginHost, "server"); err != nil {
		return err
	}
	p, err := w.start("server", w.server, "serve", "--config", w.path("server.toml"))
	if err != nil {
		return err
	}
	return p.ready(ctx, w.healthy(loginHost, w.loginAt))
}

// startSite starts the example relying party, a program of its own that
// embeds the middleware and shares the user database.
func (w *world) startSite(ctx context.Context) (err error) {
	if w.siteAt, err = w.siteFiles(siteHost, "site"); err != nil {
		return err
	}
	p, err := w.start("site", w.site, "--config", w.path("site.toml"))
	if err != nil {
		return err
	}
	return p.ready(ctx, w.healthy(siteHost, w.siteAt))
}

// siteFiles writes the certificate, key and configuration of a server and
// returns the loopback address that it will listen on.
func (w *world) siteFiles(host, name string) (string, error) {
	addr, err := freeAddr()
	if err != nil {
		return "", err
	}
	cert, err := w.pki.ServerCert(host)
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return "", err
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return addr, errors.Join(
		os.WriteFile(w.path(name+".pem"), chain, 0o600),
		os.WriteFile(w.path(name+"-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		os.WriteFile(w.path(name+".toml"), []byte(w.serverConfig(name, addr)), 0o600))
}

// serverConfig is what a relying party writes, shortened by nothing: the test
// issuers are named because the published tables do not know them.
func (w *world) serverConfig(name, addr string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `[listen]
https = %q
cert  = "%s.pem"
key   = "%s-key.pem"

[trust]
roots   = ["roots.pem"]
issuing = ["issuing.pem"]

[[trust.revocation]]
issuer = "*"
policy = "must"
hosts  = [%q]

[users]
store  = "sqlite:users.db"
create = "inactive"
`, addr, name, name, strings.TrimPrefix(w.pkiURL, "http://"))
	for _, i := range w.pki.Issuers() {
		fmt.Fprintf(&b, "\n[[trust.issuer]]\ncn     = %q\nclass  = %q\nfamily = %q\n", i.CN, i.Class, i.Family)
	}
	return b.String()
}

// healthy asks a server's /healthz without a certificate.
func (w *world) healthy(host, addr string) func(context.Context) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.pki.WebRootsPEM())
	hc := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: host},
		DisableKeepAlives: true,
	}}
	return func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/healthz", nil)
		if err != nil {
			return false
		}
		req.Host = host
		resp, err := hc.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}

// startAgent starts `kortti agent` with both hosts listed and reads from its
// status where the proxy listens.
func (w *world) startAgent(ctx context.Context) error {
	config := fmt.Sprintf("[card]\nmodules = [%q]\n\n[proxy]\nlisten = \"127.0.0.1:0\"\n\n[control]\nsocket = %q\n",
		w.module, w.path("agent.sock"))
	for host, addr := range map[string]string{loginHost: w.loginAt, siteHost: w.siteAt} {
		config += fmt.Sprintf("\n[[host]]\nname      = %q\nconsent   = \"always\"\naddress   = %q\ntls_roots = \"site-roots.pem\"\n", host, addr)
	}
	if err := os.WriteFile(w.path("kortti.toml"), []byte(config), 0o600); err != nil {
		return err
	}
	p, err := w.start("agent", w.kortti, "agent", "--config", w.path("kortti.toml"))
	if err != nil {
		return err
	}
	w.client = control.New(w.path("agent.sock"))
	w.agent = p
	if err := w.seesCard(ctx); err != nil {
		return err
	}
	status, err := w.client.Status(ctx)
	w.proxy = status.Proxy
	return err
}

// seesCard waits until the agent has found the card.
func (w *world) seesCard(ctx context.Context) error {
	return w.agent.ready(ctx, func(ctx context.Context) bool {
		cards, err := w.client.Cards(ctx)
		return err == nil && slices.ContainsFunc(cards.Readers, func(r control.Reader) bool { return r.Card != nil })
	})
}

func (w *world) start(name, bin string, args ...string) (*process, error) {
	p, err := start(w.dir, name, bin, args...)
	if err == nil {
		w.processes = append(w.processes, p)
	}
	return p, err
}

// end stops everything, newest first, and removes the folder.
func (w *world) end() error {
	var errs []error
	if w.client != nil {
		w.client.Close()
	}
	for i := len(w.processes) - 1; i >= 0; i-- {
		errs = append(errs, w.processes[i].stop())
	}
	if w.ocsp != nil {
		errs = append(errs, w.ocsp.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// freeAddr finds a free loopback port.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
