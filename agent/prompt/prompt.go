// Package prompt keeps the questions that only the person can answer: the PIN, a
// consent, the choice of a certificate. All requests that need the same answer
// share one prompt; a front end leases it and answers it once. The package
// never draws anything, never keeps a PIN and never tries one twice: what an
// answer means is the business of the Question's Try.
//
//	answer, err := desk.Ask(ctx, prompt.Question{Key: "consent:curl", Prompt: …, Try: remember})
package prompt

import (
	"context"
	"errors"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// Times of prompts.
const (
	// Expiry is how long a prompt waits for its answer.
	Expiry = 60 * time.Second
	// LongExpiry is for those that want more than one PIN, perhaps from a letter.
	LongExpiry = 5 * time.Minute
	// Pause is how long programs may not ask again after the person said no: a
	// web page must not be able to wear a person down with prompts. It doubles
	// with every further no, up to LongPause, until a yes or a quiet LongPause.
	Pause     = 10 * time.Second
	LongPause = 10 * time.Minute
)

// maxOpen is how many prompts may be open when a program asks for one more.
const maxOpen = 16

// Errors that end a wait for an answer.
var (
	ErrNoFrontEnd = errors.New("nobody can be asked: no tray app and no kortti prompt is running")
	ErrCancelled  = errors.New("the prompt was cancelled")
	ErrDenied     = errors.New("the person did not allow it")
	ErrPaused     = errors.New("the person has just said no; programs may ask again in a moment")
	ErrTooMany    = errors.New("too many prompts are open")
	ErrExpired    = errors.New("nobody answered the prompt in time")
	ErrAway       = errors.New("nobody is at the screen")
	ErrClosed     = errors.New("the agent is ending")
	// ErrNotOpen is Join's where nobody is being asked.
	ErrNotOpen = errors.New("the person is not being asked")
)

// Errors that an answer gets while its prompt stays open.
var (
	ErrNotFound     = errors.New("no such prompt is open")
	ErrLeased       = errors.New("another front end is answering the prompt")
	ErrNotLeased    = errors.New("the prompt must be leased before it is answered")
	ErrBusy         = errors.New("the prompt is being answered")
	ErrConfirmFinal = errors.New("a wrong PIN now would lock the card; it needs an explicit confirmation")
	ErrBadAnswer    = errors.New("the answer does not fit the prompt")
)

// Question is what is asked, and what happens with the answer.
type Question struct {
	// Prompt is what a front end shows; ID, Leased and Expires are the Desk's.
	control.Prompt
	// Key makes requests share a prompt. It names all that the prompt is bound
	// to: the kind, the certificate and the card's epoch, say.
	Key string
	// Pause is what programs may not ask again for a while when the person said
	// no; "" means the same Key. It is wider than Key where one that was refused
	// could ask anew under another key.
	Pause string
	// Epoch is the card's lock epoch that the question belongs to.
	Epoch uint64
	// Over tells, just before a program's prompt would be raised, that its answer
	// has come in the meantime; nil means never. It must be quick and not call
	// the Desk.
	Over func() bool
	// Declined is called once when the person says no to the prompt, with the
	// error that waiting requests get; nil means nothing. It must not call the
	// Desk.
	Declined func(err error)
	// Try acts on the answer: it logs in with the PIN, it remembers the consent.
	// It is called at most once per prompt; the PIN is wiped after it returns.
	// Its error is the front end's and, unless Again says otherwise, every
	// waiting request's.
	Try func(ctx context.Context, a control.Answer) error
	// Again says, after Try failed, what to ask then: a new prompt, never the
	// same answer again. It is asked only while requests wait; nil means never.
	Again func(err error) (Question, bool)
}

// expiry returns how long the question waits for its answer.
func (q *Question) expiry() time.Duration {
	if q.Kind == control.PromptPINChange || q.Kind == control.PromptPINUnblock {
		return LongExpiry
	}
	return Expiry
}

func (q *Question) pauseKey() string {
	if q.Pause != "" {
		return q.Pause
	}
	return q.Key
}

// check tells whether an answer fits the question, and how the person declined
// if that is the answer.
func (q *Question) check(a control.Answer) (declined, bad error) {
	given := 0
	for _, is := range []bool{len(a.PIN)+len(a.PUK)+len(a.NewPIN) > 0, a.Allow != nil, a.Certificate != "", a.Cancel} {
		if is {
			given++
		}
	}
	if given != 1 || a.Remember && a.Allow == nil && a.Certificate == "" {
		return nil, ErrBadAnswer
	}
	if a.Cancel {
		return ErrCancelled, nil
	}
	switch q.Kind {
	case control.PromptPIN, control.PromptPINChange, control.PromptPINUnblock:
		return q.checkPIN(a)
	case control.PromptConsent:
		if a.Allow == nil {
			return nil, ErrBadAnswer
		}
		if !*a.Allow {
			return ErrDenied, nil
		}
	case control.PromptCertificate:
		for _, c := range q.Candidates {
			if c.SHA256 == a.Certificate {
				return nil, nil
			}
		}
		return nil, ErrBadAnswer
	}
	return nil, nil
}

func (q *Question) checkPIN(a control.Answer) (declined, bad error) {
	switch {
	case q.PinPad && a.Allow != nil && !*a.Allow:
		return ErrCancelled, nil
	case q.PinPad != (a.Allow != nil), !q.PinPad && !q.hasPINs(a):
		return nil, ErrBadAnswer
	case q.FinalTry && !a.ConfirmFinal:
		return nil, ErrConfirmFinal
	}
	return nil, nil
}

// hasPINs tells whether an answer has just the PINs that the question asks for.
func (q *Question) hasPINs(a control.Answer) bool {
	pin, puk := q.Kind != control.PromptPINUnblock, q.Kind == control.PromptPINUnblock
	return (len(a.PIN) > 0) == pin && (len(a.PUK) > 0) == puk && (len(a.NewPIN) > 0) == (q.Kind != control.PromptPIN)
}
