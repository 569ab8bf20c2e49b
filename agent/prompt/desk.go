package prompt

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// Desk is where questions are put and answered. It is safe for concurrent use.
// It starts no goroutine; its timers end with Close.
type Desk struct {
	notify func(ev control.Event, why error)

	mu     sync.Mutex // guards all below
	open   []*matter  // oldest first
	paused map[string]refusals
	fronts int
	raised uint64
	closed bool
}

// matter is one question with those who wait for its answer, over one prompt or,
// after refused PINs, several.
type matter struct {
	Question
	lease   string
	busy    bool // Try is running
	person  bool // raised by the person, so it stays without a waiting request
	waiters int
	timer   *time.Timer

	done chan struct{} // closed when err is set
	err  error
}

// NewDesk returns a desk that tells notify of each prompt that opens and closes,
// in order, and why it closes if it was not answered well. notify must neither
// block nor call the desk.
func NewDesk(notify func(ev control.Event, why error)) *Desk {
	return &Desk{notify: notify, paused: make(map[string]refusals)}
}

// Attend declares a front end that shows prompts and answers them, until leave
// is called. When the last one leaves, requests stop waiting.
func (d *Desk) Attend() (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fronts++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.fronts--; d.fronts == 0 {
			d.end(func(m *matter) (bool, error) { return !m.person && !m.busy, ErrNoFrontEnd })
		}
	})
}

// refusals are how often in a row the person has said no to a question.
type refusals struct {
	number int
	until  time.Time // programs may not ask before
}

// Ask puts a program's question, or joins the prompt that asks it already, and
// waits for the answer. With no front end it fails at once. When ctx ends the
// request stops waiting, and the prompt goes with the last one.
func (d *Desk) Ask(ctx context.Context, q Question) error {
	w, err := d.Put(q)
	if err != nil {
		return err
	}
	return w.Wait(ctx)
}

// Join waits for the answer as Ask does if the question is open already, and
// never puts it.
func (d *Desk) Join(ctx context.Context, q Question) error {
	d.mu.Lock()
	m := d.find(q.Key)
	over := m == nil && q.Over != nil && q.Over()
	if m != nil {
		m.waiters++
	}
	d.mu.Unlock()
	switch {
	case over:
		return nil
	case m == nil:
		return ErrNotOpen
	}
	return (&Waiter{d, m}).Wait(ctx)
}

// Waiter is a request's wait for an answer.
type Waiter struct {
	desk   *Desk
	matter *matter // nil: there is nothing to wait for
}

// Put puts a program's question as Ask does, but does not wait. Call Wait once:
// the prompt stays until it returns, or is answered, or expires.
func (d *Desk) Put(q Question) (*Waiter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.find(q.Key)
	if m == nil {
		if q.Over != nil && q.Over() {
			return &Waiter{}, nil
		}
		if err := d.mayAsk(&q); err != nil {
			return nil, err
		}
		m = d.raise(q)
	}
	m.waiters++
	return &Waiter{d, m}, nil
}

// Wait returns nil when the question was answered well, and otherwise why not.
func (w *Waiter) Wait(ctx context.Context) error {
	if w.matter == nil {
		return nil
	}
	select {
	case <-w.matter.done:
		return w.matter.err
	case <-ctx.Done():
		w.desk.leave(w.matter, context.Cause(ctx))
		return context.Cause(ctx)
	}
}

// Open puts a question that the person asked for and returns its prompt; who
// asked answers it, so it needs no other front end and knows no pause.
func (d *Desk) Open(q Question) (control.Prompt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return control.Prompt{}, ErrClosed
	}
	m := d.find(q.Key)
	if m == nil {
		m = d.raise(q)
	}
	m.person = true
	return m.Prompt, nil
}

// List returns the open prompts, oldest first.
func (d *Desk) List() []control.Prompt {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []control.Prompt{}
	for _, m := range d.open {
		list = append(list, m.Prompt)
	}
	return list
}

// Raised returns how many prompts have been shown.
func (d *Desk) Raised() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.raised
}

// Answer leases a prompt or answers it, and wipes its PINs. The error is what
// became of the answer: one of this package's, or Try's.
func (d *Desk) Answer(ctx context.Context, id string, a control.Answer) (control.AnswerResult, error) {
	defer a.Wipe()
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.open, func(m *matter) bool { return m.ID == id })
	if i < 0 {
		return control.AnswerResult{}, ErrNotFound
	}
	m := d.open[i]
	if a.Lease {
		return m.take()
	}
	if m.lease == "" || subtle.ConstantTimeCompare([]byte(m.lease), []byte(a.LeaseToken)) == 0 {
		return control.AnswerResult{}, ErrNotLeased
	}
	if m.busy {
		return control.AnswerResult{}, ErrBusy
	}
	declined, bad := m.check(a)
	if bad != nil {
		return control.AnswerResult{}, bad
	}
	if declined != nil {
		d.pause(m)
		if m.Declined != nil {
			m.Declined(declined)
		}
		d.finish(m, declined)
		return control.AnswerResult{Done: true}, nil
	}
	err := d.try(ctx, m, a)
	return control.AnswerResult{Done: err == nil}, err
}

