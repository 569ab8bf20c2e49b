package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/truststore"
)

const hostsUsage = "list | add HOST | remove HOST | presets"

// runHosts lists the hosts where nothing else is said.
func runHosts(ctx context.Context, std stdio, args []string) error {
	if len(args) == 0 {
		args = []string{"list"}
	}
	what, args, err := verb(std, "hosts", hostsUsage, args)
	if err != nil {
		return err
	}
	switch what {
	case "add":
		return addHost(ctx, std, args)
	case "remove":
		return removeHost(ctx, std, args)
	case "presets":
		return listPresets(std, args)
	}
	return listHosts(ctx, std, args)
}

func removeHost(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "hosts remove", "HOST")
	socket := socketFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		if err := c.DeleteHost(ctx, rest[0]); err != nil {
			return aboutHost(rest[0], err)
		}
		fmt.Fprintf(std.out, "%s is not listed any more. Its local root is deleted here.\n", rest[0])
		fmt.Fprintf(std.out, "Remove it from the browsers too: kortti trust uninstall %s\n", truststore.Quote(rest[0]))
		return nil
	})
}

// aboutHost puts the name into the agent's answer that there is no such host.
func aboutHost(name string, err error) error {
	var ce *control.Error
	if errors.As(err, &ce) && ce.Code == control.CodeNotFound {
		return &control.Error{Code: ce.Code, Message: name + " is not a listed host", Hint: ce.Hint}
	}
	return err
}

func listHosts(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "hosts list", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	var hosts []control.Host
	err := withAgent(*socket, func(c *control.Client) (err error) {
		hosts, err = c.Hosts(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, hosts)
	}
	if len(hosts) == 0 {
		fmt.Fprintln(std.out, "No host is listed. Add the one you log in to: kortti hosts add HOST")
		return nil
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "HOST\tCARD\tCONSENT\tADDRESS\tSET IN")
	for _, h := range hosts {
		where := "kortti.toml"
		if h.Managed {
			where = "managed.toml"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", h.Name, short(h.Card), h.Consent, h.Address, where)
	}
	return tw.Flush()
}

func runWhy(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "why", "HOST")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		why, err := c.Why(ctx, rest[0])
		if err != nil {
			return aboutHost(rest[0], err)
		}
		if *asJSON {
			return printJSON(std.out, why)
		}
		printWhy(std, why)
		for _, p := range why.Profiles {
			printProfile(std, p)
		}
		return nil
	})
}

func printWhy(std stdio, why control.Why) {
	if !why.Asked {
		fmt.Fprintf(std.out, "%s does not ask for a certificate in its first handshake.\n", why.Host)
		return
	}
	fmt.Fprintf(std.out, "%s asks for a certificate", why.Host)
	if len(why.AcceptableCAs) == 0 {
		fmt.Fprintln(std.out, " of any issuer; it would never get one without you choosing it.")
	} else {
		fmt.Fprintln(std.out, " issued by:")
		for _, ca := range why.AcceptableCAs {
			fmt.Fprintf(std.out, "  %s\n", ca)
		}
	}
	for _, row := range why.Rows {
		mark := "no "
		if row.Certificate == why.Chosen {
			mark = "YES"
		} else if row.Kept {
			mark = "may"
		}
		fmt.Fprintf(std.out, "%s  %s  %s: %s\n", mark, short(row.Certificate), row.Subject, row.Rule)
	}
	if len(why.Rows) == 0 {
		fmt.Fprintln(std.out, "No card with a certificate is inserted.")
	}
}

// short is the beginning of a SHA-256, enough to tell certificates apart.
func short(sha256 string) string {
	if len(sha256) == 64 {
		return sha256[:12]
	}
	return sha256
}
