package browsers_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
)

// program is a command line that prints what the site's /name answers.
type program struct {
	name    string
	command []string
}

// programs are those of the room, some led by their own settings, some by the
// environment of kortti exec.
func (w *world) programs() []program {
	kortti, roots := pcscd.Program("kortti"), filepath.Join(w.home, "roots.pem")
	const address = "https://" + siteHost + "/name"
	if pcscd.Room() == rootfs.Sid {
		const script = `fetch(process.argv[1]).then(r => r.text()).then(text => process.stdout.write(text))`
		return []program{{"node with kortti exec", []string{kortti, "exec", "--", "node", "-e", script, address}}}
	}
	const script = `import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")`
	return []program{
		{"curl", []string{"curl", "--silent", "--show-error", "--fail", "--proxy", "http://" + w.proxy, "--cacert", roots, address}},
		{"curl with kortti exec", []string{kortti, "exec", "--", "curl", "--silent", "--show-error", "--fail", address}},
		{"python with kortti exec", []string{kortti, "exec", "--", "python3", "-c", script, address}},
		{"kortti get", []string{kortti, "get", address}},
	}
}

// TestPrograms has each program log in to the same host: all of them cost one
// signature, of the first one, which waits for the PIN.
func TestPrograms(t *testing.T) {
	w := newWorld(t)
	w.write("roots.pem", []byte(w.kortti("trust", "print", siteHost)))
	w.costs("all programs", spent{signatures: 1, prompts: 1}, func() {
		first := w.programs()[0]
		answer := w.begin(first)
		w.answer(control.PromptPIN)
		w.isHolder(first.name, <-answer)
		for _, p := range w.programs() {
			w.isHolder(p.name, <-w.begin(p))
		}
		if pcscd.Room() == rootfs.Bookworm {
			t.Run("git", func(t *testing.T) { w.as(t).git() })
			t.Run("WebSocket", func(t *testing.T) { w.as(t).talk() })
		}
	})
}

// begin runs a program and sends what it printed.
func (w *world) begin(p program) <-chan string {
	printed := make(chan string, 1)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Dir, cmd.Env = w.home, w.environment()
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	go func() {
		defer cancel()
		out, err := cmd.Output()
		if err != nil {
			out = fmt.Appendf(out, "%v %s", err, &complaints)
		}
		printed <- string(out)
	}()
	return printed
}

// isHolder wants the site to have known the card.
func (w *world) isHolder(program, answer string) {
	w.t.Helper()
	if !strings.HasPrefix(answer, "SPECIMEN-LÄSARE ÅSA ") || strings.Count(answer, "\n") != 1 {
		w.t.Errorf("%s: %s", program, answer)
	}
}

// git clones a repository, adds to it more than fits into one request of known
// length, and another clone has that.
func (w *world) git() {
	bare := filepath.Join(w.site.projects, "notes.git")
	w.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", bare)
	w.run("git", "-C", bare, "config", "http.receivepack", "true")
	const address = "https://" + siteHost + "/git/notes.git"
	w.kortti("exec", "--", "git", "clone", "--quiet", address, "mine")
	large := make([]byte, 3<<20) // http.postBuffer is 1 MiB
	rand.Read(large)
	w.write("mine/large", large)
	mine := filepath.Join(w.home, "mine")
	w.run("git", "-C", mine, "add", "large")
	w.run("git", "-C", mine, "-c", "user.name=Åsa", "-c", "user.email=asa@example.fi", "commit", "--quiet", "--message", "large")
	// Over HTTP/2 the curl of Debian 12 stalls in large uploads now and then, at any
	// server: of 60 pushes to one without a proxy, on a busy machine, 3 never ended.
	w.kortti("exec", "--", "git", "-c", "http.version=HTTP/1.1", "-C", mine, "push", "--quiet", "origin", "HEAD:main")
	w.run("git", "-c", "http.proxy=http://"+w.proxy, "-c", "http.sslCAInfo="+filepath.Join(w.home, "roots.pem"), "clone", "--quiet", address, "yours")
	if got, err := os.ReadFile(filepath.Join(w.home, "yours", "large")); err != nil || !bytes.Equal(got, large) {
		w.t.Errorf("the clone has another file (%d bytes), %v", len(got), err)
	}
}

