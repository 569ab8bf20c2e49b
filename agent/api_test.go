package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

func TestWhatTheAgentShows(t *testing.T) {
	r := startFake(t, newFakeCards(person(t, 0)), "")
	status, err := r.client.Status(within(t))
	check(t, err)
	if status.PID != os.Getpid() || status.Version != "test" || status.Proxy != r.Proxy() || status.Counters.Signatures != 7 ||
		len(status.Cards) != 1 || status.Cards[0].State != control.Locked {
		t.Errorf("%+v", status)
	}
	cards, err := r.client.Cards(within(t))
	check(t, err)
	if m := cards.Modules[0]; m.Error == "" || m.Hint == "" {
		t.Errorf("a broken module: %+v", m)
	}
	c := cards.Readers[0].Card.Certificates[0]
	if c.Name != "ÄILI TESTINEN" || c.Purpose != "authentication" || !c.Login || c.SHA256 != card.FingerprintOf(person(t, 0).Raw).String() {
		t.Errorf("%+v", c)
	}
	settings, err := r.client.Settings(within(t))
	check(t, err)
	if settings.ConfigFile != filepath.Join(r.dir, "kortti.toml") || settings.IdleLock != "15m0s" || settings.Socket != r.Socket() {
		t.Errorf("%+v", settings)
	}
	metrics, err := r.client.Metrics(within(t))
	check(t, err)
	for _, line := range []string{"kortti_card_signatures_total 7\n", "kortti_signatures_avoided_total 0\n", "kortti_prompts_total{kind=\"pin\"} 0\n", "kortti_upstream_handshakes_total{kind=\"resumed\"} 0\n"} {
		if !strings.Contains(metrics, line) {
			t.Errorf("no line %q in:\n%s", line, metrics)
		}
	}
	if log := r.log.String(); strings.Contains(log, "TESTINEN") {
		t.Errorf("a name is in the log:\n%s", log)
	}
}

func TestHostsOverTheAPI(t *testing.T) {
	r := startFake(t, newFakeCards(), "[[host]]\nname = \"own.example.fi\"\n")
	stream := r.attend(t)
	h, err := r.client.PutHost(within(t), control.Host{Name: "New.Example.fi:8443", Consent: "always"})
	check(t, err)
	if h.Name != "new.example.fi:8443" || !h.Managed || h.Card != "auto" {
		t.Errorf("%+v", h)
	}
	next(t, stream, control.EventHost)
	if list, err := r.client.Hosts(within(t)); err != nil || len(list) != 2 || list[0].Managed || !list[1].Managed {
		t.Error(list, err)
	}
	root, err := r.client.Trust(within(t), "new.example.fi")
	check(t, err)
	again, err := r.client.Trust(within(t), "new.example.fi:8443")
	check(t, err)
	if root.SHA256 != again.SHA256 || !strings.Contains(root.PEM, "BEGIN CERTIFICATE") || root.Host != "new.example.fi" {
		t.Errorf("%+v", root)
	}
	_, err = r.client.Trust(within(t), "other.example.fi")
	wantCode(t, err, control.CodeNotFound)

	_, err = r.client.PutHost(within(t), control.Host{Name: "own.example.fi", Consent: "always"})
	if e := wantCode(t, err, control.CodeConfigWins); !strings.Contains(e.Message, "kortti.toml") {
		t.Error(e)
	}
	wantCode(t, r.client.DeleteHost(within(t), "own.example.fi"), control.CodeConfigWins)
	_, err = r.client.PutHost(within(t), control.Host{Name: "127.0.0.1"})
	wantCode(t, err, control.CodeBadRequest)
	_, err = r.client.PutHost(within(t), control.Host{Name: "a.fi", TLSRoots: "roots.pem"})
	wantCode(t, err, control.CodeBadRequest)

	check(t, r.client.DeleteHost(within(t), "NEW.example.fi:8443"))
	wantCode(t, r.client.DeleteHost(within(t), "new.example.fi:8443"), control.CodeNotFound)
	if roots, _ := r.roots.Hosts(); len(roots) != 0 {
		t.Errorf("roots left: %v", roots)
	}
	_, err = r.client.Host(within(t), "new.example.fi:8443")
	wantCode(t, err, control.CodeNotFound)
}

