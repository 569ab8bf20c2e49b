package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/presets"
	"github.com/kortti-id/kortti/agent/probe"
	"github.com/kortti-id/kortti/agent/upstream"
)

// byProbe follows a login, shows its way and lists the hosts that ask, after a
// question. Without a terminal, and without --yes, it lists nothing.
func (a *adding) byProbe(ctx context.Context) error {
	start, err := webAddress(a.probe)
	if err != nil {
		return err
	}
	a.first = strings.TrimSuffix(start.Host, ":443")
	cfg, err := a.probeConfig(ctx)
	if err != nil {
		return err
	}
	result, err := probe.Follow(ctx, cfg, start.String())
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.std.out, result)
	}
	if err := printProbe(a.std.out, result); err != nil {
		return err
	}
	fmt.Fprintln(a.std.out, ending(result))
	found := result.Asking()
	if len(found) == 0 && result.End == probe.Failed {
		return &control.Error{Code: "probe-failed", Message: "the login could not be followed to its end, and no host was listed", Hint: "Check the address and the network."}
	}
	if len(found) == 0 {
		return &control.Error{Code: "none-asks", Message: "no host on the way asked for a card, so none was listed", Hint: "If you know the host that asks, list it: kortti hosts add HOST"}
	}
	if !a.yes {
		if _, person := terminal(a.std.in); !person {
			fmt.Fprintf(a.std.out, "List them with: kortti hosts add --yes --probe URL, or one by one: kortti hosts add %s\n", found[0])
			return nil
		}
		ok, err := yes(ctx, a.std, fmt.Sprintf("List %s? [y/N] ", strings.Join(found, " and ")))
		if err != nil || !ok {
			return err
		}
	}
	return a.put(ctx, found...)
}

// probeConfig goes the way that the agent goes to hosts.
func (a *adding) probeConfig(ctx context.Context) (probe.Config, error) {
	cfg := probe.Config{UserAgent: "kortti/" + version}
	way, err := a.wayOut(ctx)
	if err != nil {
		return cfg, err
	}
	first := a.first
	if !strings.Contains(first, ":") {
		first += ":443"
	}
	cfg.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == first && a.host.Address != "" {
			return (&net.Dialer{}).DialContext(ctx, network, a.host.Address)
		}
		return way.DialContext(ctx, network, addr)
	}
	if a.host.TLSRoots == "" {
		return cfg, nil
	}
	raw, err := readBundle(a.host.TLSRoots)
	if err != nil {
		return cfg, err
	}
	if cfg.Roots, err = x509.SystemCertPool(); err != nil {
		return cfg, fmt.Errorf("read the system's trust anchors: %w", err)
	}
	cfg.Roots.AppendCertsFromPEM(raw)
	return cfg, nil
}

// wayOut is the upstream proxy of the agent, or of kortti.toml where none runs.
func (a *adding) wayOut(ctx context.Context) (*upstream.Dialer, error) {
	file := ""
	err := withAgent(a.socket, func(c *control.Client) error {
		settings, err := c.Settings(ctx)
		file = settings.ConfigFile
		return err
	})
	if err != nil && !noAgent(err) {
		return nil, err
	}
	if _, err := os.Stat(file); err != nil {
		file = "" // the default one, which may be missing
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	var own []netip.AddrPort
	if listen, err := netip.ParseAddrPort(cfg.Proxy.Listen); err == nil {
		own = append(own, listen)
	}
	return upstream.New(upstream.Config{Setting: cfg.Proxy.Upstream, Own: own})
}

func printProbe(w io.Writer, r probe.Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "HOST\tPATH\tANSWER\tTLS\tASKS FOR A CARD")
	for _, h := range r.Hops {
		answer, asks := "", "no"
		if h.Status != 0 {
			answer = fmt.Sprint(h.Status)
		}
		switch {
		case h.Asks && h.Late:
			asks = "YES, after the request"
		case h.Asks:
			asks = "YES"
		case h.TLS == "":
			asks = "not known"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", h.Host, h.Path, answer, h.TLS, asks)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, h := range r.Hops {
		if h.Asks && len(h.CAs) > 0 {
			fmt.Fprintf(w, "%s takes certificates of:\n  %s\n", h.Host, strings.Join(h.CAs, "\n  "))
		}
	}
	return nil
}

// ending says why the probe ended and what it therefore could not see.
func ending(r probe.Result) string {
	last := r.Hops[len(r.Hops)-1]
	text := ""
	switch r.End {
	case probe.Needs:
		return last.Host + " does not go on without a card: the way ends here."
	case probe.Failed:
		return fmt.Sprintf("%s: %s. The way ends here.", last.Host, last.Error)
	case probe.NotHTTPS:
		text = fmt.Sprintf("%s leads to %s, which is not followed: certificates are for https only.", last.Host, r.Next)
	case probe.TooLong:
		text = fmt.Sprintf("The login goes round: it did not end after %d pages.", probe.MaxHops)
	case probe.Form, probe.Script:
		text = "The page of " + last.Host + " goes on by a form or a script, which a probe cannot follow. Go on in a browser to where the card is asked for, and probe the address of that page."
	case probe.Answered:
		text = last.Host + " answered with a page. If the card is asked for behind one of its links, probe that link's address."
	}
	if i := slices.IndexFunc(r.Hops, func(h probe.Hop) bool { return h.TLS == "1.3" && !h.Asks }); i >= 0 {
		text += " A server that asks late within TLS 1.3 cannot be seen."
	}
	for _, h := range r.Hops {
		if p, ok := presets.Behind(h.Host); ok {
			text += fmt.Sprintf("\nThis login goes over %s, for which there is a preset: kortti hosts add --preset %s", h.Host, p.Name)
			break
		}
	}
	return text
}
