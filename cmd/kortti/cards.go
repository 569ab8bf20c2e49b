package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// lookTime bounds the look at the cards when no agent runs: modules have been
// seen to need half a minute with a slow reader.
const lookTime = time.Minute

// silence is how long a look at the cards stays silent.
const silence = 2 * time.Second

// runCards lists readers and cards.
func runCards(ctx context.Context, std stdio, args []string) error {
	l := newLooker(std, "cards")
	asJSON := jsonFlag(l.flags)
	cards, err := l.cards(ctx, args)
	if err != nil {
		return err
	}
	if *asJSON {
		return errors.Join(printJSON(std.out, cards), noCards(cards))
	}
	if err := printReaders(std.out, cards); err != nil {
		return err
	}
	return moduleErrors(std, cards)
}

// printReaders shows readers with and without cards, and then what there is to
// say about single ones.
func printReaders(w io.Writer, cards control.Cards) error {
	var rows [][]string
	var notes []string
	row := func(columns ...string) { rows = append(rows, columns) }
	note := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	toldOf := noCards(cards) != nil // the error that follows tells of the first unknown card
	pcsc := map[string]control.PCSCReader{}
	for _, r := range cards.PCSC.Readers {
		pcsc[r.Name] = r
	}
	shown := map[string]bool{}
	for _, r := range cards.Readers {
		if r.Card == nil && pcsc[r.Name].Unrecognized {
			continue
		}
		shown[r.Name] = true
		if r.Card == nil {
			row(r.Name, "", "", "empty")
			continue
		}
		c := r.Card
		row(r.Name, c.Label, strings.TrimSpace(c.Manufacturer+" "+c.Model), string(c.State), pinWords(c.PIN))
		if len(r.Others) > 0 {
			note("The card in %s is used through %s; it is the same card that %s shows.", r.Name, r.Module, strings.Join(r.Others, ", "))
		}
	}
	for _, r := range cards.PCSC.Readers {
		switch {
		case r.Unrecognized:
			row(r.Name, whichCard(r), "", "not usable")
			if !toldOf {
				note("No module shows the card in %s. %s", r.Name, r.Fix)
			}
			toldOf = false
		case !shown[r.Name] && !r.Present:
			row(r.Name, "", "", "empty")
		case !shown[r.Name]:
			row(r.Name, whichCard(r), "", "being read")
		}
	}
	if len(rows) == 0 {
		return nil
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "READER\tCARD\tMODEL\tSTATE\tPIN")
	for _, columns := range rows {
		fmt.Fprintln(tw, strings.Join(columns, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(w, note)
	}
	return nil
}

// whichCard names a card that no module shows.
func whichCard(r control.PCSCReader) string {
	switch {
	case r.Mute:
		return "a card that does not answer"
	case r.Exclusive:
		return "a card that another program holds"
	case r.Kind != "":
		return r.Kind
	}
	return "unknown card, ATR " + r.ATR
}

// pinWords says what a person should know of the PIN before entering it.
func pinWords(p control.PIN) string {
	switch {
	case p.Locked:
		return "locked: unblock it with the PUK"
	case !p.Initialized:
		return "never set: activate the card first"
	case p.ToBeChanged:
		return "must be changed first (new card: not activated)"
	case p.FinalTry:
		return "LAST try: a wrong PIN locks it"
	case p.CountLow:
		return "a wrong PIN was entered last"
	case p.Pad:
		return "on the reader's keypad"
	case p.Max > 0:
		return fmt.Sprintf("%d to %d characters", p.Min, p.Max)
	}
	return "ok"
}

// runCerts lists the certificates, those for login first.
func runCerts(ctx context.Context, std stdio, args []string) error {
	l := newLooker(std, "certs")
	asJSON := jsonFlag(l.flags)
	asPEM := l.flags.Bool("pem", false, "the certificates themselves, in PEM form")
	cards, err := l.cards(ctx, args)
	if err != nil {
		return err
	}
	if *asJSON && *asPEM {
		return wrongUse("--json has the certificates in PEM form too; leave out --pem")
	}
	certs := certificates(cards)
	if *asJSON {
		return errors.Join(printJSON(std.out, certs), noCards(cards))
	}
	for i, c := range certs {
		if *asPEM {
			fmt.Fprintf(std.out, "# %s\n%s", c.Subject, c.PEM)
			continue
		}
		if i > 0 {
			fmt.Fprintln(std.out)
		}
		if err := printCertificate(std.out, c); err != nil {
			return err
		}
	}
	err = moduleErrors(std, cards)
	if err == nil && len(certs) == 0 {
		fmt.Fprintln(std.err, "The card holds no certificate.")
	}
	return err
}

// certificates returns each certificate once, those that can log in first.
func certificates(cards control.Cards) []control.Certificate {
	certs := []control.Certificate{}
	for _, login := range []bool{true, false} {
		for _, r := range cards.Readers {
			if r.Card == nil {
				continue
			}
			for _, c := range r.Card.Certificates {
				known := slices.ContainsFunc(certs, func(other control.Certificate) bool { return other.SHA256 == c.SHA256 })
				if c.Login == login && !known {
					certs = append(certs, c)
				}
			}
		}
	}
	return certs
}

func printCertificate(w io.Writer, c control.Certificate) error {
	login := "no: " + c.WhyNot
	if c.Login {
		login = "yes, up to TLS " + c.TLS
	}
	fmt.Fprintln(w, c.Name)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"login", login},
		{"purpose", c.Purpose},
		{"key", c.Key},
		{"valid", c.NotBefore.Local().Format(time.DateOnly) + " to " + c.NotAfter.Local().Format(time.DateOnly)},
		{"subject", c.Subject},
		{"issuer", c.Issuer},
		{"SHA-256", c.SHA256},
	} {
		fmt.Fprintf(tw, "  %s\t%s\n", line[0], line[1])
	}
	return tw.Flush()
}