// talk speaks WebSocket to the site, with small messages and a large one, until
// the card is pulled.
func (w *world) talk() {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	conn, err := w.throughProxy(ctx)
	check(w.t, err)
	config, err := websocket.NewConfig("wss://"+siteHost+"/echo", "https://"+siteHost)
	check(w.t, err)
	ws, err := websocket.NewClient(config, conn)
	check(w.t, err)
	defer ws.Close()
	for i, said := range []string{"päivää", strings.Repeat("mitä kuuluu? ", 100_000), "näkemiin"} {
		check(w.t, websocket.Message.Send(ws, said))
		heard := make([]byte, len(said)) // it may come back in several frames
		if n, err := io.ReadFull(ws, heard); err != nil || string(heard) != said {
			w.t.Fatalf("message %d came back with %d of %d bytes, %v", i, n, len(said), err)
		}
	}
	check(w.t, w.card.Pull())
	var heard string
	if err := websocket.Message.Receive(ws, &heard); err == nil || ctx.Err() != nil {
		w.t.Errorf("the card is pulled, and the WebSocket lives on: %q, %v", heard, err)
	}
}

// throughProxy is a TLS connection to the site as the proxy lets programs have
// it; it breaks when ctx ends.
func (w *world) throughProxy(ctx context.Context) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", w.proxy)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { raw.Close() })
	connect := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: siteHost + ":443"}, Host: siteHost + ":443"}
	if err := connect.Write(raw); err != nil {
		return nil, err
	}
	// Nothing follows the answer before the handshake.
	const yes = "HTTP/1.1 200 "
	var answer []byte
	for !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := raw.Read(b[:]); err != nil {
			return nil, fmt.Errorf("the proxy said %q: %w", answer, err)
		}
		answer = append(answer, b[0])
	}
	if !bytes.HasPrefix(answer, []byte(yes)) {
		return nil, fmt.Errorf("the proxy said %q", answer)
	}
	roots := x509.NewCertPool()
	root, err := os.ReadFile(filepath.Join(w.home, "roots.pem"))
	if err != nil || !roots.AppendCertsFromPEM(root) {
		return nil, fmt.Errorf("no root to trust: %w", err)
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: siteHost, NextProtos: []string{"http/1.1"}})
	return conn, conn.HandshakeContext(ctx)
}

// asking are programs that ask for leave, and what kortti says of each.
var asking = []struct {
	command []string
	program string
	note    control.ProgramNote
}{
	{[]string{"curl", "--silent", "--fail"}, "/usr/bin/curl", ""},
	{[]string{"python3", "-c", `import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())`}, "/usr/bin/python3.11", control.NoteInterpreter},
}

// TestConsent has programs use the card at a host for the first time: each asks
// under its own name, and curl, which does one thing only, is remembered.
func TestConsent(t *testing.T) {
	if pcscd.Room() != rootfs.Bookworm {
		return // one room shows it
	}
	w := newWorld(t)
	for i, a := range asking {
		p := program{a.program, append(append([]string{pcscd.Program("kortti"), "exec", "--"}, a.command...), "https://"+loginHost+"/whoami")}
		answer := w.begin(p)
		asked := w.answer(control.PromptConsent)
		if asked.Program != a.program || asked.ProgramNote != a.note || asked.Host != loginHost {
			t.Errorf("leave was asked for %+v", asked)
		}
		if i == 0 {
			w.answer(control.PromptPIN)
		}
		answers := []string{<-answer}
		if a.note == "" {
			answers = append(answers, <-w.begin(p))
		}
		for i, got := range answers {
			if !strings.Contains(got, "CN=SPECIMEN-LÄSARE ÅSA ") {
				t.Errorf("%s: answer %d is %s", a.program, i, got)
			}
		}
	}
	if got := w.spent(); got != (spent{signatures: 1, prompts: 3}) {
		t.Errorf("all that cost %+v", got)
	}
}
