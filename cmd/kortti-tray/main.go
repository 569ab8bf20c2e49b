// Command kortti-tray shows the cards in the desktop's tray and asks for the
// PIN. It is a client of the agent and runs no card by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"fyne.io/fyne/v2/app"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/gui"
)

func main() {
	socket := flag.String("socket", "", "the agent's control `SOCKET` (default: $XDG_RUNTIME_DIR/kortti/agent.sock)")
	flag.Parse()
	if err := run(*socket); err != nil {
		fmt.Fprintf(os.Stderr, "kortti-tray: %v\n", err)
		os.Exit(1)
	}
}

func run(socket string) error {
	// Fyne panics without a display, so look first.
	if runtime.GOOS == "linux" && os.Getenv("DISPLAY") == "" {
		return fmt.Errorf("there is no display (DISPLAY is not set); start it in a desktop session, or answer on a terminal with: kortti prompt")
	}
	var startAgent func() error // one that somebody else has named is somebody else's to start
	if socket == "" {
		var err error
		if socket, err = control.DefaultSocket(); err != nil {
			return err
		}
		startAgent = start
	}
	client := control.New(socket)
	defer client.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	gui.New(app.NewWithID(gui.ID), client, startAgent, gui.TextsFor(locale())).Run(ctx)
	return nil
}

// locale is the language that the person set, by POSIX's order of variables.
func locale() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}
