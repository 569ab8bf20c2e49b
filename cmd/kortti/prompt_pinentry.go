package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/pinentry"
)

// pinentryChoice is the flag --pinentry, whose value may be left out.
type pinentryChoice struct{ path string }

func pinentryFlag(fs *flagSet) *pinentryChoice {
	var c pinentryChoice
	fs.Var(&c, "pinentry", "ask by a pinentry program instead of on the terminal: $KORTTI_PINENTRY or pinentry, or another with --pinentry=PROGRAM")
	return &c
}

// String is the program, "" for none.
func (c *pinentryChoice) String() string { return c.path }

// IsBoolFlag lets the flag stand alone.
func (c *pinentryChoice) IsBoolFlag() bool { return true }

// Set takes a program, or what package flag gives to a flag without a value.
func (c *pinentryChoice) Set(s string) error {
	switch s {
	case "true":
		c.path = cmp.Or(os.Getenv("KORTTI_PINENTRY"), "pinentry")
	case "false":
		c.path = ""
	default:
		c.path = s
	}
	return nil
}

// pinentryPerson is the person at a pinentry program's window or screen. Each
// question gets a program of its own, as with gpg-agent.
type pinentryPerson struct {
	config pinentry.Config
	told   []string // for the next question
}

// newPinentryPerson looks whether the program works.
func newPinentryPerson(ctx context.Context, path string) (*pinentryPerson, error) {
	p := &pinentryPerson{config: pinentry.Config{
		Path: path, TTY: ttyName(), TTYType: os.Getenv("TERM"),
		Locale: cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")),
	}}
	d, err := pinentry.Start(ctx, p.config)
	if err != nil {
		return nil, &control.Error{
			Code: "pinentry", Message: err.Error(),
			Hint: "Install one, such as pinentry-gnome3, pinentry-qt or pinentry-curses, or name it: kortti prompt --pinentry=PROGRAM",
		}
	}
	d.Close()
	return p, nil
}

// ttyName is the terminal that we were started on, "" for none.
func ttyName() string {
	if _, ok := terminal(os.Stdin); !ok {
		return ""
	}
	name, err := os.Readlink("/proc/self/fd/0")
	if err != nil || !strings.HasPrefix(name, "/dev/") {
		return ""
	}
	return name
}

func (p *pinentryPerson) tell(text string) { p.told = append(p.told, text) }

// dialog runs the program with what has been told, and a question, for one
// answer.
func (p *pinentryPerson) dialog(ctx context.Context, question string, fields map[pinentry.Field]string, answer func(*pinentry.Dialog) error) error {
	d, err := pinentry.Start(ctx, p.config)
	if err != nil {
		return err
	}
	defer d.Close()
	description := strings.Join(append(p.told, question), "\n\n")
	p.told = nil
	for _, f := range []pinentry.Field{pinentry.Seconds, pinentry.Title, pinentry.Description, pinentry.Prompt, pinentry.OK, pinentry.Cancel, pinentry.NotOK} {
		text, ok := fields[f]
		switch {
		case f == pinentry.Seconds: // some give up after a minute; the agent ends what nobody answers
			text, ok = "600", true
		case f == pinentry.Title:
			text, ok = "Kortti", true
		case f == pinentry.Description:
			text, ok = description, true
		}
		if ok {
			if err := d.Set(f, text); err != nil {
				return err
			}
		}
	}
	err = answer(d)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, pinentry.ErrCancelled), errors.Is(err, pinentry.ErrTimeout):
		return errPINCancelled
	}
	return err
}

func (p *pinentryPerson) yes(ctx context.Context, question string) (ok bool, err error) {
	err = p.dialog(ctx, question, map[pinentry.Field]string{pinentry.OK: "Yes", pinentry.Cancel: "No"}, func(d *pinentry.Dialog) (err error) {
		ok, err = d.Confirm()
		if errors.Is(err, pinentry.ErrCancelled) { // what most programs make of the button No
			err = nil
		}
		return err
	})
	return ok, err
}

func (p *pinentryPerson) pin(ctx context.Context, question string) (pin control.Secret, err error) {
	err = p.dialog(ctx, question, map[pinentry.Field]string{pinentry.Prompt: "PIN:"}, func(d *pinentry.Dialog) (err error) {
		pin, err = d.PIN()
		return err
	})
	if err == nil && len(pin) == 0 {
		err = errPINCancelled
	}
	if err != nil {
		pin.Wipe()
		return nil, err
	}
	return pin, nil
}

func (p *pinentryPerson) ready(ctx context.Context, text string) error {
	ok := false
	err := p.dialog(ctx, text, map[pinentry.Field]string{pinentry.OK: "OK", pinentry.Cancel: "Cancel"}, func(d *pinentry.Dialog) (err error) {
		ok, err = d.Confirm()
		return err
	})
	if err == nil && !ok {
		err = errPINCancelled
	}
	return err
}

// choose shows one choice after another: pinentry has no lists.
func (p *pinentryPerson) choose(ctx context.Context, question string, choices []string) (int, error) {
	told := p.told
	for i, c := range choices {
		p.told = append(told, question)
		use := false
		text := fmt.Sprintf("%d of %d: %s", i+1, len(choices), c)
		err := p.dialog(ctx, text, map[pinentry.Field]string{pinentry.OK: "Use it", pinentry.NotOK: "The next", pinentry.Cancel: "None"}, func(d *pinentry.Dialog) (err error) {
			use, err = d.Confirm()
			return err
		})
		if err != nil {
			return 0, err
		}
		if use {
			return i, nil
		}
	}
	return 0, errPINCancelled
}
