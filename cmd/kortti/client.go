package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
)

// socketFlag adds --socket, with the default place when it is not given.
func socketFlag(fs *flagSet) *string {
	return fs.String("socket", "", "the agent's control `SOCKET` (default: [control] socket of kortti.toml, or $XDG_RUNTIME_DIR/kortti/agent.sock)")
}

func jsonFlag(fs *flagSet) *bool { return fs.Bool("json", false, "machine-readable output") }

// defaultSocket is where the agent listens when nothing else is said. A mistake
// in kortti.toml, made while the agent runs, must not keep anyone from locking
// the card, so it is no error here.
func defaultSocket() (string, error) {
	cfg, err := config.Load("")
	if err != nil {
		return control.DefaultSocket()
	}
	return cfg.Socket()
}

// withAgent runs f with a client of the agent's control API.
func withAgent(socket string, f func(*control.Client) error) error {
	if socket == "" {
		var err error
		if socket, err = defaultSocket(); err != nil {
			return err
		}
	}
	c := control.New(socket)
	defer c.Close()
	err := f(c)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
		return &control.Error{Code: control.CodeNotRunning, Message: "the agent on " + socket + " ended, or could not be started", Hint: "See why with: systemctl --user status kortti.service, or run: kortti agent"}
	}
	if errors.Is(err, control.ErrNotRunning) {
		return &control.Error{Code: control.CodeNotRunning, Message: "the agent is not running: nobody listens on " + socket, Hint: control.ErrNotRunning.Hint}
	}
	return err
}

// exitCode turns an error of the agent or of the card into the code that
// scripts rely on.
func exitCode(err error) int {
	var ce *control.Error
	if errors.As(err, &ce) {
		switch ce.Code {
		case control.CodeNoCard, control.CodeNoReader, control.CodeCardRemoved:
			return exitNoCard
		case control.CodePINWrong, control.CodePINRepeated, control.CodePINLength,
			control.CodePINFinalTry, control.CodePINCancelled, control.CodePINNew, control.CodePUKWrong, control.CodeExpired:
			return exitPIN
		case control.CodePINLocked, control.CodePUKLocked:
			return exitPINLocked
		}
		return exitFailed
	}
	if errors.Is(err, errPINCancelled) || errors.Is(err, errInputEnded) {
		return exitPIN
	}
	return exitFailed
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// selection finds the card that a person named on the command line: by its id,
// its label, or a certificate's SHA-256, or the beginning of one of these.
func selection(ctx context.Context, c *control.Client, name string) (control.CardSelection, error) {
	if name == "" {
		return control.CardSelection{}, nil
	}
	cards, err := c.Cards(ctx)
	if err != nil {
		return control.CardSelection{}, err
	}
	var found []control.CardSelection
	for _, r := range cards.Readers {
		if r.Card != nil {
			if sel, ok := matches(*r.Card, name); ok {
				found = append(found, sel)
			}
		}
	}
	switch len(found) {
	case 0:
		return control.CardSelection{}, &control.Error{Code: control.CodeNoCard, Message: fmt.Sprintf("no inserted card is called %q", name), Hint: "See the inserted cards with: kortti cards"}
	case 1:
		return found[0], nil
	}
	return control.CardSelection{}, wrongUse("%q names %d cards; say more of its name", name, len(found))
}

func matches(c control.Card, name string) (control.CardSelection, bool) {
	if hasPrefixFold(c.ID, name) || hasPrefixFold(c.Label, name) {
		return control.CardSelection{Card: c.ID}, true
	}
	for _, cert := range c.Certificates {
		if hasPrefixFold(cert.SHA256, name) {
			return control.CardSelection{Card: c.ID, Certificate: cert.SHA256}, true
		}
	}
	return control.CardSelection{}, false
}

// hasPrefixFold reports whether s begins with prefix, whatever the case.
func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
