package agent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/proxy"
	"github.com/kortti-id/kortti/card"
)

// browser makes requests as a browser does.
type browser struct {
	w       *world
	program *http.Transport
}

func (w *world) browser(t *testing.T) browser { return browser{w, w.throughProxy(t)} }

// Fetch metadata of what browsers do.
const (
	navigate = "site=none mode=navigate dest=document"
	byHand   = navigate + " user=?1"
	image    = "site=same-origin mode=no-cors dest=image"
	stranger = "site=cross-site mode=no-cors dest=image"
)

// load makes a request and returns its status, code and body.
func (b browser) load(t *testing.T, method, path, metadata string) (status int, code, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), method, "https://"+siteName+path, nil)
	check(t, err)
	for field := range strings.FieldsSeq(metadata) {
		name, value, _ := strings.Cut(field, "=")
		req.Header.Set("Sec-Fetch-"+name, value)
	}
	resp, err := b.program.RoundTrip(req)
	check(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, resp.Header.Get("X-Kortti-Error"), string(raw)
}

// want loads a page and checks what comes.
func (b browser) want(t *testing.T, method, metadata string, status int, code string) (body string) {
	t.Helper()
	got, gotCode, body := b.load(t, method, "/", metadata)
	if got != status || gotCode != code {
		t.Fatalf("%s %s: %d %q, want %d %q", method, metadata, got, gotCode, status, code)
	}
	return body
}

// holding loads a page and checks that it is a holding page that says title.
func (b browser) holding(t *testing.T, title string) {
	t.Helper()
	status, _, body := b.load(t, "GET", "/", navigate)
	if status != 503 || !strings.Contains(body, "<h1 role=\"status\">"+title) || !strings.Contains(body, `http-equiv="refresh"`) {
		t.Fatalf("%d %s", status, body)
	}
}

// TestHoldingPages is a browser that is asked for consent and PIN while its pages
// come again and again: one prompt each, one login, one signature.
func TestHoldingPages(t *testing.T) {
	w := newWorld(t, "")
	b := w.browser(t)
	b.want(t, "GET", navigate, 503, control.CodeNoFrontEnd)
	stream := w.attend(t)
	for range 5 {
		b.holding(t, "May this browser use your card here?")
	}
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, w.answer(t, p.ID, control.Answer{Allow: &yes, Remember: true}))
	waitFor(t, "the page to ask for the PIN", func() bool {
		_, _, body := b.load(t, "GET", "/", navigate)
		return strings.Contains(body, "Enter your PIN")
	})
	dials := w.dials.Load()
	for range 5 {
		b.holding(t, "Enter your PIN")
	}
	if d := w.dials.Load(); d != dials {
		t.Errorf("pages that wait dialled %d times", d-dials)
	}
	p = next(t, stream, control.EventPrompt).Prompt

	// What the page itself fetches waits with it; others neither wait nor ask.
	sub := make(chan int, 1)
	go func() {
		status, _, _ := w.browser(t).load(t, "GET", "/", image)
		sub <- status
	}()
	waitFor(t, "the image to wait", func() bool { return running("prompt.(*Desk).Join(") == 1 })
	b.want(t, "GET", stranger, 503, "cross-site")
	wantCode(t, w.answer(t, p.ID, control.Answer{PIN: pin("9999")}), control.CodePINWrong)
	p = next(t, stream, control.EventPrompt).Prompt
	b.holding(t, "Enter your PIN")
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
	waitFor(t, "the page itself", func() bool {
		_, _, body := b.load(t, "GET", "/", navigate)
		return strings.HasPrefix(body, "999")
	})
	if status := <-sub; status != 200 {
		t.Errorf("an image of the page: %d", status)
	}
	status, err := w.client.Status(within(t))
	check(t, err)
	if l, s, n := w.count(t, "C_Login"), w.count(t, "signatures"), status.Counters.Prompts; l != 2 || s != 1 || n != 3 {
		t.Errorf("%d logins (one wrong), %d signatures, %d prompts", l, s, n)
	}
}

