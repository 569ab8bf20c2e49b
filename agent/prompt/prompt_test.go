package prompt

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

var (
	errWrong = errors.New("wrong PIN")
	errGone  = errors.New("the card was removed")
)

// table is a desk with the events it gave, for tests in a synctest bubble.
type table struct {
	*Desk
	t      *testing.T
	events []string
}

func newTable(t *testing.T) *table {
	tb := &table{t: t}
	tb.Desk = NewDesk(func(ev control.Event, _ error) {
		tb.events = append(tb.events, string(ev.Kind)+" "+ev.Reason)
	})
	t.Cleanup(tb.Close)
	return tb
}

// ask starts a waiting request and returns where its end will be told.
func (tb *table) ask(ctx context.Context, q Question) <-chan error {
	end := make(chan error, 1)
	go func() {
		end <- tb.Ask(ctx, q)
	}()
	synctest.Wait()
	return end
}

// only returns the one open prompt.
func (tb *table) only() control.Prompt {
	tb.t.Helper()
	list := tb.List()
	if len(list) != 1 {
		tb.t.Fatalf("%d prompts are open, want 1", len(list))
	}
	return list[0]
}

// answer leases the prompt and answers it.
func (tb *table) answer(id string, a control.Answer) error {
	tb.t.Helper()
	res, err := tb.Answer(tb.t.Context(), id, control.Answer{Lease: true})
	if err != nil {
		tb.t.Fatal(err)
	}
	a.LeaseToken = res.LeaseToken
	_, err = tb.Answer(tb.t.Context(), id, a)
	return err
}

// pinQuestion takes the PIN "1234" and asks again after any other.
func pinQuestion(tries *int) Question {
	q := Question{Key: "pin", Prompt: control.Prompt{Kind: control.PromptPIN, Card: "card", Certificate: "cert"}}
	q.Try = func(_ context.Context, a control.Answer) error {
		*tries++
		if string(a.PIN) == "1234" {
			return nil
		}
		return errWrong
	}
	q.Again = func(err error) (Question, bool) {
		next := q
		next.Message = err.Error()
		return next, errors.Is(err, errWrong)
	}
	return q
}

func (tb *table) ended(end <-chan error, want error) {
	tb.t.Helper()
	synctest.Wait()
	select {
	case err := <-end:
		if !errors.Is(err, want) {
			tb.t.Errorf("the request ended with %v, want %v", err, want)
		}
	default:
		tb.t.Error("the request still waits")
	}
}

func (tb *table) waits(end <-chan error) {
	tb.t.Helper()
	synctest.Wait()
	select {
	case err := <-end:
		tb.t.Errorf("the request ended: %v", err)
	default:
	}
}

func TestNobodyToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		tb.ended(tb.ask(t.Context(), pinQuestion(new(int))), ErrNoFrontEnd)
		if tb.Raised() != 0 {
			t.Error("a prompt was raised")
		}
		leave := tb.Attend()
		end := tb.ask(t.Context(), pinQuestion(new(int)))
		tb.waits(end)
		leave()
		tb.ended(end, ErrNoFrontEnd)
	})
}

func TestRequestsShareOnePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		defer tb.Attend()()
		var ends []<-chan error
		for range 5 {
			ends = append(ends, tb.ask(t.Context(), pinQuestion(&tries)))
		}
		if err := tb.answer(tb.only().ID, control.Answer{PIN: control.Secret("1234")}); err != nil {
			t.Fatal(err)
		}
		for _, end := range ends {
			tb.ended(end, nil)
		}
		if tries != 1 || tb.Raised() != 1 || len(tb.List()) != 0 {
			t.Errorf("%d logins, %d prompts, %d open", tries, tb.Raised(), len(tb.List()))
		}
	})
}

func TestWrongPINIsTriedOncePerPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		defer tb.Attend()()
		end := tb.ask(t.Context(), pinQuestion(&tries))
		first := tb.only()
		pin := control.Secret("9999")
		if err := tb.answer(first.ID, control.Answer{PIN: pin}); !errors.Is(err, errWrong) {
			t.Fatal(err)
		}
		if string(pin) != "\x00\x00\x00\x00" {
			t.Error("the PIN was not wiped")
		}
		tb.waits(end)
		second := tb.only()
		if second.ID == first.ID || second.Message != errWrong.Error() || second.Leased {
			t.Errorf("the prompt after a refused PIN: %+v", second)
		}
		if _, err := tb.Answer(t.Context(), first.ID, control.Answer{PIN: control.Secret("9999")}); !errors.Is(err, ErrNotFound) {
			t.Errorf("the first prompt took a second PIN: %v", err)
		}
		if err := tb.answer(second.ID, control.Answer{PIN: control.Secret("1234")}); err != nil {
			t.Fatal(err)
		}
		tb.ended(end, nil)
		want := []string{"prompt ", "prompt-closed wrong PIN", "prompt ", "prompt-closed "}
		if fmt.Sprint(tb.events) != fmt.Sprint(want) || tries != 2 {
			t.Errorf("%d logins, events %q, want %q", tries, tb.events, want)
		}
	})
}

func TestWrongPINWithoutWaitingRequestsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		p, err := tb.Open(pinQuestion(&tries)) // needs no front end
		if err != nil {
			t.Fatal(err)
		}
		if err := tb.answer(p.ID, control.Answer{PIN: control.Secret("9999")}); !errors.Is(err, errWrong) {
			t.Fatal(err)
		}
		if len(tb.List()) != 0 || tries != 1 {
			t.Error(tb.List(), tries)
		}
	})
}

func TestErrorThatNoPINHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		defer tb.Attend()()
		q := pinQuestion(new(int))
		q.Try = func(context.Context, control.Answer) error { return errGone }
		end := tb.ask(t.Context(), q)
		if err := tb.answer(tb.only().ID, control.Answer{PIN: control.Secret("1234")}); !errors.Is(err, errGone) {
			t.Error(err)
		}
		tb.ended(end, errGone)
	})
}

func TestCancelPausesPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		defer tb.Attend()()
		end, end2 := tb.ask(t.Context(), pinQuestion(&tries)), tb.ask(t.Context(), pinQuestion(&tries))
		if err := tb.answer(tb.only().ID, control.Answer{Cancel: true}); err != nil {
			t.Fatal(err)
		}
		tb.ended(end, ErrCancelled)
		tb.ended(end2, ErrCancelled)
		tb.ended(tb.ask(t.Context(), pinQuestion(&tries)), ErrPaused)

		p, err := tb.Open(pinQuestion(&tries)) // the person may always
		if err != nil {
			t.Fatal(err)
		}
		if err := tb.answer(p.ID, control.Answer{Cancel: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(Pause)
		end = tb.ask(t.Context(), pinQuestion(&tries))
		tb.waits(end)
		if tries != 0 {
			t.Error("a cancelled prompt logged in")
		}
	})
}

// TestTooManyPrompts is a program that asks under ever new keys.
func TestTooManyPrompts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		defer tb.Attend()()
		q := pinQuestion(&tries)
		for i := range maxOpen {
			q.Key = fmt.Sprint(i)
			tb.waits(tb.ask(t.Context(), q))
		}
		tb.waits(tb.ask(t.Context(), q)) // joins its prompt
		q.Key = "one more"
		tb.ended(tb.ask(t.Context(), q), ErrTooMany)
		if _, err := tb.Open(q); err != nil { // the person may always
			t.Error(err)
		}
	})
}

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		p, _ := tb.Open(pinQuestion(&tries))
		send := func(a control.Answer) error {
			_, err := tb.Answer(t.Context(), p.ID, a)
			return err
		}
		if err := send(control.Answer{PIN: control.Secret("1234")}); !errors.Is(err, ErrNotLeased) {
			t.Error(err)
		}
		res, err := tb.Answer(t.Context(), p.ID, control.Answer{Lease: true})
		if err != nil || res.LeaseToken == "" {
			t.Fatal(res, err)
		}
		if err := send(control.Answer{Lease: true}); !errors.Is(err, ErrLeased) {
			t.Error(err)
		}
		if err := send(control.Answer{PIN: control.Secret("1234"), LeaseToken: "guess"}); !errors.Is(err, ErrNotLeased) {
			t.Error(err)
		}
		if err := send(control.Answer{Cancel: true}); !errors.Is(err, ErrNotLeased) {
			t.Errorf("a program without the lease cancelled: %v", err)
		}
		if tries != 0 || !tb.only().Leased {
			t.Error(tries, tb.only())
		}
	})
}

func TestFinalTryNeedsConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		q := pinQuestion(&tries)
		q.FinalTry = true
		p, _ := tb.Open(q)
		res, _ := tb.Answer(t.Context(), p.ID, control.Answer{Lease: true})
		a := control.Answer{PIN: control.Secret("1234"), LeaseToken: res.LeaseToken}
		if _, err := tb.Answer(t.Context(), p.ID, a); !errors.Is(err, ErrConfirmFinal) || tries != 0 {
			t.Fatal(err, tries)
		}
		a.PIN, a.ConfirmFinal = control.Secret("1234"), true // the prompt and its lease are still there
		if _, err := tb.Answer(t.Context(), p.ID, a); err != nil || tries != 1 {
			t.Fatal(err, tries)
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		defer tb.Attend()()
		end := tb.ask(t.Context(), pinQuestion(new(int)))
		time.Sleep(Expiry - time.Second)
		tb.waits(end)
		time.Sleep(time.Second)
		tb.ended(end, ErrExpired)
	})
}

func TestPromptGoesWithTheLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		defer tb.Attend()()
		ctx, cancel := context.WithCancel(t.Context())
		ctx2, cancel2 := context.WithCancel(t.Context())
		defer cancel2()
		end, end2 := tb.ask(ctx, pinQuestion(new(int))), tb.ask(ctx2, pinQuestion(new(int)))
		cancel()
		tb.ended(end, context.Canceled)
		tb.waits(end2)
		tb.only()
		cancel2()
		tb.ended(end2, context.Canceled)
		if len(tb.List()) != 0 {
			t.Error("the prompt stayed")
		}
	})
}

func TestEndByRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		defer tb.Attend()()
		inTry, release := make(chan struct{}), make(chan struct{})
		q := pinQuestion(new(int))
		q.Try = func(context.Context, control.Answer) error { close(inTry); <-release; return nil }
		end := tb.ask(t.Context(), q)
		answered := make(chan error, 1)
		go func() { answered <- tb.answer(tb.only().ID, control.Answer{PIN: control.Secret("1234")}) }()
		<-inTry
		id := tb.only().ID
		if _, err := tb.Answer(t.Context(), id, control.Answer{Lease: true}); !errors.Is(err, ErrLeased) {
			t.Error(err)
		}
		time.Sleep(2 * Expiry) // a login that runs does not expire
		tb.waits(end)
		tb.End(func(q *Question, busy bool) (bool, error) { return busy && q.Card == "card", errGone })
		tb.ended(end, errGone) // at once, while the login still hangs
		close(release)
		tb.ended(answered, nil)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		defer tb.Attend()()
		end := tb.ask(t.Context(), pinQuestion(new(int)))
		tb.Close()
		tb.ended(end, ErrClosed)
		tb.ended(tb.ask(t.Context(), pinQuestion(new(int))), ErrClosed)
		if _, err := tb.Open(pinQuestion(new(int))); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestAnswersFitTheirPrompt(t *testing.T) {
	yes, no := true, false
	pin := control.Secret("1234")
	for name, c := range map[string]struct {
		p             control.Prompt
		a             control.Answer
		declined, bad error
	}{
		"pin":                   {control.Prompt{Kind: control.PromptPIN}, control.Answer{PIN: pin}, nil, nil},
		"pin: nothing":          {control.Prompt{Kind: control.PromptPIN}, control.Answer{}, nil, ErrBadAnswer},
		"pin: two answers":      {control.Prompt{Kind: control.PromptPIN}, control.Answer{PIN: pin, Cancel: true}, nil, ErrBadAnswer},
		"pin: allow":            {control.Prompt{Kind: control.PromptPIN}, control.Answer{Allow: &yes}, nil, ErrBadAnswer},
		"pin: remember":         {control.Prompt{Kind: control.PromptPIN}, control.Answer{PIN: pin, Remember: true}, nil, ErrBadAnswer},
		"pin: cancel":           {control.Prompt{Kind: control.PromptPIN}, control.Answer{Cancel: true}, ErrCancelled, nil},
		"pad: ready":            {control.Prompt{Kind: control.PromptPIN, PinPad: true}, control.Answer{Allow: &yes}, nil, nil},
		"pad: no":               {control.Prompt{Kind: control.PromptPIN, PinPad: true}, control.Answer{Allow: &no}, ErrCancelled, nil},
		"pad: pin":              {control.Prompt{Kind: control.PromptPIN, PinPad: true}, control.Answer{PIN: pin}, nil, ErrBadAnswer},
		"pad: final":            {control.Prompt{Kind: control.PromptPIN, PinPad: true, FinalTry: true}, control.Answer{Allow: &yes}, nil, ErrConfirmFinal},
		"consent: yes":          {control.Prompt{Kind: control.PromptConsent}, control.Answer{Allow: &yes, Remember: true}, nil, nil},
		"consent: no":           {control.Prompt{Kind: control.PromptConsent}, control.Answer{Allow: &no}, ErrDenied, nil},
		"consent: pin":          {control.Prompt{Kind: control.PromptConsent}, control.Answer{PIN: pin}, nil, ErrBadAnswer},
		"certificate":           {control.Prompt{Kind: control.PromptCertificate, Candidates: []control.Certificate{{SHA256: "a"}}}, control.Answer{Certificate: "a", Remember: true}, nil, nil},
		"certificate: another":  {control.Prompt{Kind: control.PromptCertificate, Candidates: []control.Certificate{{SHA256: "a"}}}, control.Answer{Certificate: "b"}, nil, ErrBadAnswer},
		"certificate: an allow": {control.Prompt{Kind: control.PromptCertificate}, control.Answer{Allow: &yes}, nil, ErrBadAnswer},
	} {
		declined, bad := (&Question{Prompt: c.p}).check(c.a)
		if !errors.Is(declined, c.declined) || !errors.Is(bad, c.bad) || (declined == nil) != (c.declined == nil) || (bad == nil) != (c.bad == nil) {
			t.Errorf("%s: declined %v, bad %v", name, declined, bad)
		}
	}
}

