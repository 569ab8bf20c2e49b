package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/users"
)

// The way that the example is there to show: a stranger is not let in, somebody
// new waits for approval, an approved user is greeted, and the end is clean.
func TestLogin(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	must(err)
	stop, err := pki.Serve()
	must(err)
	defer func() { must(stop()) }()
	address := configure(t, dir, pki)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, filepath.Join(dir, "kortti-server.toml")) }()
	card, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{GivenName: "MAIJA", Surname: "MÄKELÄ"})
	must(err)
	stranger, person := browser(t, pki), browser(t, pki, card.TLS())
	// What the site answers: the status and where it leads to, or the text.
	ask := func(hc *http.Client, method, path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+path, nil)
		must(err)
		resp, err := hc.Do(req)
		must(err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(err)
		return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location"), string(body))
	}
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			must(conn.Close())
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("ended at once: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	expect := func(hc *http.Client, method, path, want string) {
		t.Helper()
		if got := ask(hc, method, path); !strings.HasPrefix(got, want) {
			t.Errorf("%s %s: %s; want %s", method, path, got, want)
		}
	}
	expect(stranger, "GET", "/", "401 ")
	expect(person, "GET", "/", "403 ")
	expect(person, "POST", "/login", "303 /inactive")
	db, err := database.OpenExisting(t.Context(), "sqlite:"+filepath.Join(dir, "kortti.db"))
	must(err)
	_, err = users.New(db, time.Now).Approve(t.Context(), card.Certificate.Subject.SerialNumber)
	must(err)
	must(db.Close())
	expect(person, "GET", "/", "401 ") // approved, but not logged in
	expect(person, "POST", "/login", "303 /account")
	expect(person, "GET", "/", "200 Hello, Maija Mäkelä!\n")
	cancel()
	must(<-ended)
}

// configure writes a configuration and what it names, and tells where the site
// will be.
func configure(t *testing.T, dir string, pki *fineidtest.PKI) (address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	responder, err := url.Parse(pki.BaseURL())
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`[listen]
https = %q
cert = "server.pem"
key = "server-key.pem"
[trust]
roots = ["roots.pem"]
issuing = ["issuing.pem"]
[[trust.revocation]]
issuer = "*"
hosts = [%q]
`, address, responder.Host)
	for _, i := range pki.Issuers() {
		config += fmt.Sprintf("[[trust.issuer]]\ncn = %q\nclass = %q\nfamily = %q\n", i.CN, i.Class, i.Family)
	}
	certificate, err := pki.ServerCert("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"kortti-server.toml": []byte(config), "roots.pem": pki.RootsPEM(), "issuing.pem": pki.IssuingPEM(),
		"server.pem":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}),
		"server-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return address
}

// browser keeps cookies, follows nothing and shows a card, if it has one.
func browser(t *testing.T, pki *fineidtest.PKI, card ...tls.Certificate) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pki.WebRootsPEM())
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: card}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
