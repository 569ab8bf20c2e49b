package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// inventoryTime bounds the look at the cards when no agent runs.
const inventoryTime = 30 * time.Second

func runStatus(ctx context.Context, std stdio, args []string) error {
	fs := flags(std, "status")
	socket := socketFlag(fs)
	asJSON := fs.Bool("json", false, "machine-readable output")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, s)
		}
		fmt.Fprintf(std.out, "The agent runs since %v, process %d, proxy %s.\n", time.Duration(s.Uptime)*time.Second, s.PID, s.Proxy)
		for _, c := range s.Cards {
			fmt.Fprintf(std.out, "Card %q: %s\n", c.Label, c.State)
		}
		if len(s.Cards) == 0 {
			fmt.Fprintln(std.out, "No card is inserted.")
		}
		fmt.Fprintf(std.out, "Requests %d, signatures %d, signatures avoided %d, PIN and other questions %d.\n",
			s.Counters.Requests, s.Counters.Signatures, s.Counters.SignaturesAvoided, s.Counters.Prompts)
		return nil
	})
}

func runCards(ctx context.Context, std stdio, args []string) error {
	cards, asJSON, err := inventory(ctx, std, "cards", args)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(std.out, cards)
	}
	printModuleErrors(std, cards)
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	found := false
	for _, r := range cards.Readers {
		if r.Card == nil {
			fmt.Fprintf(tw, "%s\tempty\n", r.Name)
			continue
		}
		found = true
		fmt.Fprintf(tw, "%s\t%s\t%s %s\t%s%s\n", r.Name, r.Card.Label, r.Card.Manufacturer, r.Card.Model, r.Card.State, pinNotes(r.Card.PIN))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if !found {
		return errNoCard
	}
	return nil
}

func runCerts(ctx context.Context, std stdio, args []string) error {
	cards, asJSON, err := inventory(ctx, std, "certs", args)
	if err != nil {
		return err
	}
	certs := []control.Certificate{}
	for _, r := range cards.Readers {
		if r.Card != nil {
			certs = append(certs, r.Card.Certificates...)
		}
	}
	if asJSON {
		return printJSON(std.out, certs)
	}
	printModuleErrors(std, cards)
	if len(certs) == 0 {
		return errNoCard
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SHA-256\tNAME\tPURPOSE\tKEY\tVALID UNTIL\tLOGIN")
	for _, c := range certs {
		login := "yes"
		if !c.Login {
			login = "no: " + c.WhyNot
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", short(c.SHA256), c.Name, c.Purpose, c.Key, c.NotAfter.Local().Format(time.DateOnly), login)
	}
	return tw.Flush()
}

// inventory asks the agent for the cards, or looks by itself when none runs.
func inventory(ctx context.Context, std stdio, name string, args []string) (control.Cards, bool, error) {
	fs := flags(std, name)
	socket := socketFlag(fs)
	module := fs.String("module", "", "look through this PKCS#11 `MODULE` and not through the agent")
	asJSON := fs.Bool("json", false, "machine-readable output")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return control.Cards{}, false, err
	}
	if *module != "" {
		cards, err := look(ctx, *module)
		return cards, *asJSON, err
	}
	cards, err := askAgent(ctx, *socket)
	if errors.Is(err, control.ErrNotRunning) || errors.Is(err, control.ErrNoRuntimeDir) {
		cards, err = look(ctx, "auto")
	}
	return cards, *asJSON, err
}

func askAgent(ctx context.Context, socket string) (cards control.Cards, err error) {
	err = withAgent(socket, func(c *control.Client) error {
		cards, err = c.Cards(ctx)
		return err
	})
	return cards, err
}

// look reads the cards through a manager of its own, without any PIN.
func look(ctx context.Context, modules ...string) (control.Cards, error) {
	ctx, cancel := context.WithTimeout(ctx, inventoryTime)
	defer cancel()
	m, err := card.NewManager(card.Config{Modules: modules})
	if err != nil {
		return control.Cards{}, err
	}
	defer m.Close()
	if err := m.Wait(ctx); err != nil {
		return control.Cards{}, err
	}
	return agent.CardsOf(m.Snapshot()), nil
}

func printModuleErrors(std stdio, cards control.Cards) {
	for _, m := range cards.Modules {
		if m.Error != "" {
			fmt.Fprintf(std.err, "module %s: %s\n", m.Path, strings.TrimSpace(m.Error+" "+m.Hint))
		}
	}
	if len(cards.Modules) == 0 {
		fmt.Fprintln(std.err, "No PKCS#11 module was found. Install one for your card (for FINeID: the Atostek ID software, or OpenSC 0.27 or newer).")
	}
}

// pinNotes says what a person should know of the PIN before entering it.
func pinNotes(p control.PIN) string {
	switch {
	case p.Locked:
		return ", PIN locked"
	case p.FinalTry:
		return ", LAST PIN try"
	case p.CountLow:
		return ", few PIN tries left"
	}
	return ""
}