// raw sends a request that the client would not.
func (r *rig) raw(t *testing.T, method, path, body string, header http.Header) (int, control.Error) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.Socket())
	}}}
	req, err := http.NewRequestWithContext(within(t), method, "http://kortti"+path, strings.NewReader(body))
	check(t, err)
	for name, values := range header {
		if req.Header[name] = values; name == "Host" {
			req.Host = values[0]
		}
	}
	resp, err := hc.Do(req)
	check(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	check(t, err)
	var out struct{ Error control.Error }
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Errorf("%s %s: the error is no JSON: %s", method, path, raw)
		}
	}
	return resp.StatusCode, out.Error
}

func TestBadCalls(t *testing.T) {
	r := startFake(t, newFakeCards(person(t, 0)), "")
	p, err := r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	prompt := "/v1/prompts/" + p.ID
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"no such call":          {"GET", "/v1/nothing", "", 404, control.CodeNotFound},
		"root":                  {"GET", "/", "", 404, control.CodeNotFound},
		"wrong method":          {"PUT", "/v1/status", "", 405, "method-not-allowed"},
		"no JSON":               {"POST", "/v1/lock", "x", 400, control.CodeBadRequest},
		"unknown field":         {"POST", "/v1/lock", `{"crad":"A"}`, 400, control.CodeBadRequest},
		"two bodies":            {"POST", "/v1/lock", `{}{}`, 400, control.CodeBadRequest},
		"wrong type":            {"POST", "/v1/lock", `{"card":1}`, 400, control.CodeBadRequest},
		"too long":              {"POST", "/v1/lock", `{"card":"` + strings.Repeat("x", maxBody) + `"}`, 413, "too-long"},
		"no such card":          {"POST", "/v1/lock", `{"card":"x"}`, 503, control.CodeNoCard},
		"fingerprint":           {"POST", "/v1/unlock", `{"certificate":"x"}`, 400, control.CodeBadRequest},
		"no such certificate":   {"POST", "/v1/unlock", `{"certificate":"` + strings.Repeat("0", 64) + `"}`, 503, control.CodeCardRemoved},
		"no such prompt":        {"POST", "/v1/prompts/x", `{"lease":true}`, 404, control.CodeNotFound},
		"answer: no JSON":       {"POST", prompt, `x`, 400, control.CodeBadRequest},
		"answer: unknown field": {"POST", prompt, `{"pin2":"1234"}`, 400, control.CodeBadRequest},
		"answer: other case":    {"POST", prompt, `{"PIN":"1234"}`, 400, control.CodeBadRequest},
		"answer: number":        {"POST", prompt, `{"pin":1234}`, 400, control.CodeBadRequest},
		"answer: too long":      {"POST", prompt, `{"pin":"` + strings.Repeat("1", maxAnswer) + `"}`, 413, "too-long"},
		"answer: no lease":      {"POST", prompt, `{"pin":"1234"}`, 409, "prompt-not-leased"},
		"limit":                 {"GET", "/v1/audit?limit=0", "", 400, control.CodeBadRequest},
		"why: no host":          {"GET", "/v1/why", "", 400, control.CodeBadRequest},
		"trust: not listed":     {"GET", "/v1/trust?host=a.fi", "", 404, control.CodeNotFound},
		"consent":               {"DELETE", "/v1/consents/x", "", 404, control.CodeNotFound},
	} {
		status, e := r.raw(t, c.method, c.path, c.body, nil)
		if status != c.status || e.Code != c.code || e.Message == "" || strings.Contains(e.Message, "1234") {
			t.Errorf("%s: %d %+v, want %d %s", name, status, e, c.status, c.code)
		}
	}
	if n := r.cards.(*fakeCards).tries(); n != 0 {
		t.Errorf("%d logins were made", n)
	}
}

func TestWebPagesAreRefused(t *testing.T) {
	r := startFake(t, newFakeCards(), "")
	for name, h := range map[string]http.Header{
		"origin":    {"Origin": {"https://evil.example"}},
		"null":      {"Origin": {"null"}},
		"fetch":     {"Sec-Fetch-Site": {"cross-site"}},
		"referer":   {"Referer": {"https://evil.example/"}},
		"rebinding": {"Host": {"evil.example"}},
		"port":      {"Host": {"localhost:8080"}},
	} {
		if status, e := r.raw(t, "GET", "/v1/status", "", h); status != 403 || e.Code != "web-page" {
			t.Errorf("%s: %d %+v", name, status, e)
		}
	}
	if status, _ := r.raw(t, "GET", "/v1/status", "", http.Header{"Host": {"localhost"}}); status != 200 {
		t.Errorf("curl with http://localhost: %d", status)
	}
}

