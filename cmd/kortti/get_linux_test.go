package main

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// Where nobody else can be asked, kortti get asks on its own terminal: for the
// program's consent, for the PIN, and after a wrong one again.
func TestGetAsksOnItsTerminal(t *testing.T) {
	const host = "get.kortti.test"
	pki, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pki.ServerCert(host)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello "+r.TLS.PeerCertificates[0].Subject.CommonName+"\n")
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // handshakes that wait for the PIN are given up
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pki.WebRootsPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startAgent(t, "")
	cards, err := r.client.Cards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sha := certificates(cards)[0].SHA256
	r.run(t, "hosts", "add", host, "--socket", r.socket, "--card", sha, "--tls-roots", roots, "--address", strings.TrimPrefix(server.URL, "https://"))

	s := onTerminal(t, r.command("get", "--socket", r.socket, host))
	s.waitFor("use the card of LIISA SPECIMEN-KORTTI at " + host + "? [y/N] ")
	s.enter("y\r")
	const question = "PIN of kortti test card (LIISA SPECIMEN-KORTTI): "
	s.waitFor(question)
	if s.echoes() {
		t.Error("the terminal would show the PIN")
	}
	s.enter("9999\r")
	s.waitFor("wrong PIN")
	eventually(t, "the second question", func() bool { return strings.Count(s.text(), question) == 2 })
	s.enter("1234\r")
	s.waitFor("hello SPECIMEN-KORTTI LIISA 99912345V")
	s.end(exitDone, "")
	if n := r.logins(t); n != 2 {
		t.Errorf("the card was asked %d times, want 2", n)
	}

	r.run(t, "lock", "--socket", r.socket)
	s = onTerminal(t, r.command("get", "--socket", r.socket, host))
	s.waitFor(question)
	s.enter("\x03")
	s.end(exitPIN, "Start again when you want to use the card.")
	if n := r.logins(t); n != 2 {
		t.Errorf("the card was asked %d times, want 2", n)
	}
}