// TestJoin waits for a prompt that is open, and never opens one.
func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		defer tb.Attend()()
		q := pinQuestion(&tries)
		if err := tb.Join(t.Context(), q); !errors.Is(err, ErrNotOpen) || len(tb.List()) != 0 {
			t.Error(err)
		}
		first, joined := tb.ask(t.Context(), q), make(chan error, 1)
		go func() { joined <- tb.Join(t.Context(), q) }()
		tb.waits(joined)
		if err := tb.answer(tb.only().ID, control.Answer{PIN: []byte("1234")}); err != nil {
			t.Error(err)
		}
		tb.ended(first, nil)
		tb.ended(joined, nil)
	})
}

// TestAnsweredMeanwhile is a request that comes to ask when the answer is there.
func TestAnsweredMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries := newTable(t), 0
		q := pinQuestion(&tries)
		q.Over = func() bool { return true }
		tb.ended(tb.ask(t.Context(), q), nil) // though nobody could be asked
		if err := tb.Join(t.Context(), q); err != nil || tb.Raised() != 0 {
			t.Errorf("%v, %d prompts", err, tb.Raised())
		}
	})
}

// TestPauseGrows with each no in a row, whoever asks, until a yes.
func TestPauseGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, tries, declined := newTable(t), 0, 0
		defer tb.Attend()()
		q := pinQuestion(&tries)
		q.Declined = func(error) { declined++ }
		refuse := func() {
			t.Helper()
			end := tb.ask(t.Context(), q)
			if err := tb.answer(tb.only().ID, control.Answer{Cancel: true}); err != nil {
				t.Fatal(err)
			}
			tb.ended(end, ErrCancelled)
		}
		pauseIs := func(want time.Duration) {
			t.Helper()
			time.Sleep(want - time.Nanosecond)
			tb.ended(tb.ask(t.Context(), q), ErrPaused)
			time.Sleep(time.Nanosecond)
		}
		for _, pause := range []time.Duration{Pause, 2 * Pause, 4 * Pause, 8 * Pause, 16 * Pause, 32 * Pause, LongPause, LongPause} {
			refuse()
			pauseIs(pause)
		}
		if declined != 8 {
			t.Errorf("told %d times of 8", declined)
		}
		end := tb.ask(t.Context(), q)
		if err := tb.answer(tb.only().ID, control.Answer{PIN: []byte("1234")}); err != nil {
			t.Fatal(err)
		}
		tb.ended(end, nil)
		refuse()
		pauseIs(Pause)
	})
}
