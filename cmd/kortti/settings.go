package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/control"
)

const settingsUsage = "list | set SETTING VALUE"

// runSettings shows what the agent runs with, or changes it. It lists where
// nothing else is said.
func runSettings(ctx context.Context, std stdio, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") && !isHelp(args[0]) {
		args = append([]string{"list"}, args...)
	}
	what, args, err := verb(std, "settings", settingsUsage, args)
	if err != nil {
		return err
	}
	if what == "set" {
		return setSetting(ctx, std, args)
	}
	return listSettings(ctx, std, args)
}

func listSettings(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "settings list", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		s, err := c.Settings(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, s)
		}
		return printSettings(std, s)
	})
}

func printSettings(std stdio, s control.Settings) error {
	canSet := func(name string) string {
		if slices.Contains(s.Fixed, name) {
			return "kortti.toml"
		}
		return "kortti settings set " + name
	}
	idle := s.IdleLock
	if idle == "0s" {
		idle = "never"
	}
	upstream := s.Upstream
	if upstream == "" {
		upstream = "none"
	}
	tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SETTING\tVALUE\tCHANGE IT WITH")
	fmt.Fprintf(tw, "idle_lock\t%s\t%s\n", idle, canSet(control.SettingIdleLock))
	fmt.Fprintf(tw, "upstream\t%s\t%s\n", upstream, canSet(control.SettingUpstream))
	fmt.Fprintf(tw, "modules\t%s\tkortti.toml\n", strings.Join(s.Modules, " "))
	fmt.Fprintf(tw, "listen\t%s\tkortti.toml\n", s.Proxy)
	fmt.Fprintf(tw, "socket\t%s\tkortti.toml\n", s.Socket)
	for _, l := range s.Listeners {
		fmt.Fprintf(tw, "listener\t%s to %s\tkortti.toml\n", l.Address, l.Upstream)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "\nYour settings: %s\nSet at run time: %s\nState: %s\n", s.ConfigFile, s.ManagedFile, s.StateDir)
	return nil
}

// setSetting changes a setting. A password is not taken from the command line,
// which every program of the machine can read.
func setSetting(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "settings set", "SETTING VALUE|-")
	socket := socketFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	value := rest[1]
	if u, err := url.Parse(value); err == nil && u.User != nil {
		return wrongUse("other programs can read the command line, so give no password there; write - and type the value, or set it in kortti.toml")
	}
	if value == "-" {
		line, err := bufio.NewReader(std.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the value: %w", err)
		}
		value = strings.TrimSpace(line)
	}
	var change control.SettingsChange
	switch strings.ReplaceAll(rest[0], "-", "_") {
	case control.SettingIdleLock:
		change.IdleLock = &value
	case control.SettingUpstream:
		if value == "none" {
			value = ""
		}
		change.Upstream = &value
	default:
		return wrongUse("%q is none of: %s, %s; the others are in kortti.toml alone", rest[0], control.SettingIdleLock, control.SettingUpstream)
	}
	return withAgent(*socket, func(c *control.Client) error {
		s, err := c.PutSettings(ctx, change)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.out, "Set at once, and written to %s.\n", s.ManagedFile)
		return nil
	})
}

// runReload has the agent read its files again.
func runReload(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "reload", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		r, err := c.Reload(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, r)
		}
		for _, what := range r.Changed {
			fmt.Fprintf(std.out, "Changed: %s\n", what)
		}
		if len(r.Changed) == 0 {
			fmt.Fprintln(std.out, "Nothing has changed.")
		}
		for _, what := range r.Kept {
			fmt.Fprintf(std.out, "Kept as it was until you start the agent again: %s\n", what)
		}
		return nil
	})
}