// TestRefusedInABrowser ends holding pages with one that says so; nobody is asked
// again before the person wants it and the pause is over.
func TestRefusedInABrowser(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	b, stream := w.browser(t), w.attend(t)
	b.want(t, "GET", image, 503, "not-a-page") // pages cannot have the PIN asked for by what they fetch
	b.want(t, "GET", stranger, 503, "cross-site")
	b.holding(t, "Enter your PIN")
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, w.answer(t, p.ID, control.Answer{Cancel: true}))
	var body string
	waitFor(t, "the end of the hold", func() bool {
		var status int
		status, _, body = b.load(t, "GET", "/", navigate)
		return status == 403
	})
	if !strings.Contains(body, "You cancelled") || !strings.Contains(body, `<a href="">Try again</a>`) || strings.Contains(body, "http-equiv") {
		t.Error(body)
	}
	b.want(t, "GET", navigate, 403, control.CodePINCancelled) // another tab of it
	b.want(t, "GET", byHand, 503, "prompt-paused")
	b.want(t, "GET", navigate, 503, "prompt-paused")
	if n := w.desk.Raised(); n != 1 {
		t.Errorf("%d prompts", n)
	}
	if d := w.count(t, "C_Login"); d != 0 {
		t.Errorf("%d logins", d)
	}
}

// TestFormWaits: what a page sends is not sent again, so it waits.
func TestFormWaits(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	b, stream := w.browser(t), w.attend(t)
	form := make(chan string, 1)
	go func() {
		status, _, body := b.load(t, "POST", "/", navigate)
		form <- fmt.Sprint(status, body)
	}()
	p := next(t, stream, control.EventPrompt).Prompt
	w.browser(t).holding(t, "Enter your PIN") // another tab, meanwhile
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
	if got := <-form; !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if s, n := w.count(t, "signatures"), w.desk.Raised(); s != 1 || n != 1 {
		t.Errorf("%d signatures, %d prompts", s, n)
	}
}

// TestBodyOutlivesTheQuestion: a body that has waited for the PIN goes on to be
// sent after the host has begun to answer.
func TestBodyOutlivesTheQuestion(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		w := newWorld(t, "consent = \"always\"\n", func(site *httptest.Server) {
			site.EnableHTTP2 = http2
			site.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				out := http.NewResponseController(rw)
				if err := out.EnableFullDuplex(); err != nil && !http2 {
					t.Error(err)
				}
				for buffer := make([]byte, 1000); ; {
					n, err := r.Body.Read(buffer)
					rw.Write(buffer[:n])
					out.Flush()
					if err != nil {
						return
					}
				}
			})
		})
		stream := w.attend(t)
		from, to := io.Pipe()
		req, err := http.NewRequestWithContext(within(t), "POST", "https://"+siteName+"/", from)
		check(t, err)
		program := w.throughProxy(t)
		program.ForceAttemptHTTP2 = true // HTTP/1.1 clients read no answer before the body's end
		answer := make(chan *http.Response, 1)
		go func() {
			resp, err := program.RoundTrip(req)
			if err != nil {
				t.Error(err)
			}
			answer <- resp
		}()
		p := next(t, stream, control.EventPrompt).Prompt
		check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
		const half = "the first half, "
		_, err = io.WriteString(to, half)
		check(t, err)
		resp := <-answer
		if resp == nil {
			t.FailNow()
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, len(half))); err != nil {
			t.Fatal(err)
		}
		rest := strings.Repeat("and the rest ", 20_000)
		go func() {
			io.WriteString(to, rest)
			to.Close()
		}()
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != rest {
			t.Errorf("HTTP/2 at the host %v: %d of %d bytes came back: %v", http2, len(got), len(rest), err)
		}
		from.Close()
	}
}

// TestCardForAPage: a page waits for the card, too, without troubling the host.
func TestCardForAPage(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	b, stream := w.browser(t), w.attend(t)
	check(t, w.card.Pull())
	waitFor(t, "the removal", func() bool { return !w.anyCard() })
	b.holding(t, "Insert your card")
	dials := w.dials.Load()
	for range 5 {
		b.holding(t, "Insert your card")
	}
	if d := w.dials.Load(); d != dials {
		t.Errorf("pages that wait dialled %d times", d-dials)
	}
	check(t, w.card.Insert())
	waitFor(t, "the page to see the card", func() bool {
		_, _, body := b.load(t, "GET", "/", navigate)
		return strings.Contains(body, "Enter your PIN")
	})
	next(t, stream, control.EventPrompt)
	check(t, w.card.Pull())
	waitFor(t, "the page to miss the card again", func() bool {
		_, _, body := b.load(t, "GET", "/", navigate)
		return strings.Contains(body, "Insert your card") && strings.Contains(body, `http-equiv="refresh"`)
	})
	if ev := next(t, stream, control.EventPromptClosed); ev.Code != control.CodeCardRemoved {
		t.Errorf("%+v", ev)
	}
	if n := w.count(t, "C_Login"); n != 0 {
		t.Errorf("%d logins", n)
	}
}

