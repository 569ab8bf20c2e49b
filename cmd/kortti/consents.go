package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

const consentsUsage = "list | revoke [ID]"

// runConsents shows which programs may use a card at which host, and takes that
// back. It lists where nothing else is said.
func runConsents(ctx context.Context, std stdio, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") && !isHelp(args[0]) {
		args = append([]string{"list"}, args...)
	}
	what, args, err := verb(std, "consents", consentsUsage, args)
	if err != nil {
		return err
	}
	if what == "revoke" {
		return revokeConsent(ctx, std, args)
	}
	return listConsents(ctx, std, args)
}

func revokeConsent(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "consents revoke", "[ID]")
	socket := socketFlag(fs)
	all := fs.Bool("all", false, "take back every consent")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	id := ""
	if len(rest) > 0 {
		id = rest[0]
	}
	if *all == (id != "") {
		return &usageError{"name one consent by its ID, or all of them with --all", "consents revoke ID | --all"}
	}
	return withAgent(*socket, func(c *control.Client) error {
		if err := c.DeleteConsent(ctx, id); err != nil {
			return err
		}
		fmt.Fprintln(std.out, "Taken back. The next request is asked for again.")
		return nil
	})
}

func listConsents(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "consents list", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		list, err := c.Consents(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, list)
		}
		if len(list) == 0 {
			fmt.Fprintln(std.out, "No program has been allowed to use a card. Each is asked for when it first wants to.")
			return nil
		}
		names := personsOf(ctx, c)
		tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "ID\tPROGRAM\tHOST\tCARD\tSINCE\tUNTIL")
		for _, consent := range list {
			until := "you revoke it"
			if !consent.Remembered {
				until = "locked or removed"
			}
			card := short(consent.Card)
			if name := names[consent.Card]; name != "" {
				card = name
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", consent.ID, consent.Program, consent.Host, card, consent.Since.Local().Format(time.DateTime), until)
		}
		return tw.Flush()
	})
}

// personsOf are the names on the certificates of the inserted cards, by SHA-256;
// without them a list still says all there is.
func personsOf(ctx context.Context, c *control.Client) map[string]string {
	names := map[string]string{}
	cards, err := c.Cards(ctx)
	if err != nil {
		return names
	}
	for _, r := range cards.Readers {
		if r.Card == nil {
			continue
		}
		for _, cert := range r.Card.Certificates {
			names[cert.SHA256] = cert.Name
		}
	}
	return names
}
