package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

const profilesUsage = "list | reset HOST"

// runProfiles shows what the agent has learned about hosts, and has it forget.
// It lists where nothing else is said.
func runProfiles(ctx context.Context, std stdio, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") && !isHelp(args[0]) {
		args = append([]string{"list"}, args...)
	}
	what, args, err := verb(std, "profiles", profilesUsage, args)
	if err != nil {
		return err
	}
	if what == "reset" {
		return resetProfile(ctx, std, args)
	}
	return listProfiles(ctx, std, args)
}

func resetProfile(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "profiles reset", "HOST")
	socket := socketFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		if err := c.ResetProfile(ctx, rest[0]); err != nil {
			return err
		}
		fmt.Fprintf(std.out, "Forgot what was learned about %s. The next request looks at it anew.\n", rest[0])
		return nil
	})
}

func listProfiles(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "profiles list", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		list, err := c.Profiles(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, list)
		}
		if len(list) == 0 {
			fmt.Fprintln(std.out, "Nothing special was learned about any host: all work in the usual way.")
		}
		for _, p := range list {
			printProfile(std, p)
		}
		return nil
	})
}

// printProfile says what was learned, and what follows from it.
func printProfile(std stdio, p control.Profile) {
	name := p.Host
	if p.Port != "443" {
		name = net.JoinHostPort(p.Host, p.Port)
	}
	fmt.Fprintf(std.out, "%s (learned %s)\n", name, p.Since.Local().Format(time.DateTime))
	fmt.Fprintf(std.out, "  why: %s\n", p.Reason)
	for _, rule := range []struct {
		on   bool
		text string
	}{
		{p.HTTP1, "HTTP/1.1 only"},
		{p.TLS12Renegotiation, "TLS 1.2 with one renegotiation for these paths: each connection costs a signature"},
		{p.WarmUp, "before a request with a body goes one without"},
	} {
		if rule.on {
			fmt.Fprintf(std.out, "  so:  %s\n", rule.text)
		}
	}
}
