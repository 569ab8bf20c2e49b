package main

import (
	"context"
	"fmt"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/truststore"
)

func runStatus(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "status", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, s)
		}
		fmt.Fprintf(std.out, "The agent has run for %v, process %d, proxy %s.\n", time.Duration(s.Uptime)*time.Second, s.PID, s.Proxy)
		fmt.Fprintf(std.out, "Set in your browser the automatic proxy configuration http://%s/proxy.pac, or %s as HTTP and HTTPS proxy.\n", s.Proxy, s.Proxy)
		for _, c := range s.Cards {
			fmt.Fprintf(std.out, "Card %q: %s\n", c.Label, c.State)
		}
		if len(s.Cards) == 0 {
			fmt.Fprintln(std.out, "No card is inserted.")
		}
		fmt.Fprintf(std.out, "Locks the cards when the screen locks: %s\n", watch(s.ScreenLock))
		fmt.Fprintf(std.out, "Locks the cards before sleep: %s\n", watch(s.Sleep))
		if len(s.RootsEnding) > 0 {
			hosts := truststore.Quote(s.RootsEnding...)
			fmt.Fprintf(std.out, "Local roots end within 30 days; install new ones and start the browser again: kortti trust install %s\n", hosts)
		}
		n := s.Counters
		fmt.Fprintf(std.out, "Requests %d, signatures %d, signatures avoided %d, questions to you %d.\n",
			n.Requests, n.Signatures, n.SignaturesAvoided, n.Prompts)
		fmt.Fprintf(std.out, "Connections to hosts %d, handshakes %d full and %d resumed, errors of hosts %d.\n",
			n.Connections, n.HandshakesFull, n.HandshakesResumed, n.UpstreamErrors)
		return nil
	})
}

func watch(w control.Watch) string {
	if w.Watched {
		return "yes (" + w.Detail + ")"
	}
	return "no: " + w.Detail
}
