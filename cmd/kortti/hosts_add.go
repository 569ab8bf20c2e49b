package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/presets"
	"github.com/kortti-id/kortti/agent/truststore"
)

// adding is one `kortti hosts add`.
type adding struct {
	std           stdio
	socket        string
	host          control.Host // the settings; the name may come from elsewhere
	probe, preset string
	first         string // the host at which a probe starts: --address is its
	yes, json     bool
}

func addHost(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "hosts add", "[HOST]")
	a := adding{std: std}
	socket := socketFlag(fs)
	fs.StringVar(&a.probe, "probe", "", "follow the login that starts at this `URL` and list the hosts on its way that ask for a card")
	fs.StringVar(&a.preset, "preset", "", "list the hosts of the known service `PRESET` (see: kortti hosts presets)")
	fs.BoolVar(&a.yes, "yes", false, "with --probe: list what is found without asking")
	fs.BoolVar(&a.json, "json", false, "with --probe: only print what was found, machine-readable")
	fs.StringVar(&a.host.Card, "card", "auto", "always use the certificate with this `SHA-256` there (see: kortti certs --json), or auto")
	fs.StringVar(&a.host.Consent, "consent", "ask", "what happens when a program wants to use the card there for the first time: `ask|always`")
	fs.StringVar(&a.host.Address, "address", "", "connect to this `HOST:PORT` instead of asking DNS; with --probe at the first host only")
	fs.StringVar(&a.host.TLSRoots, "tls-roots", "", "PEM `FILE` with extra roots for the host's own certificate")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	a.socket, a.host.Name = *socket, strings.Join(rest, "")
	given := 0
	for _, what := range []string{a.host.Name, a.probe, a.preset} {
		if what != "" {
			given++
		}
	}
	if given != 1 {
		return &usageError{"name one HOST, a --probe URL or a --preset PRESET", "hosts add HOST | --probe URL | --preset PRESET"}
	}
	if a.host.TLSRoots != "" { // the agent has another working directory
		if a.host.TLSRoots, err = filepath.Abs(a.host.TLSRoots); err != nil {
			return err
		}
	}
	switch {
	case a.probe != "":
		return a.byProbe(ctx)
	case a.preset != "":
		return a.byPreset(ctx)
	}
	return a.put(ctx, a.host.Name)
}

// put lists hosts with the same settings and says what to do next. One that
// kortti.toml lists already is no mistake where several are listed at once.
func (a *adding) put(ctx context.Context, names ...string) error {
	return withAgent(a.socket, func(c *control.Client) error {
		var listed []string
		for _, name := range names {
			h := a.host
			h.Name = name
			if a.probe != "" && name != a.first {
				h.Address = ""
			}
			put, err := c.PutHost(ctx, h)
			if errors.Is(err, &control.Error{Code: control.CodeConfigWins}) && len(names) > 1 {
				fmt.Fprintf(a.std.out, "%s is listed already, in kortti.toml.\n", name)
				continue
			}
			if err != nil {
				return err
			}
			listed = append(listed, put.Name)
			fmt.Fprintf(a.std.out, "%s is listed: programs that use the proxy get the card's certificate there.\n", put.Name)
		}
		if len(listed) > 0 {
			all := truststore.Quote(listed...)
			fmt.Fprintf(a.std.out, "Browsers must trust its local root, and must be started again then: kortti trust install %s\n", all)
			fmt.Fprintln(a.std.out, "Programs on the command line need nothing more: kortti exec -- PROGRAM, or kortti get URL")
		}
		return nil
	})
}

func (a *adding) byPreset(ctx context.Context) error {
	p, ok := presets.Find(a.preset)
	if !ok {
		return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("there is no preset %q", a.preset), Hint: "See the known services with: kortti hosts presets"}
	}
	if err := a.put(ctx, p.Hosts...); err != nil {
		return err
	}
	if p.Note != "" {
		fmt.Fprintln(a.std.out, p.Note)
	}
	if !p.Tried {
		fmt.Fprintf(a.std.out, "This comes from %s (%s); kortti itself was not tried there.\n", p.Source, p.Date)
	}
	return nil
}

func listPresets(std stdio, args []string) error {
	fs := newFlags(std, "hosts presets", "")
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	all := presets.All()
	if *asJSON {
		return printJSON(std.out, all)
	}
	for i, p := range all {
		if i > 0 {
			fmt.Fprintln(std.out)
		}
		if err := printPreset(std.out, p); err != nil {
			return err
		}
	}
	fmt.Fprintln(std.out, "\nList one with: kortti hosts add --preset PRESET")
	fmt.Fprintln(std.out, "For another service, let kortti find the hosts of its login: kortti hosts add --probe URL")
	return nil
}

func printPreset(w io.Writer, p presets.Preset) error {
	tried := "not tried by this project; "
	if p.Tried {
		tried = ""
	}
	fmt.Fprintf(w, "%s: %s\n", p.Name, p.Title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"asks for the card", strings.Join(p.Hosts, ", ")}, {"login starts at", p.Start}, {"note", p.Note},
		{"known from", tried + p.Source + " (" + p.Date + ")"},
	} {
		if line[1] != "" {
			fmt.Fprintf(tw, "  %s\t%s\n", line[0], line[1])
		}
	}
	return tw.Flush()
}
