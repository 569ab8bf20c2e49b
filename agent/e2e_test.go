package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/screen"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
)

const (
	siteName = "asiointi.example.fi"
	// pullTime is the most that may pass between the removal of a polled card
	// and its end for programs.
	pullTime = 2 * time.Second
)

// world is an agent with a test card, and a site that asks for its certificate.
type world struct {
	*rig
	card    *softhsm.Card
	pki     *fineidtest.PKI
	site    *httptest.Server
	root    string // file of the site's local root
	hanging chan struct{}
	dials   atomic.Int32 // connections that the site has got
}

// newWorld makes a card of an invented person, a site and an agent that lists
// the site; shape changes the site before it starts.
func newWorld(t *testing.T, hostKeys string, shape ...func(*httptest.Server)) *world {
	t.Helper()
	return newWatchedWorld(t, screen.Buses{System: nowhere, Session: nowhere}, hostKeys, shape...)
}

// newWatchedWorld makes a world whose agent watches the screen on these buses.
func newWatchedWorld(t *testing.T, buses screen.Buses, hostKeys string, shape ...func(*httptest.Server)) *world {
	t.Helper()
	dir := t.TempDir()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true, BaseURL: "http://127.0.0.1:1"})
	check(t, err)
	w := &world{pki: pki, hanging: make(chan struct{}, 100), root: filepath.Join(dir, "root.pem")}
	w.card, err = softhsm.Create(filepath.Join(dir, "card"), softhsm.Spec{})
	check(t, err)
	id := []byte{softhsm.AuthenticationID}
	public, err := w.card.PublicKey(id)
	check(t, err)
	issued, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{PublicKey: public, GivenName: "ÄILI", Surname: "TESTINEN"})
	check(t, err)
	check(t, w.card.ImportCertificate(id, "todentamisvarmenne", issued.Certificate.Raw))
	check(t, w.card.ImportCertificate([]byte{0x47}, "CA", pki.CitizenEC.Certificate.Raw))
	check(t, w.card.ResetCounts())
	check(t, os.WriteFile(filepath.Join(dir, "site.pem"), pki.WebRootsPEM(), 0o600))

	w.startSite(t, shape)
	o := options(t, dir, fmt.Sprintf(
		"[card]\nmodules = [%q]\n[[host]]\nname = %q\naddress = %q\ntls_roots = \"site.pem\"\n%s",
		w.card.Module(), siteName, w.site.Listener.Addr(), hostKeys))
	o.Buses = buses
	w.rig = start(t, o, New)
	trust, err := w.client.Trust(within(t), siteName)
	check(t, err)
	check(t, os.WriteFile(w.root, []byte(trust.PEM), 0o600))
	return w
}

// startSite starts a site that answers with the SATU of whoever comes.
func (w *world) startSite(t *testing.T, shape []func(*httptest.Server)) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, r.TLS.PeerCertificates[0].Subject.SerialNumber)
	})
	mux.HandleFunc("/hang", func(rw http.ResponseWriter, r *http.Request) {
		http.NewResponseController(rw).Flush()
		w.hanging <- struct{}{}
		<-r.Context().Done()
	})
	site := httptest.NewUnstartedServer(mux)
	cert, err := w.pki.ServerCert(siteName)
	check(t, err)
	clientCAs := x509.NewCertPool()
	clientCAs.AddCert(w.pki.Root.Certificate)
	clientCAs.AddCert(w.pki.CitizenEC.Certificate)
	site.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCAs}
	site.EnableHTTP2 = true
	site.Config.ErrorLog = log.New(io.Discard, "", 0)
	site.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			w.dials.Add(1)
		}
	}
	for _, change := range shape {
		change(site)
	}
	site.StartTLS()
	t.Cleanup(site.Close)
	w.site = site
}

// reply is what curl got.
type reply struct {
	status int
	body   string
	err    error
}

