package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kortti-server": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pki":    makePKI,
			"occupy": occupy,
			"login":  login,
			"await":  await,
		},
	})
}

// makePKI ("pki") writes roots.pem, issuing.pem, card.pem, signature.pem and a
// right configuration for a Unix socket, with OCSP at a running responder.
func makePKI(ts *testscript.TestScript, _ bool, _ []string) {
	pki, err := fineidtest.New(fineidtest.Options{})
	ts.Check(err)
	stop, err := pki.Serve()
	ts.Check(err)
	ts.Defer(func() { ts.Check(stop()) })
	card, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{GivenName: "MAIJA", Surname: "MÄKELÄ", SerialNumber: "99912345V"})
	ts.Check(err)
	signature, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{Purpose: fineid.Signature})
	ts.Check(err)
	responder, err := url.Parse(pki.BaseURL())
	ts.Check(err)
	config := fmt.Sprintf(`[listen]
http = "unix:k.sock"
[trust]
roots = ["roots.pem"]
issuing = ["issuing.pem"]
[[trust.revocation]]
issuer = "*"
hosts = [%q]
[forwarded]
format = "nginx-escaped-pem"
from = ["unix:uid=%d"]
`, responder.Host, os.Geteuid())
	for _, i := range pki.Issuers() {
		config += fmt.Sprintf("[[trust.issuer]]\ncn = %q\nclass = %q\nfamily = %q\n", i.CN, i.Class, i.Family)
	}
	for name, content := range map[string][]byte{
		"roots.pem": pki.RootsPEM(), "issuing.pem": pki.IssuingPEM(), "card.pem": card.PEM(),
		"signature.pem": signature.PEM(), "kortti-server.toml": []byte(config),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), content, 0o600))
	}
	certificate, err := pki.ServerCert("localhost")
	ts.Check(err)
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	ts.Check(os.WriteFile(ts.MkAbs("server.pem"), chain, 0o600))
}

// occupy ("occupy") listens on a free port and leaves its address in $ADDR.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("ADDR", l.Addr().String())
}

// login ("login STATUS LOCATION") waits for the server on k.sock, logs in with
// card.pem as nginx would hand it over, and compares the answer.
func login(ts *testscript.TestScript, _ bool, args []string) {
	socket := ts.MkAbs("k.sock")
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialWhenThere(ctx, socket)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kortti.example/login", nil)
	ts.Check(err)
	req.Header.Set("X-SSL-Client-Cert", url.PathEscape(ts.ReadFile("card.pem")))
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location")); got != strings.Join(args, " ") {
		ts.Fatalf("login answered %s, want %v\n%s", got, args, body)
	}
}

// await ("await FILE REGEXP") waits until a line of a file says so.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !want.MatchString(ts.ReadFile(args[0])) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s never said %s:\n%s", args[0], want, ts.ReadFile(args[0]))
		}
	}
}

// dialWhenThere connects as soon as somebody listens on the socket.
func dialWhenThere(ctx context.Context, socket string) (net.Conn, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Clean(socket))
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EACCES) {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