// TestHoldEndsWithItsHost: taking a host off the list closes what was asked for
// its sake.
func TestHoldEndsWithItsHost(t *testing.T) {
	w := newWorld(t, "")
	stream := w.attend(t)
	_, err := w.client.PutHost(within(t), control.Host{Name: "b.example.fi", Consent: "ask"})
	check(t, err)
	ask := proxy.Asked{Host: "b.example.fi", Browser: true, Navigation: true, Repeats: true}
	var hold *proxy.Hold
	if _, err := w.admit(within(t), ask); !errors.As(err, &hold) || hold.For != proxy.WaitConsent {
		t.Fatal(err)
	}
	next(t, stream, control.EventPrompt)
	check(t, w.client.DeleteHost(within(t), "b.example.fi"))
	next(t, stream, control.EventPromptClosed)
	if l := w.desk.List(); len(l) != 0 {
		t.Errorf("%+v", l)
	}
}

// TestHoldsAreForgotten when nobody comes back for them, and end with the desk.
func TestHoldsAreForgotten(t *testing.T) {
	desk := prompt.NewDesk(func(control.Event, error) {})
	defer desk.Attend()()
	var h holds
	who := asker{Asked: proxy.Asked{Host: "a.example.fi", Peer: peer.Peer{Inode: 1}, Repeats: true}}
	h.keep(holdKey(who), &hold{wait: proxy.WaitCard, err: card.ErrNoCard})
	if err := h.look(who); !errors.Is(err, card.ErrNoCard) {
		t.Error(err)
	}
	for _, old := range h.all {
		old.seen = old.seen.Add(-2 * forgetTime)
	}
	other := who
	other.Host = "b.example.fi"
	if err := h.put(other, prompt.Question{Key: "x"}, desk); err == nil {
		t.Error("a navigation does not wait")
	}
	if len(h.all) != 1 {
		t.Errorf("%d holds", len(h.all))
	}
	desk.Close()
	h.wait()
	if err := h.look(other); !errors.Is(err, prompt.ErrClosed) {
		t.Error(err)
	}
}

// TestProgramGoesInTheMiddle: the prompt of a program that has vanished while its
// body is unread goes too.
func TestProgramGoesInTheMiddle(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	stream := w.attend(t)
	upload := exec.CommandContext(within(t), "curl", "-sS", "--proxy", "http://"+w.Proxy(), "--cacert", w.root, "--http1.1",
		"-H", "Expect:", "-T", "-", "https://"+siteName+"/")
	upload.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}
	in, err := upload.StdinPipe()
	check(t, err)
	check(t, upload.Start())
	_, err = io.WriteString(in, "the beginning of a body")
	check(t, err)
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, upload.Process.Kill())
	_ = upload.Wait() // killed
	in.Close()
	if ev := next(t, stream, control.EventPromptClosed); ev.Prompt.ID != p.ID {
		t.Errorf("%+v", ev)
	}
}

// TestRevokedConsent: a consent that is taken back is asked for at the next
// request, also on a connection that was there before.
func TestRevokedConsent(t *testing.T) {
	w := newWorld(t, "")
	b, stream := w.browser(t), w.attend(t)
	fetch := func() <-chan int {
		end := make(chan int, 1)
		go func() {
			status, _, _ := b.load(t, "GET", "/", "")
			end <- status
		}()
		return end
	}
	w.unlockNow(t)
	next(t, stream, control.EventPrompt) // of unlockNow
	first := fetch()
	check(t, w.answer(t, next(t, stream, control.EventPrompt).Prompt.ID, control.Answer{Allow: &yes, Remember: true}))
	for range 3 {
		if status := <-first; status != 200 {
			t.Fatal(status)
		}
		first = fetch()
	}
	<-first
	check(t, w.client.DeleteConsent(within(t), ""))
	again := fetch()
	check(t, w.answer(t, next(t, stream, control.EventPrompt).Prompt.ID, control.Answer{Allow: &no}))
	if status := <-again; status != 403 {
		t.Error(status)
	}
	if s, n := w.count(t, "signatures"), w.desk.Raised(); s != 1 || n != 3 {
		t.Errorf("%d signatures, %d prompts", s, n)
	}
}