// curl asks the site through the proxy.
func (w *world) curl(ctx context.Context, path string) reply {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "curl", "-sS", "--max-time", "25", "--proxy", "http://"+w.Proxy(), "--cacert", w.root,
		"-H", "Accept: application/json", "-w", "\n%{http_code}", "https://"+siteName+path)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir} // without proxy variables and .curlrc
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	i := strings.LastIndexByte(out.String(), '\n')
	if i < 0 {
		return reply{err: err}
	}
	status, _ := strconv.Atoi(out.String()[i+1:])
	return reply{status, out.String()[:i], err}
}

func (w *world) curling(t *testing.T, path string) <-chan reply {
	ctx, end := within(t), make(chan reply, 1)
	go func() { end <- w.curl(ctx, path) }()
	return end
}

// code is the code of the proxy's own error answer.
func (r reply) code() string {
	var body struct{ Error control.Error }
	if json.Unmarshal([]byte(r.body), &body) != nil {
		return ""
	}
	return body.Error.Code
}

func wantReply(t *testing.T, r reply, status int, code string) {
	t.Helper()
	if r.err != nil || r.status != status || r.code() != code {
		t.Fatalf("got %+v, want %d %s", r, status, code)
	}
}

func (w *world) count(t *testing.T, name string) uint64 {
	t.Helper()
	counts, err := w.card.Counts()
	check(t, err)
	return counts[name]
}

func (w *world) unlockNow(t *testing.T) {
	t.Helper()
	p, err := w.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
}

// TestLogin is the main road: a program that nobody knows yet asks, the person
// allows it and mistypes the PIN once, and everything after costs nothing.
func TestLogin(t *testing.T) {
	w := newWorld(t, "")
	wantReply(t, w.curl(within(t), "/"), 503, control.CodeNoFrontEnd)

	stream := w.attend(t)
	end := w.curling(t, "/")
	p := next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptConsent || !strings.HasSuffix(p.Program, "/curl") || p.Host != siteName {
		t.Fatalf("%+v", p)
	}
	check(t, w.answer(t, p.ID, control.Answer{Allow: &yes, Remember: true}))

	p = next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptPIN || p.Name != "ÄILI TESTINEN" || !strings.HasSuffix(p.Program, "/curl") {
		t.Fatalf("%+v", p)
	}
	wantCode(t, w.answer(t, p.ID, control.Answer{PIN: pin("9999")}), control.CodePINWrong)
	p = next(t, stream, control.EventPrompt).Prompt
	wantCode(t, w.answer(t, p.ID, control.Answer{PIN: pin("9999")}), control.CodePINRepeated)
	if n := w.count(t, "C_Login"); n != 1 {
		t.Errorf("one wrong PIN, entered twice: %d logins", n)
	}
	p = next(t, stream, control.EventPrompt).Prompt
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
	r := <-end
	if r.err != nil || r.status != 200 || !strings.HasPrefix(r.body, "999") {
		t.Fatalf("%+v", r)
	}

	var more []<-chan reply
	for range 10 {
		more = append(more, w.curling(t, "/"))
	}
	for _, end := range more {
		if got := <-end; got.status != 200 || got.body != r.body {
			t.Errorf("%+v", got)
		}
	}
	status, err := w.client.Status(within(t))
	check(t, err)
	if s, c := w.count(t, "signatures"), status.Counters; s != 1 || c.Signatures != 1 || c.Prompts != 4 || c.Requests != 11 || c.SignaturesAvoided != 10 {
		t.Errorf("%d signatures on the card; %+v", s, c)
	}
	want := "[consent unlock-refused unlock-refused unlock signature]"
	if got := fmt.Sprint(w.decisions(t)); got != want {
		t.Errorf("audit: %s, want %s", got, want)
	}
	for _, secret := range []string{"9999", r.body, "TESTINEN"} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, w.log)
		}
	}
}

