package browsers_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
	"github.com/kortti-id/kortti/tests/pcscd"
)

// The listed hosts. They have no DNS; their `address` leads to them.
const (
	loginHost = "login.kortti.test" // kortti-server
	siteHost  = "site.kortti.test"  // a site of the test's own
)

const (
	rightPIN = "1234"
	holder   = "Åsa Specimen-Läsare" // as the server shows her
)

// world is a person's machine with an agent and a card, and the hosts that the
// person logs in to.
type world struct {
	t        *testing.T
	home     string // of the person
	pki      *fineidtest.PKI
	card     *softhsm.Card
	site     *site
	loginAt  string // host:port of kortti-server
	agent    *control.Client
	proxy    string // host:port
	frontEnd *control.Stream
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, home: t.TempDir()}
	var err error
	w.pki, err = fineidtest.New(fineidtest.Options{ECOnly: true})
	check(t, err)
	stop, err := w.pki.Serve()
	check(t, err)
	t.Cleanup(func() { stop() })
	w.makeCard()
	w.write("pki/roots.pem", w.pki.RootsPEM())
	w.write("pki/issuing.pem", w.pki.IssuingPEM())
	w.write("pki/sites.pem", w.pki.WebRootsPEM())
	w.site = startSite(t, w.pki)
	w.startServer()
	w.startAgent()
	return w
}

func (w *world) makeCard() {
	var err error
	w.card, err = softhsm.Create(filepath.Join(w.home, "card"), softhsm.Spec{PIN: rightPIN, Label: "ÅSA"})
	check(w.t, err)
	id := []byte{softhsm.AuthenticationID}
	public, err := w.card.PublicKey(id)
	check(w.t, err)
	issued, err := w.pki.Issue(w.pki.CitizenEC, fineidtest.Leaf{PublicKey: public, GivenName: "ÅSA", Surname: "SPECIMEN-LÄSARE"})
	check(w.t, err)
	check(w.t, w.card.ImportCertificate(id, "todentamisvarmenne", issued.Certificate.Raw))
	check(w.t, w.card.ImportCertificate([]byte{0x47}, "CA", w.pki.CitizenEC.Certificate.Raw))
	check(w.t, w.card.ResetCounts())
}

