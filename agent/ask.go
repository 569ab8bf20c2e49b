package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/proxy"
	"github.com/kortti-id/kortti/card"
)

// maxQuestions limits what one request may have asked: consent, certificate,
// PIN, and some of them again where cards come and go meanwhile.
const maxQuestions = 8

// asker is who makes a request: what the proxy knows of it.
type asker struct {
	proxy.Asked
	epoch uint64 // of the cards, when the request came
}

type askerKey struct{}

// askerFrom returns who asks; a request that carries nobody is an unknown
// program's.
func askerFrom(ctx context.Context) asker {
	who, _ := ctx.Value(askerKey{}).(asker)
	return who
}

// program looks the program up, which costs milliseconds on the first call.
func (w asker) program() consent.Program {
	p := w.Peer.Program()
	return consent.Program{Path: p.Path, Sandbox: string(p.Sandbox.Kind), App: p.Sandbox.App, PID: p.PID, Started: p.Started, Connection: w.Peer.Inode}
}

// mustAsk is an error of what runs inside the transport: the person must be
// asked before the request can go on. Nobody is asked there, because the work is
// shared by requests that may ask in different ways, and some not at all: each
// asks for itself, outside of the transport, and is made again.
type mustAsk struct {
	// question makes what to ask for one of the requests, or tells with
	// errAnswered that nothing needs to be asked any more.
	question func(asker) (prompt.Question, error)
}

func (*mustAsk) Error() string { return "the person must be asked first" }

// errAnswered tells that there is nothing to ask.
var errAnswered = errors.New("nothing needs to be asked")

// Why a browser's request may not ask.
var (
	errCrossSite = &control.Error{
		Code: "cross-site", Status: http.StatusServiceUnavailable,
		Message: "pages of other sites cannot have the card asked for", Hint: "Open the site itself in a tab first.",
	}
	errNotAPage = &control.Error{
		Code: "not-a-page", Status: http.StatusServiceUnavailable,
		Message: "a page cannot have the card asked for in the background", Hint: "Reload the page.",
	}
	errWaiting = &control.Error{
		Code: "waiting", Status: http.StatusServiceUnavailable,
		Message: "waiting for the person's answer", Hint: "Answer the prompt of the tray app or of kortti prompt.",
	}
)

// ask has the person asked on behalf of a request, in the way that befits it,
// and returns nil when the request may be tried again:
//
//   - programs, and pages that are sent a form, ask and wait;
//   - a browser's navigation, which can come again, asks and waits in a holding
//     page instead (proxy.Hold);
//   - what a page fetches for itself waits if the person is being asked already;
//   - what a page of another site fetches does neither.
func (a *Agent) ask(ctx context.Context, question func(asker) (prompt.Question, error)) error {
	who := askerFrom(ctx)
	q, err := question(who)
	switch {
	case errors.Is(err, errAnswered):
		return nil
	case err != nil:
		return err
	case who.CrossSite:
		return errCrossSite
	case who.Repeats:
		return a.holds.put(who, q, a.desk)
	case who.Browser && !who.Navigation:
		if err = a.desk.Join(ctx, q); errors.Is(err, prompt.ErrNotOpen) {
			return errNotAPage
		}
	default:
		ctx, stop := whileThere(ctx, who.Gone)
		defer stop()
		err = a.desk.Ask(ctx, q)
	}
	return refusal(q.Kind, err)
}

// goneTime is how often it is looked whether a program is still there.
const goneTime = time.Second

// whileThere returns a context that ends when the program has gone, if it takes
// gone to know that. stop must be called.
func whileThere(ctx context.Context, gone func() bool) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	if gone != nil {
		looking.Go(func() {
			look := time.NewTicker(goneTime)
			defer look.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-look.C:
					if gone() {
						cancel()
					}
				}
			}
		})
	}
	return ctx, func() {
		cancel()
		looking.Wait()
	}
}

// refusal says of a PIN prompt that was cancelled what became of the card.
func refusal(kind control.PromptKind, err error) error {
	if kind == control.PromptPIN && errors.Is(err, prompt.ErrCancelled) {
		return fmt.Errorf("unlock the card: %w", card.ErrPINCancelled)
	}
	return err
}

// RoundTrip makes a program's request with a card, asking the person what must
// be asked before any of it is sent: proxy.Config.Transport.
func (a *Agent) RoundTrip(req *http.Request) (*http.Response, error) {
	var body *keptBody
	if req.Body != nil && req.Body != http.NoBody {
		body = &keptBody{ReadCloser: req.Body}
		defer body.letGo()
		req = req.WithContext(req.Context()) // a copy
		req.Body = body
	}
	var resp *http.Response
	err := a.asking(req.Context(), func() (err error) {
		if body != nil {
			body.reopen()
		}
		resp, err = a.transport.RoundTrip(req)
		return err
	})
	if err != nil {
		return nil, a.waitForCard(req.Context(), err)
	}
	return resp, nil
}

// asking tries until the person need not be asked any more, and returns what the
// last try came to, or why the person did not answer.
func (a *Agent) asking(ctx context.Context, try func() error) error {
	for range maxQuestions {
		err := try()
		var must *mustAsk
		if !errors.As(err, &must) {
			return err
		}
		if err := a.ask(ctx, must.question); err != nil {
			return err
		}
	}
	return fmt.Errorf("the card's state changed %d times meanwhile: %w", maxQuestions, card.ErrLocked)
}

// keptBody is a request's body that stays open while the request may be tried
// again: the transport closes what it has not begun to read. The last try may go
// on reading it after its answer has come.
type keptBody struct {
	io.ReadCloser

	mu           sync.Mutex // guards the next two
	gone, closed bool
}

func (b *keptBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if !b.gone {
		return nil
	}
	return b.ReadCloser.Close()
}

// reopen forgets that an earlier try wanted the body closed.
func (b *keptBody) reopen() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = false
}

// letGo lets the body be closed, and closes it if the last try wanted that.
func (b *keptBody) letGo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	if b.closed {
		b.ReadCloser.Close() // nothing can be done about it here
	}
}