// TestLockAndPull checks that nothing outlives the unlocked state.
func TestLockAndPull(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	w.unlockNow(t)
	if r := w.curl(within(t), "/"); r.status != 200 {
		t.Fatalf("%+v", r)
	}
	hung := w.curling(t, "/hang")
	<-w.hanging
	check(t, w.client.Lock(within(t), control.CardSelection{}))
	wantEnded(t, <-hung, control.CodeLocked)
	wantReply(t, w.curl(within(t), "/"), 503, control.CodeNoFrontEnd) // locked, and nobody to ask

	stream := w.attend(t)
	end := w.curling(t, "/")
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, w.answer(t, p.ID, control.Answer{Cancel: true}))
	wantReply(t, <-end, 403, control.CodePINCancelled)
	wantReply(t, w.curl(within(t), "/"), 503, "prompt-paused")

	w.unlockNow(t)
	hung = w.curling(t, "/hang")
	<-w.hanging
	check(t, w.card.Pull())
	pulled := time.Now()
	wantEnded(t, <-hung, control.CodeCardRemoved)
	wantReply(t, w.curl(within(t), "/"), 503, control.CodeNoCard)
	if d := time.Since(pulled); d > pullTime {
		t.Errorf("the card was of use for %v after it was pulled", d)
	}
	_, err := w.client.Unlock(within(t), control.CardSelection{})
	if e := wantCode(t, err, control.CodeNoCard); e.Message != "there is no card in the reader" {
		t.Error(e)
	}

	check(t, w.card.Insert())
	waitFor(t, "the card", func() bool {
		status, err := w.client.Status(within(t))
		check(t, err)
		return len(status.Cards) == 1 && status.Cards[0].State == control.Locked
	})
	w.unlockNow(t)
	if r := w.curl(within(t), "/"); r.status != 200 {
		t.Errorf("%+v", r)
	}
}

// wantEnded wants an answer that was cut off or, where its head had not reached the
// agent yet, the agent's own answer that says why.
func wantEnded(t *testing.T, r reply, code string) {
	t.Helper()
	if r.err == nil {
		wantReply(t, r, 503, code)
	}
}

// TestPullWhileAsking ends prompts and those who wait when the card goes.
func TestPullWhileAsking(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	stream := w.attend(t)
	end := w.curling(t, "/")
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, w.card.Pull())
	if ev := next(t, stream, control.EventPromptClosed); ev.Prompt.ID != p.ID {
		t.Errorf("%+v", ev)
	}
	wantReply(t, <-end, 503, control.CodeCardRemoved)
	if n := w.count(t, "C_Login"); n != 0 {
		t.Errorf("%d logins", n)
	}
}

func TestWhy(t *testing.T) {
	w := newWorld(t, "")
	why, err := w.client.Why(within(t), siteName)
	check(t, err)
	if !why.Asked || len(why.AcceptableCAs) != 2 || len(why.Rows) != 1 || !why.Rows[0].Kept || why.Chosen != why.Rows[0].Certificate {
		t.Errorf("%+v", why)
	}
	if w.count(t, "signatures") != 0 {
		t.Error("asking why made a signature")
	}
}

// TestModuleThatIsNone starts with a module that is no PKCS#11 library and one
// that is missing: the agent runs and says what is wrong.
func TestModuleThatIsNone(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	check(t, os.WriteFile(text, []byte("no library"), 0o600))
	r := start(t, options(t, dir, fmt.Sprintf("[card]\nmodules = [%q, %q]\n", text, filepath.Join(dir, "missing.so"))), New)
	cards, err := r.client.Cards(within(t))
	check(t, err)
	if len(cards.Modules) != 2 {
		t.Fatalf("%+v", cards)
	}
	for _, m := range cards.Modules {
		if m.Error == "" || m.Hint == "" {
			t.Errorf("%+v", m)
		}
	}
}

