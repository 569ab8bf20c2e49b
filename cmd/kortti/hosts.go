package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/control"
)

const hostsUsage = "list | add HOST | remove HOST"

func runHosts(ctx context.Context, std stdio, args []string) error {
	what, args, err := verb(std, "hosts", hostsUsage, args)
	if err != nil {
		return err
	}
	switch what {
	case "add":
		return addHost(ctx, std, args)
	case "remove":
		return removeHost(ctx, std, args)
	}
	return listHosts(ctx, std, args)
}

func addHost(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "hosts add", "HOST")
	socket := socketFlag(fs)
	h := control.Host{}
	fs.StringVar(&h.Card, "card", "auto", "always use the certificate with this `SHA-256` there (see: kortti certs --json), or auto")
	fs.StringVar(&h.Consent, "consent", "ask", "what happens when a program wants to use the card there for the first time: `ask|always`")
	fs.StringVar(&h.Address, "address", "", "connect to this `HOST:PORT` instead of asking DNS")
	fs.StringVar(&h.TLSRoots, "tls-roots", "", "PEM `FILE` with extra roots for the host's own certificate")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	h.Name = rest[0]
	if h.TLSRoots != "" { // the agent has another working directory
		if h.TLSRoots, err = filepath.Abs(h.TLSRoots); err != nil {
			return err
		}
	}
	return withAgent(*socket, func(c *control.Client) error {
		put, err := c.PutHost(ctx, h)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.out, "%s is listed: programs that use the proxy get the card's certificate there.\n", put.Name)
		fmt.Fprintf(std.out, "Browsers must trust its local root, and must be started again then: kortti trust install %s\n", put.Name)
		fmt.Fprintf(std.out, "Programs that take a root from a file: kortti trust print %s > root.pem\n", put.Name)
		return nil
	})
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
		fmt.Fprintf(std.out, "Remove it from the browsers too: kortti trust uninstall %s\n", rest[0])
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