// looker asks the agent for what it sees, or looks by itself where none runs.
type looker struct {
	std            stdio
	flags          *flagSet
	socket, module *string
}

func newLooker(std stdio, name string) *looker {
	fs := newFlags(std, name, "")
	return &looker{
		std: std, flags: fs, socket: socketFlag(fs),
		module: fs.String("module", "", "look through this PKCS#11 `MODULE` and not through the agent"),
	}
}

// cards parses the arguments and returns what is to be seen.
func (l *looker) cards(ctx context.Context, args []string) (cards control.Cards, err error) {
	if _, err := parse(l.flags, args); err != nil {
		return cards, err
	}
	if *l.module == "" {
		defer l.progress()()
		err := withAgent(*l.socket, func(c *control.Client) error {
			cards, err = c.Cards(ctx)
			return err
		})
		if !noAgent(err) {
			return cards, err
		}
	}
	modules, err := l.modules()
	if err != nil {
		return cards, err
	}
	snapshot, err := l.look(ctx, modules)
	if err != nil {
		return cards, err
	}
	return agent.CardsOf(snapshot), nil
}

func noAgent(err error) bool {
	return errors.Is(err, control.ErrNotRunning) || errors.Is(err, control.ErrNoRuntimeDir)
}

// modules returns what to look through: --module, or what kortti.toml says.
func (l *looker) modules() ([]string, error) {
	if *l.module != "" {
		path, err := filepath.Abs(*l.module)
		return []string{path}, err
	}
	cfg, err := config.Load("")
	if err != nil {
		return nil, err
	}
	return cfg.Card.Modules, nil
}

// look reads the cards through a manager of its own, without any PIN. With an
// error comes what was to be seen all the same.
func (l *looker) look(ctx context.Context, modules []string) (card.Snapshot, error) {
	defer l.progress()()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	m, err := card.NewManager(card.Config{Modules: modules})
	if err != nil {
		return card.Snapshot{}, err
	}
	defer m.Close()
	if err := m.Wait(ctx); err != nil {
		return m.Snapshot(), fmt.Errorf("read the cards: %w", err)
	}
	return m.Snapshot(), nil
}

// progress says that a look takes long, unless the function that it returns is
// called before.
func (l *looker) progress() (stop func()) {
	timer := time.AfterFunc(silence, func() {
		fmt.Fprintln(l.std.err, "Reading the cards; with a slow reader this takes up to half a minute.")
	})
	return func() { timer.Stop() }
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
	for _, r := range cards.PCSC.Readers {
		if r.Unrecognized {
			return &control.Error{Code: control.CodeNoCard, Message: "no card that can be used is inserted: there is " + whichCard(r) + " in " + r.Name, Hint: r.Fix}
		}
	}
	if len(cards.Readers) == 0 && len(cards.PCSC.Readers) == 0 {
		e := &control.Error{Code: control.CodeNoReader, Message: "no card reader was found", Hint: card.Hint(card.ErrNoReader)}
		if cards.PCSC.Error != "" {
			e.Message += ": " + cards.PCSC.Error
		}
		return e
	}
	return &control.Error{Code: control.CodeNoCard, Message: "no card is inserted", Hint: "Insert your card and try again."}
}
