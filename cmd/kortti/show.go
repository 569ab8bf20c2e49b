package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// inventoryTime bounds the look at the cards when no agent runs.
const inventoryTime = 30 * time.Second

func runStatus(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "status", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
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
		fmt.Fprintf(std.out, "The agent has run for %v, process %d, proxy %s.\n", time.Duration(s.Uptime)*time.Second, s.PID, s.Proxy)
		for _, c := range s.Cards {
			fmt.Fprintf(std.out, "Card %q: %s\n", c.Label, c.State)
		}
		if len(s.Cards) == 0 {
			fmt.Fprintln(std.out, "No card is inserted.")
		}
		fmt.Fprintf(std.out, "Requests %d, signatures %d, signatures avoided %d, questions to you %d.\n",
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
		return errors.Join(printJSON(std.out, cards), noCards(cards))
	}
	if len(cards.Readers) > 0 {
		tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "READER\tCARD\tMODEL\tSTATE")
		for _, r := range cards.Readers {
			if r.Card == nil {
				fmt.Fprintf(tw, "%s\t\t\tempty\n", r.Name)
				continue
			}
			fmt.Fprintf(tw, "%s\t%s\t%s %s\t%s%s\n", r.Name, r.Card.Label, r.Card.Manufacturer, r.Card.Model, r.Card.State, pinNotes(r.Card.PIN))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return moduleErrors(std, cards)
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
		return errors.Join(printJSON(std.out, certs), noCards(cards))
	}
	if len(certs) > 0 {
		slices.SortStableFunc(certs, loginFirst)
		tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "SHA-256\tNAME\tPURPOSE\tKEY\tVALID UNTIL\tLOGIN")
		for _, c := range certs {
			login := "yes"
			if !c.Login {
				login = "no: " + c.WhyNot
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", short(c.SHA256), c.Name, c.Purpose, c.Key, c.NotAfter.Local().Format(time.DateOnly), login)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	err = moduleErrors(std, cards)
	if err == nil && len(certs) == 0 {
		fmt.Fprintln(std.out, "The card holds no certificate.")
	}
	return err
}

func loginFirst(a, b control.Certificate) int {
	switch {
	case a.Login == b.Login:
		return 0
	case a.Login:
		return -1
	}
	return 1
}

// inventory asks the agent for the cards, or looks by itself when none runs.
func inventory(ctx context.Context, std stdio, name string, args []string) (control.Cards, bool, error) {
	fs := newFlags(std, name, "")
	socket := socketFlag(fs)
	module := fs.String("module", "", "look through this PKCS#11 `MODULE` and not through the agent")
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return control.Cards{}, false, err
	}
	if *module != "" {
		path, err := filepath.Abs(*module)
		if err != nil {
			return control.Cards{}, false, err
		}
		cards, err := look(ctx, path)
		return cards, *asJSON, err
	}
	cards, err := askAgent(ctx, *socket)
	if errors.Is(err, control.ErrNotRunning) || errors.Is(err, control.ErrNoRuntimeDir) {
		var cfg *config.Config
		if cfg, err = config.Load(""); err == nil {
			cards, err = look(ctx, cfg.Card.Modules...)
		}
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
		return control.Cards{}, fmt.Errorf("read the cards: %w", err)
	}
	return agent.CardsOf(m.Snapshot()), nil
}

// moduleErrors is noCards, after it has shown the errors of modules beside
// which cards were found all the same.
func moduleErrors(std stdio, cards control.Cards) error {
	err := noCards(cards)
	var failed *control.Error
	for _, m := range cards.Modules {
		if m.Error != "" && (!errors.As(err, &failed) || failed.Message != m.Error) {
			fmt.Fprintf(std.err, "%s\n%s\n", m.Error, m.Hint)
		}
	}
	return err
}

// noCards tells why there is no card to list, if there is none: a module that
// cannot be used comes first, because a card may well be inserted then.
func noCards(cards control.Cards) error {
	if slices.ContainsFunc(cards.Readers, func(r control.Reader) bool { return r.Card != nil }) {
		return nil
	}
	for _, m := range cards.Modules {
		if m.Error != "" {
			return &control.Error{Code: "module", Message: m.Error, Hint: m.Hint}
		}
	}
	if len(cards.Readers) == 0 {
		return &control.Error{Code: control.CodeNoReader, Message: "no card reader was found", Hint: card.Hint(card.ErrNoReader)}
	}
	return &control.Error{Code: control.CodeNoCard, Message: "no card is inserted", Hint: "Insert your card and try again."}
}

// pinNotes says what a person should know of the PIN before entering it.
func pinNotes(p control.PIN) string {
	switch {
	case p.Locked:
		return ", PIN locked"
	case p.FinalTry:
		return ", LAST PIN try"
	case p.CountLow:
		return ", a wrong PIN was entered last"
	}
	return ""
}

func runAudit(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "audit", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	limit := fs.Int("n", 50, "how many of the newest `RECORDS`")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	if *limit < 1 {
		return &usageError{"--n must be 1 or more", fs.use()}
	}
	return withAgent(*socket, func(c *control.Client) error {
		records, err := c.Audit(ctx, *limit)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, records)
		}
		if len(records) == 0 {
			fmt.Fprintln(std.out, "Nothing has been decided yet.")
			return nil
		}
		tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "TIME\tDECISION\tHOST\tPROGRAM\tCERTIFICATE\tREASON")
		for _, r := range records {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.Local().Format(time.DateTime),
				r.Decision, r.Host, r.Program, short(r.Certificate), r.Reason)
		}
		return tw.Flush()
	})
}