// startServer runs kortti-server, which lets everybody in at once whose card is
// good.
func (w *world) startServer() {
	cert, err := w.pki.ServerCert(loginHost)
	check(w.t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	check(w.t, err)
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	w.write("pki/login.pem", chain)
	w.write("pki/login-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	w.loginAt = freeAddress(w.t)
	responder, err := url.Parse(w.pki.BaseURL())
	check(w.t, err)
	config := fmt.Sprintf(`[listen]
https = %q
cert = "login.pem"
key = "login-key.pem"
[trust]
roots = ["roots.pem"]
issuing = ["issuing.pem"]
[[trust.revocation]]
issuer = "*"
policy = "must"
hosts = [%q]
[users]
store = "sqlite:users.db"
create = "active"
reason = "a test"
`, w.loginAt, responder.Host)
	for _, i := range w.pki.Issuers() {
		config += fmt.Sprintf("[[trust.issuer]]\ncn = %q\nclass = %q\nfamily = %q\n", i.CN, i.Class, i.Family)
	}
	w.write("pki/server.toml", []byte(config))
	w.background(w.command(pcscd.Program("kortti-server"), "serve", "--config", filepath.Join(w.home, "pki/server.toml")))
	waitFor(w.t, "kortti-server", func() bool {
		c, err := net.Dial("tcp", w.loginAt)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// startAgent runs the person's agent. Its consent is needed at the login host.
func (w *world) startAgent() {
	config := fmt.Sprintf("[proxy]\nlisten = \"127.0.0.1:0\"\n[card]\nmodules = [%q]\n", w.card.Module())
	for _, host := range []struct{ name, address, consent string }{{loginHost, w.loginAt, "ask"}, {siteHost, w.site.address, "always"}} {
		config += fmt.Sprintf("[[host]]\nname = %q\naddress = %q\nconsent = %q\ntls_roots = %q\n",
			host.name, host.address, host.consent, filepath.Join(w.home, "pki/sites.pem"))
	}
	w.write(".config/kortti/kortti.toml", []byte(config))
	check(w.t, os.Mkdir(filepath.Join(w.home, "run"), 0o700))
	w.background(w.command(pcscd.Program("kortti"), "agent"))
	w.agent = control.New(filepath.Join(w.home, "run/kortti/agent.sock"))
	w.t.Cleanup(w.agent.Close)
	waitFor(w.t, "the agent to see the card", func() bool {
		status, err := w.agent.Status(w.t.Context())
		w.proxy = status.Proxy
		return err == nil && len(status.Cards) == 1
	})
	var err error
	w.frontEnd, err = w.agent.Events(context.Background(), true)
	check(w.t, err)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			if _, err := w.frontEnd.Next(); err != nil {
				return
			}
		}
	}()
	w.t.Cleanup(func() {
		w.frontEnd.Close()
		<-read
	})
}

// command is a program that the person starts.
func (w *world) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = w.home, w.environment()
	return cmd
}

func (w *world) environment() []string {
	return []string{
		"HOME=" + w.home, "XDG_RUNTIME_DIR=" + filepath.Join(w.home, "run"), "TMPDIR=" + os.TempDir(),
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "GORACE=atexit_sleep_ms=0",
	}
}

// background runs a program until the test ends, and then wants a clean end: no
// error, no panic, also none that net/http has caught.
func (w *world) background(cmd *exec.Cmd) {
	w.t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	check(w.t, cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || w.t.Failed() || strings.Contains(said.String(), "panic") {
			w.t.Errorf("%s: %v\n%s", filepath.Base(cmd.Path), err, &said)
		}
	})
}

// stuck has the agent say where each of its goroutines is, and end.
func (w *world) stuck() {
	if status, err := w.agent.Status(context.Background()); err == nil {
		_ = syscall.Kill(status.PID, syscall.SIGQUIT)
	}
}

// kortti runs a command of kortti's and returns what it printed.
func (w *world) kortti(args ...string) string {
	w.t.Helper()
	return w.run(pcscd.Program("kortti"), args...)
}

func (w *world) run(name string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = w.home, w.environment()
	cmd.WaitDelay = time.Second // what it has started may outlive it
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			w.stuck()
		}
		w.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// answer waits for a prompt and answers it, as a front end does.
func (w *world) answer(kind control.PromptKind) control.Prompt {
	w.t.Helper()
	p := w.prompt(kind)
	lease, err := w.agent.Lease(w.t.Context(), p.ID)
	check(w.t, err)
	yes, answer := true, control.Answer{LeaseToken: lease}
	if kind == control.PromptPIN {
		answer.PIN = control.Secret(rightPIN)
	} else {
		answer.Allow, answer.Remember = &yes, true
	}
	_, err = w.agent.Answer(w.t.Context(), p.ID, answer)
	check(w.t, err)
	return p
}

// prompt waits for a prompt.
func (w *world) prompt(kind control.PromptKind) (prompt control.Prompt) {
	w.t.Helper()
	waitFor(w.t, "a prompt: "+string(kind), func() bool {
		open, err := w.agent.Prompts(w.t.Context())
		check(w.t, err)
		for _, p := range open {
			if p.Kind == kind {
				prompt = p
				return true
			}
		}
		return false
	})
	return prompt
}

// spent is what something has cost.
type spent struct {
	signatures uint64 // of the card
	prompts    uint64
}

func (w *world) spent() spent {
	w.t.Helper()
	counts, err := w.card.Counts()
	check(w.t, err)
	status, err := w.agent.Status(w.t.Context())
	check(w.t, err)
	return spent{counts["signatures"], status.Counters.Prompts}
}

// costs wants that something costs no more and no less.
func (w *world) costs(what string, want spent, do func()) {
	w.t.Helper()
	before := w.spent()
	do()
	after := w.spent()
	if got := (spent{after.signatures - before.signatures, after.prompts - before.prompts}); got != want {
		w.t.Errorf("%s cost %+v, want %+v", what, got, want)
	}
}

func (w *world) write(name string, content []byte) {
	w.t.Helper()
	path := filepath.Join(w.home, name)
	check(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(w.t, os.WriteFile(path, content, 0o600))
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}