func TestUnlockByThePerson(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	cards.refuseWith(card.ErrWrongPIN)
	p, err := r.client.Unlock(within(t), control.CardSelection{Card: "A"})
	check(t, err)
	if p.Kind != control.PromptPIN || p.Name != "ÄILI TESTINEN" || p.CardLabel != "card A" || p.MinPIN != 4 || p.Host != "" {
		t.Errorf("%+v", p)
	}
	e := wantCode(t, r.answer(t, p.ID, control.Answer{PIN: pin("9999")}), control.CodePINWrong)
	if e.Hint == "" {
		t.Error("no hint")
	}
	if open, _ := r.client.Prompts(within(t)); len(open) != 0 || cards.tries() != 1 {
		t.Errorf("after a wrong PIN: %v, %d logins", open, cards.tries())
	}
	p, err = r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	check(t, r.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
	_, err = r.client.Unlock(within(t), control.CardSelection{})
	wantCode(t, err, control.CodeUnlocked)

	stream := r.attend(t)
	check(t, r.client.Lock(within(t), control.CardSelection{}))
	next(t, stream, control.EventLock)
	want := fmt.Sprint([]string{"unlock-refused", "unlock", "lock"})
	waitFor(t, "the audit file", func() bool { return fmt.Sprint(r.decisions(t)) == want })
	if status, _ := r.client.Status(within(t)); status.Cards[0].State != control.Locked {
		t.Error(status)
	}
}

func TestUnlockThatCannotBe(t *testing.T) {
	cards := newFakeCards()
	r := startFake(t, cards, "")
	_, err := r.client.Unlock(within(t), control.CardSelection{})
	wantCode(t, err, control.CodeNoReader)
	cards.insert("A", person(t, 0))
	cards.insert("B", person(t, 1))
	_, err = r.client.Unlock(within(t), control.CardSelection{})
	wantCode(t, err, control.CodeWhichCard)
	cards.change("A", card.PINRefused, func(c *card.Card) { c.PIN.Locked = true })
	_, err = r.client.Unlock(within(t), control.CardSelection{Card: "A"})
	wantCode(t, err, control.CodePINLocked)
	cards.pull("A")
	cards.pull("B")
	_, err = r.client.Unlock(within(t), control.CardSelection{Card: "A"})
	wantCode(t, err, control.CodeNoCard)
}

func TestFinalTry(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	cards.change("A", card.PINRefused, func(c *card.Card) { c.PIN.FinalTry = true })
	p, err := r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	if !p.FinalTry {
		t.Error("the prompt does not say that it is the final try")
	}
	lease, err := r.client.Lease(within(t), p.ID)
	check(t, err)
	_, err = r.client.Answer(within(t), p.ID, control.Answer{LeaseToken: lease, PIN: pin(rightPIN)})
	wantCode(t, err, control.CodePINFinalTry)
	if cards.tries() != 0 {
		t.Error("the final try was made without a confirmation")
	}
	_, err = r.client.Answer(within(t), p.ID, control.Answer{LeaseToken: lease, PIN: pin(rightPIN), ConfirmFinal: true})
	check(t, err)
}

// TestFinalTryThatThePromptDidNotSay confirms in advance: the PIN went down to
// its last try, by another program say, after the prompt was shown.
func TestFinalTryThatThePromptDidNotSay(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	p, err := r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	cards.mu.Lock()
	final := *cards.readers[0].Card
	final.PIN.FinalTry = true
	cards.readers[0].Card = &final
	cards.mu.Unlock()
	wantCode(t, r.answer(t, p.ID, control.Answer{PIN: pin(rightPIN), ConfirmFinal: true}), control.CodePINFinalTry)
	if n := cards.tries(); n != 0 {
		t.Errorf("%d logins", n)
	}
}

func TestPromptEndsWithItsCard(t *testing.T) {
	cards := newFakeCards(person(t, 0))
	r := startFake(t, cards, "")
	stream := r.attend(t)
	p, err := r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	cards.change("A", card.WasLocked, func(*card.Card) {}) // a new epoch
	if ev := next(t, stream, control.EventPromptClosed); ev.Prompt.ID != p.ID || ev.Reason != card.ErrLocked.Error() || ev.Code != control.CodeLocked {
		t.Errorf("%+v", ev)
	}
	p, err = r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	cards.pull("A")
	if ev := next(t, stream, control.EventPromptClosed); ev.Prompt.ID != p.ID || ev.Reason != card.ErrRemoved.Error() || ev.Code != control.CodeCardRemoved {
		t.Errorf("%+v", ev)
	}
	waitFor(t, "the audit file", func() bool { return fmt.Sprint(r.decisions(t)) == "[lock removed]" })
}

func TestStreamEndsWithTheAgent(t *testing.T) {
	r := startFake(t, newFakeCards(person(t, 0)), "")
	_, err := r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	stream := r.attend(t)
	if ev, err := stream.Next(); err != nil || ev.Kind != control.EventPrompt {
		t.Errorf("the stream does not begin with the open prompt: %+v %v", ev, err)
	}
	check(t, r.stop())
	for err = nil; err == nil; {
		_, err = stream.Next()
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if _, err := r.client.Status(within(t)); !errors.Is(err, control.ErrNotRunning) {
		t.Error(err)
	}
}

// TestPINIsNotLeftInBuffers looks at everything that net/http has read into
// once a front end has answered a prompt: rightly, wrongly, and beside the API.
func TestPINIsNotLeftInBuffers(t *testing.T) {
	r := startFake(t, newFakeCards(person(t, 0)), "")
	inner, err := net.Listen("unix", filepath.Join(r.dir, "second.sock"))
	check(t, err)
	ln := &rememberingListener{Listener: inner, read: make(chan [][]byte, 10)}
	server := &http.Server{Handler: r.handler()}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	client := control.New(inner.Addr().String())
	t.Cleanup(client.Close)

	p, err := r.client.Unlock(within(t), control.CardSelection{})
	check(t, err)
	lease, err := r.client.Lease(within(t), p.ID)
	check(t, err)
	const secret = "7351924680"
	for _, test := range []struct{ id, token, code string }{
		{p.ID, "stolen", "prompt-not-leased"},
		{"none", lease, control.CodeNotFound},
		{p.ID, lease, ""},
	} {
		_, err := client.Answer(within(t), test.id, control.Answer{LeaseToken: test.token, PIN: pin(secret)})
		if test.code != "" {
			wantCode(t, err, test.code)
		} else {
			check(t, err)
		}
		for _, b := range <-ln.read {
			if bytes.Contains(b, []byte(secret[:4])) {
				t.Errorf("after %v a buffer holds %q", err, bytes.TrimRight(b, "\x00"))
			}
		}
	}
}

// rememberingListener sends all buffers that a connection was read into when
// the server closes it.
type rememberingListener struct {
	net.Listener
	read chan [][]byte
}

func (l *rememberingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &rememberingConn{Conn: conn, read: l.read}, err
}

type rememberingConn struct {
	net.Conn
	read    chan<- [][]byte
	mu      sync.Mutex // guards buffers
	buffers [][]byte
	closed  sync.Once
}

func (c *rememberingConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	c.buffers = append(c.buffers, b)
	c.mu.Unlock()
	return c.Conn.Read(b)
}

func (c *rememberingConn) Close() error {
	c.closed.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.read <- c.buffers
	})
	return c.Conn.Close()
}

// FuzzParseAnswer feeds the reader of answers; what it takes must read the same
// by encoding/json, and errors must not carry the PIN.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"lease_token":"t","pin":"1234","confirm_final":true}`))
	f.Add([]byte(`{"pin":"1234","pin":"5678"}`))
	f.Add([]byte(`{"allow":true,"remember":true}`))
	f.Add([]byte(`{"pin":1234}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAnswer(raw)
		if err != nil {
			if len(a.PIN) > 0 || err.Error() != "the body is not an answer to a prompt" {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		var again control.Answer
		if err := json.Unmarshal(raw, &again); err != nil || string(again.PIN) != string(a.PIN) {
			t.Fatalf("%q: %v", raw, err)
		}
	})
}