// End ends the prompts for which match says so, with the error that it gives;
// nil means that the question has answered itself. busy prompts are those whose
// answer is being tried.
func (d *Desk) End(match func(q *Question, busy bool) (end bool, err error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end(func(m *matter) (bool, error) { return match(&m.Question, m.busy) })
}

// Close ends all prompts; later questions get ErrClosed.
func (d *Desk) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.end(func(*matter) (bool, error) { return true, ErrClosed })
}

// take gives the lease to the first who asks for it.
func (m *matter) take() (control.AnswerResult, error) {
	if m.lease != "" {
		return control.AnswerResult{}, ErrLeased
	}
	m.lease, m.Leased = rand.Text(), true
	return control.AnswerResult{LeaseToken: m.lease}, nil
}

// try runs Try without the lock and settles the matter by what came out. A front
// end that goes away meanwhile does not stop a login half-way.
func (d *Desk) try(ctx context.Context, m *matter, a control.Answer) error {
	m.busy = true
	m.timer.Stop()
	d.mu.Unlock()
	err := m.Try(context.WithoutCancel(ctx), a)
	d.mu.Lock()
	m.busy = false
	switch {
	case !slices.Contains(d.open, m): // ended meanwhile, by a removal say
	case err == nil:
		delete(d.paused, m.pauseKey())
		d.finish(m, nil)
	case m.waiters > 0 && m.Again != nil && d.again(m, err):
	default:
		d.finish(m, err)
	}
	return err
}

// again shows a new prompt to the same waiting requests, if the question has one.
func (d *Desk) again(m *matter, err error) bool {
	next, ok := m.Again(err)
	if !ok {
		return false
	}
	d.tell(control.EventPromptClosed, m, err)
	m.Question, m.lease = next, ""
	d.show(m)
	return true
}

// raise opens a new prompt.
func (d *Desk) raise(q Question) *matter {
	m := &matter{Question: q, done: make(chan struct{})}
	d.open = append(d.open, m)
	d.show(m)
	return m
}

// show gives the matter's question a prompt of its own.
func (d *Desk) show(m *matter) {
	id := rand.Text()
	m.ID, m.Leased, m.Expires = id, false, time.Now().Add(m.expiry())
	m.timer = time.AfterFunc(m.expiry(), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.end(func(o *matter) (bool, error) { return o.ID == id && !o.busy, ErrExpired })
	})
	d.raised++
	d.tell(control.EventPrompt, m, nil)
}

// finish closes the matter and lets go all who wait.
func (d *Desk) finish(m *matter, err error) {
	m.timer.Stop()
	d.open = slices.DeleteFunc(d.open, func(o *matter) bool { return o == m })
	m.err = err
	close(m.done)
	d.tell(control.EventPromptClosed, m, err)
}

// end finishes every matter that match picks.
func (d *Desk) end(match func(*matter) (bool, error)) {
	for _, m := range slices.Clone(d.open) {
		if end, err := match(m); end {
			d.finish(m, err)
		}
	}
}

// leave is the end of one request's wait.
func (d *Desk) leave(m *matter, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.waiters--
	d.end(func(o *matter) (bool, error) { return o == m && m.waiters == 0 && !m.person && !m.busy, err })
}

func (d *Desk) tell(kind control.EventKind, m *matter, err error) {
	shown := m.Prompt
	ev := control.Event{Kind: kind, Card: m.Card, Certificate: m.Certificate, Host: m.Host, Prompt: &shown}
	if err != nil {
		ev.Reason = err.Error()
	}
	d.notify(ev, err)
}

func (d *Desk) find(key string) *matter {
	if i := slices.IndexFunc(d.open, func(m *matter) bool { return m.Key == key }); i >= 0 {
		return d.open[i]
	}
	return nil
}

// mayAsk tells why a program may not raise a prompt now.
func (d *Desk) mayAsk(q *Question) error {
	switch {
	case d.closed:
		return ErrClosed
	case d.fronts == 0:
		return ErrNoFrontEnd
	case time.Now().Before(d.paused[q.pauseKey()].until):
		return ErrPaused
	case len(d.open) >= maxOpen:
		return ErrTooMany
	}
	return nil
}

// pause keeps programs from asking again for a while.
func (d *Desk) pause(m *matter) {
	now := time.Now()
	for k, r := range d.paused {
		if now.Sub(r.until) > LongPause {
			delete(d.paused, k)
		}
	}
	r := d.paused[m.pauseKey()]
	if m.person { // who has asked for the prompt is not worn down by it
		r.until = latest(r.until, now.Add(Pause))
	} else {
		r.until = latest(r.until, now.Add(min(Pause<<min(r.number, 10), LongPause)))
		r.number++
	}
	d.paused[m.pauseKey()] = r
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
