package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
)

// person is who answers prompts, by one way or another. Each method returns an
// error when there is no answer: errPINCancelled where the person wants it so,
// ctx's cause when the question is not open any more.
type person interface {
	// tell says something before the next question.
	tell(text string)
	yes(ctx context.Context, question string) (bool, error)
	// pin has a PIN entered, never an empty one; the caller wipes it.
	pin(ctx context.Context, question string) (control.Secret, error)
	// ready returns when the person is about to type on the reader, as text says.
	ready(ctx context.Context, text string) error
	// choose returns the index of one of the choices.
	choose(ctx context.Context, question string, choices []string) (int, error)
}

// terminalPerson is the person at a terminal.
type terminalPerson struct{ std stdio }

func (t terminalPerson) tell(text string) { fmt.Fprintln(t.std.err, text) }

func (t terminalPerson) yes(ctx context.Context, question string) (bool, error) {
	return yes(ctx, t.std, question+" [y/N] ")
}

func (t terminalPerson) pin(ctx context.Context, question string) (control.Secret, error) {
	return readPIN(ctx, t.std, question+": ")
}

func (t terminalPerson) ready(_ context.Context, text string) error {
	t.tell(text)
	return nil
}

func (t terminalPerson) choose(ctx context.Context, question string, choices []string) (int, error) {
	t.tell(question)
	for i, c := range choices {
		t.tell(fmt.Sprintf("  %d  %s", i+1, c))
	}
	line, err := readLine(ctx, t.std, "Number (empty = none): ")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(line)
	if err != nil || n < 1 || n > len(choices) {
		return 0, errPINCancelled
	}
	return n - 1, nil
}

// ask puts one prompt to the person and returns the answer, without lease.
func ask(ctx context.Context, who person, p control.Prompt) (control.Answer, error) {
	if p.Message != "" {
		who.tell(p.Message)
	}
	switch p.Kind {
	case control.PromptConsent:
		return askConsent(ctx, who, p)
	case control.PromptCertificate:
		return askCertificate(ctx, who, p)
	case control.PromptPIN:
		return askPIN(ctx, who, p)
	case control.PromptPINChange, control.PromptPINUnblock:
		return askNewPIN(ctx, who, p)
	}
	return control.Answer{}, fmt.Errorf("this program is too old for a prompt of the kind %q; update it", p.Kind)
}

func askConsent(ctx context.Context, who person, p control.Prompt) (control.Answer, error) {
	var names []string
	for _, c := range p.Candidates {
		names = append(names, c.Name)
	}
	people := strings.Join(names, " or ")
	if people == "" {
		people = p.Name
	}
	sayNote(who, p)
	ok, err := who.yes(ctx, fmt.Sprintf("May %s use the card of %s at %s?", p.Program, people, p.Host))
	return control.Answer{Allow: &ok, Remember: ok}, err
}

// notes are what the person should know of a program.
var notes = map[control.ProgramNote]string{
	control.NoteUnknown:     "Which program it is could not be proved: allow it only if you have just started one.",
	control.NoteInterpreter: "This program runs other programs: any of them may be asking.",
	control.NoteRemote:      "This program passes on what comes from another machine or from a container.",
	control.NoteSandbox:     "This program runs in a sandbox or container, perhaps with other files than yours.",
}

func sayNote(who person, p control.Prompt) {
	if text := notes[p.ProgramNote]; text != "" {
		who.tell(text)
	}
}

func askCertificate(ctx context.Context, who person, p control.Prompt) (control.Answer, error) {
	var choices []string
	for _, c := range p.Candidates {
		choices = append(choices, fmt.Sprintf("%s, %s, issued by %s", c.Name, short(c.SHA256), c.Issuer))
	}
	i, err := who.choose(ctx, fmt.Sprintf("Which certificate for %s?", p.Host), choices)
	if err != nil {
		return control.Answer{}, err
	}
	return control.Answer{Certificate: p.Candidates[i].SHA256, Remember: true}, nil
}

func askPIN(ctx context.Context, who person, p control.Prompt) (control.Answer, error) {
	if p.Host != "" {
		who.tell(fmt.Sprintf("Login to %s for %s", p.Host, p.Program))
		sayNote(who, p)
	}
	if p.ToBeChanged {
		who.tell("This card is not activated: its PIN has never been chosen. Press Ctrl-C and choose it with: kortti pin change")
	}
	a, err := beforePIN(ctx, who, p)
	if err != nil || p.PinPad {
		return a, err
	}
	a.PIN, err = who.pin(ctx, "PIN of "+whose(p))
	return a, err
}

// beforePIN says what the person should know before entering a PIN, and has the
// last try confirmed. What is typed on the reader needs no more.
func beforePIN(ctx context.Context, who person, p control.Prompt) (control.Answer, error) {
	a := control.Answer{}
	switch {
	case p.FinalTry:
		question := "This is the LAST try: a wrong PIN locks the card. Go on?"
		if p.Kind == control.PromptPINUnblock {
			question = "This may be the LAST try: a wrong PUK makes the card useless. Go on?"
		}
		ok, err := who.yes(ctx, question)
		if err != nil {
			return a, err
		}
		if !ok {
			return a, errPINCancelled
		}
		a.ConfirmFinal = true
	case p.CountLow:
		who.tell("The last PIN entered was wrong. Too many wrong PINs lock the card.")
	}
	if p.PinPad {
		allow := true
		a.Allow = &allow
		return a, who.ready(ctx, padWords(p.Kind))
	}
	return a, nil
}

// whose names the card of a prompt.
func whose(p control.Prompt) string {
	if p.Name == "" {
		return p.CardLabel
	}
	return p.CardLabel + " (" + p.Name + ")"
}

// askNewPIN asks for the old PIN or the PUK, and twice for the new PIN.
func askNewPIN(ctx context.Context, who person, p control.Prompt) (a control.Answer, err error) {
	who.tell("This is about the PIN that logs in (PIN1); the PIN for signatures (PIN2) stays as it is.")
	unblock := p.Kind == control.PromptPINUnblock
	if p.ToBeChanged && !unblock {
		who.tell("This card is not activated: the old PIN is the activation PIN of its letter. If the letter has a PUK instead, use: kortti pin unblock")
	}
	a, err = beforePIN(ctx, who, p)
	if err != nil || p.PinPad {
		return a, err
	}
	defer func() {
		if err != nil {
			a.Wipe()
		}
	}()
	given, question := &a.PIN, "Old PIN of "
	if unblock {
		given, question = &a.PUK, "PUK of "
	}
	if *given, err = who.pin(ctx, question+whose(p)); err != nil {
		return a, err
	}
	a.NewPIN, err = askTwice(ctx, who, newPINQuestion(p))
	return a, err
}

func newPINQuestion(p control.Prompt) string {
	if p.MaxPIN == 0 {
		return "New PIN"
	}
	return fmt.Sprintf("New PIN (%d to %d characters)", p.MinPIN, p.MaxPIN)
}

// askTwice has a new PIN entered until it is the same twice in a row.
func askTwice(ctx context.Context, who person, question string) (control.Secret, error) {
	for {
		pin, err := who.pin(ctx, question)
		if err != nil {
			return nil, err
		}
		again, err := who.pin(ctx, "New PIN again")
		same := bytes.Equal(pin, again)
		again.Wipe()
		if err == nil && same {
			return pin, nil
		}
		pin.Wipe()
		if err != nil {
			return nil, err
		}
		who.tell("These are two different PINs. Enter the new PIN once more.")
	}
}