// TestCardThatComesLater is a program nobody allowed that asks while there is no
// card, and whose request the host keeps until the person has put one in and
// unlocked it for something else.
func TestCardThatComesLater(t *testing.T) {
	shaking, goOn := make(chan struct{}, 1), make(chan struct{})
	w := newWorld(t, "", func(site *httptest.Server) {
		site.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			shaking <- struct{}{}
			<-goOn
			return nil, nil
		}
	})
	present := func() bool {
		status, err := w.client.Status(within(t))
		check(t, err)
		return len(status.Cards) == 1
	}
	check(t, w.card.Pull())
	waitFor(t, "the removal", func() bool { return !present() })
	end := w.curling(t, "/")
	<-shaking
	check(t, w.card.Insert())
	waitFor(t, "the card", present)
	w.unlockNow(t)
	stream := w.attend(t)
	close(goOn)
	p := next(t, stream, control.EventPrompt).Prompt
	if p.Kind != control.PromptConsent {
		t.Fatalf("%+v", p)
	}
	check(t, w.answer(t, p.ID, control.Answer{Allow: &no}))
	wantReply(t, <-end, 403, control.CodeNoConsent)
}

// TestUpstreamCertificates has somebody else play a host. The host's trust
// anchors hold its local root too, as where the system trusts it, and the thief
// has the local key.
func TestUpstreamCertificates(t *testing.T) {
	const victim = "pankki.example.fi"
	var shown atomic.Pointer[tls.Certificate]
	w := newWorld(t, "", func(site *httptest.Server) {
		site.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil }
		site.TLS.Certificates = nil
	})
	local, err := w.roots.Get(victim)
	check(t, err)
	past, err := fineidtest.New(fineidtest.Options{ECOnly: true, Now: func() time.Time { return time.Now().AddDate(-2, 0, 0) }})
	check(t, err)
	stranger, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	check(t, err)
	anchors := filepath.Join(w.dir, "anchors.pem")
	check(t, os.WriteFile(anchors, slices.Concat(w.pki.WebRootsPEM(), past.WebRootsPEM(), local.PEM()), 0o600))
	_, err = w.client.PutHost(within(t), control.Host{
		Name: victim, Consent: "always", Address: w.site.Listener.Addr().String(), TLSRoots: anchors,
	})
	check(t, err)
	check(t, os.WriteFile(w.root, local.PEM(), 0o600))
	w.unlockNow(t)
	program := &http.Client{Transport: w.throughProxy(t)}
	made := func(pki *fineidtest.PKI, name string) *tls.Certificate {
		cert, err := pki.ServerCert(name)
		check(t, err)
		return &cert
	}
	for _, test := range []struct {
		name string
		cert *tls.Certificate
		want int
	}{
		{"its local certificate", &local.Leaf, 502},
		{"another name", made(w.pki, siteName), 502},
		{"expired", made(past, victim), 502},
		{"from an unknown CA", made(stranger, victim), 502},
		{"signed by itself", w.forge(t, victim, nil, x509.ExtKeyUsageServerAuth), 502},
		{"for clients", w.forge(t, victim, w.pki.Web, x509.ExtKeyUsageClientAuth), 502},
		{"the right one", made(w.pki, victim), 200},
	} {
		before := w.count(t, "signatures")
		shown.Store(test.cert)
		resp, err := program.Get("https://" + victim + "/")
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != test.want || test.want != 200 && resp.Header.Get("X-Kortti-Error") != "upstream-certificate" {
			t.Errorf("%s: %s %v", test.name, resp.Status, resp.Header)
		}
		if n := w.count(t, "signatures") - before; test.want != 200 && n != 0 {
			t.Errorf("%s: %d signatures", test.name, n)
		}
	}
}

// forge makes a host's certificate from a CA, or signed by itself, for a usage.
func (w *world) forge(t *testing.T, name string, from *fineidtest.CA, usage x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	issuer, signer := template, crypto.Signer(key)
	if from != nil {
		issuer, signer = from.Certificate, from.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	check(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
