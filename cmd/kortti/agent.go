package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/kortti-id/kortti/agent"
	"github.com/kortti-id/kortti/agent/config"
)

func runAgent(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "agent", "")
	file := fs.String("config", "", "configuration `FILE` (default: $XDG_CONFIG_HOME/kortti/kortti.toml)")
	verbose := fs.Bool("v", false, "say more")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	cfg, err := config.Load(*file)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: level}))
	a, err := agent.New(agent.Options{Config: cfg, Version: version, Log: log})
	if err != nil {
		return err
	}
	defer a.Close()
	fmt.Fprintf(std.err, "kortti agent: proxy at %s, control socket %s\n", a.Proxy(), a.Socket())
	if len(cfg.Hosts.List()) == 0 {
		fmt.Fprintln(std.err, "No host is listed yet, so nothing gets your certificate: kortti hosts add HOST")
	}
	return a.Run(ctx)
}
