package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// socketFlag adds --socket, with the default place when it is not given.
func socketFlag(fs *flag.FlagSet) *string {
	return fs.String("socket", "", "the agent's control `SOCKET` (default: $XDG_RUNTIME_DIR/kortti/agent.sock)")
}

func connect(socket string) (*control.Client, error) {
	if socket == "" {
		var err error
		if socket, err = control.DefaultSocket(); err != nil {
			return nil, err
		}
	}
	return control.New(socket), nil
}

// withAgent runs f with a client of the agent's control API.
func withAgent(socket string, f func(*control.Client) error) error {
	c, err := connect(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
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
			control.CodePINFinalTry, control.CodePINCancelled, control.CodeExpired:
			return exitPIN
		case control.CodePINLocked:
			return exitPINLocked
		}
		return exitFailed
	}
	switch {
	case errors.Is(err, card.ErrNoReader), errors.Is(err, card.ErrNoCard), errors.Is(err, card.ErrRemoved):
		return exitNoCard
	case errors.Is(err, errPINCancelled):
		return exitPIN
	}
	return exitFailed
}

// errNoCard is said when a listing that is about cards finds none.
var errNoCard = fmt.Errorf("no card was found: %w", card.ErrNoCard)

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// selection finds the card that a person named on the command line: by its id,
// its label, or a certificate's SHA-256 or the beginning of one of these.
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
		return control.CardSelection{}, fmt.Errorf("no inserted card is called %q; `kortti cards` lists them: %w", name, card.ErrNoCard)
	case 1:
		return found[0], nil
	}
	return control.CardSelection{}, usageError(fmt.Sprintf("%q names %d cards; say more of its name", name, len(found)))
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
