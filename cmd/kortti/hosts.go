package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

func runHosts(ctx context.Context, std stdio, args []string) error {
	if len(args) == 0 {
		return usageError("say list, add or remove")
	}
	fs := flags(std, "hosts "+args[0])
	socket := socketFlag(fs)
	switch args[0] {
	case "list":
		asJSON := fs.Bool("json", false, "machine-readable output")
		if _, err := parse(fs, args[1:], 0, 0); err != nil {
			return err
		}
		return withAgent(*socket, func(c *control.Client) error { return listHosts(ctx, std, c, *asJSON) })
	case "add":
		h := control.Host{}
		fs.StringVar(&h.Card, "card", "auto", "the certificate's `SHA-256` to always use there, or auto")
		fs.StringVar(&h.Consent, "consent", "ask", "ask or always")
		fs.StringVar(&h.Address, "address", "", "connect to this `HOST:PORT` instead of asking DNS")
		fs.StringVar(&h.TLSRoots, "tls-roots", "", "PEM `FILE` with extra roots for the host's own certificate")
		rest, err := parse(fs, args[1:], 1, 1)
		if err != nil {
			return err
		}
		h.Name = rest[0]
		return withAgent(*socket, func(c *control.Client) error {
			put, err := c.PutHost(ctx, h)
			if err != nil {
				return err
			}
			fmt.Fprintf(std.out, "%s is listed: programs that use the proxy get the card's certificate there.\n", put.Name)
			fmt.Fprintf(std.out, "Programs must trust its local root: kortti trust print %s > root.pem\n", put.Name)
			return nil
		})
	case "remove":
		rest, err := parse(fs, args[1:], 1, 1)
		if err != nil {
			return err
		}
		return withAgent(*socket, func(c *control.Client) error {
			if err := c.DeleteHost(ctx, rest[0]); err != nil {
				return err
			}
			fmt.Fprintf(std.out, "%s is not listed any more. Its local root is deleted here; remove it from programs that you gave it to.\n", rest[0])
			return nil
		})
	}
	return usageError(fmt.Sprintf("%q is none of list, add, remove", args[0]))
}

func listHosts(ctx context.Context, std stdio, c *control.Client, asJSON bool) error {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	if asJSON {
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

func runTrust(ctx context.Context, std stdio, args []string) error {
	if len(args) == 0 || args[0] != "print" {
		return usageError("say print HOST")
	}
	fs := flags(std, "trust print")
	socket := socketFlag(fs)
	asJSON := fs.Bool("json", false, "machine-readable output")
	rest, err := parse(fs, args[1:], 1, 1)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		root, err := c.Trust(ctx, rest[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, root)
		}
		_, err = fmt.Fprint(std.out, root.PEM)
		return err
	})
}

func runWhy(ctx context.Context, std stdio, args []string) error {
	fs := flags(std, "why")
	socket := socketFlag(fs)
	asJSON := fs.Bool("json", false, "machine-readable output")
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		why, err := c.Why(ctx, rest[0])
		if err != nil {
			return err
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

func runAudit(ctx context.Context, std stdio, args []string) error {
	fs := flags(std, "audit")
	socket := socketFlag(fs)
	asJSON := fs.Bool("json", false, "machine-readable output")
	limit := fs.Int("n", 50, "how many of the newest `RECORDS`")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		records, err := c.Audit(ctx, *limit)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, records)
		}
		tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		for _, r := range records {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.Local().Format(time.DateTime),
				r.Decision, r.Host, r.Program, short(r.Certificate), r.Reason)
		}
		return tw.Flush()
	})
}

// short is the beginning of a SHA-256, enough to tell certificates apart.
func short(sha256 string) string {
	if len(sha256) == 64 {
		return sha256[:12]
	}
	return sha256
}
