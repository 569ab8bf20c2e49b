package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/kortti-id/kortti/agent"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/systemd"
)

func runAgent(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "agent", "")
	file := fs.String("config", "", "configuration `FILE` (default: $XDG_CONFIG_HOME/kortti/kortti.toml)")
	verbose := fs.Bool("v", false, "say more")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	sockets, err := systemd.Sockets() // before anything is started
	service, err2 := systemd.NewNotifier()
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	// net/http's client writes there what a host says out of turn, which may be
	// anything; all else goes to the agent's own log.
	log.SetOutput(io.Discard)
	hangUps := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup leaves it
		signal.Notify(hangUps, syscall.SIGHUP)
		defer signal.Stop(hangUps)
	}
	cfg, err := config.Load(*file)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{Config: cfg, Version: version, Sockets: sockets, Service: service, Log: newLog(std.err, *verbose)})
	if err != nil {
		return err
	}
	defer a.Close()
	fmt.Fprintf(std.err, "kortti agent: proxy at %s, control socket %s\n", a.Proxy(), a.Socket())
	if len(cfg.Hosts.List()) == 0 {
		fmt.Fprintln(std.err, "No host is listed yet, so nothing gets your certificate: kortti hosts add HOST")
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	var listening sync.WaitGroup
	listening.Go(func() { obey(ctx, hangUps, a, end) })
	err = a.Run(ctx)
	end()
	listening.Wait()
	return err
}

// newLog is text for a terminal or a file, or what the journal takes.
func newLog(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if f, ok := w.(*os.File); ok && systemd.IsJournal(f) {
		return slog.New(systemd.NewJournalHandler(w, level))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// obey reloads the agent for each SIGHUP until ctx ends. Where the terminal has
// gone that the agent was started on, the signal says so, and the agent ends: it
// would go on with an unlocked card and nobody to see it.
func obey(ctx context.Context, hangUps <-chan os.Signal, a *agent.Agent, end func()) {
	hadTerminal := hasTerminal()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
			if hadTerminal && !hasTerminal() {
				end()
				return
			}
			_, _ = a.Reload() // the log says how it went
		}
	}
}

// hasTerminal tells whether this process has a terminal that is still there.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
