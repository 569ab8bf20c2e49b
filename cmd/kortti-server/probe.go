package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/kortti-id/kortti/server"
	"github.com/kortti-id/kortti/server/probe"
)

// runProbe attacks one's own site.
func runProbe(ctx context.Context, args []string, out io.Writer) error {
	var config, secret, newSecret, roots, connect string
	var asJSON bool
	var c probe.Config
	flags := flag.NewFlagSet("kortti-server probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&config, "config", "kortti-server.toml", "")
	flags.StringVar(&secret, "secret", "", "")
	flags.StringVar(&newSecret, "new-secret", "", "")
	flags.StringVar(&roots, "roots", "", "")
	flags.StringVar(&connect, "connect", "", "")
	flags.StringVar(&c.Backend, "backend", "", "")
	flags.BoolVar(&asJSON, "json", false, "")
	for name, code := range probe.Codes() {
		flags.Func(name, "", func(file string) error {
			certificate, err := tls.LoadX509KeyPair(file, file)
			if err != nil {
				return fmt.Errorf("%s must hold a certificate and its key, in PEM: %w", file, err)
			}
			c.Refused = append(c.Refused, probe.Bad{Name: name + " certificate", Code: code, Certificate: certificate})
			return nil
		})
	}
	sites, err := parseAll(flags, args)
	if err != nil {
		return err
	}
	if newSecret != "" && len(sites) == 0 {
		if err := probe.NewSecret(newSecret); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "Made %s. Name it in the server's [probe] secret, and let the server's user read it.\n", newSecret)
		return err
	}
	if len(sites) != 1 {
		return errUsage("probe wants the https URL of your site")
	}
	c.URL = sites[0]
	if secret == "" {
		loaded, err := server.Load(config)
		if err != nil {
			return err
		}
		if secret = loaded.Probe.Secret; secret == "" {
			return fmt.Errorf("%s names no [probe] secret; make one with kortti-server probe --new-secret FILE", config)
		}
	}
	if c.Secret, err = probe.ReadSecret(secret); err != nil {
		return err
	}
	if roots != "" {
		content, err := os.ReadFile(roots)
		if err != nil {
			return fmt.Errorf("read the roots: %w", err)
		}
		c.Roots = x509.NewCertPool()
		if !c.Roots.AppendCertsFromPEM(content) {
			return fmt.Errorf("%s holds no certificate in PEM", roots)
		}
	}
	if connect != "" {
		host, _, err := net.SplitHostPort(connect)
		if err != nil {
			return errUsage("--connect wants HOST:PORT, such as 192.0.2.1:443")
		}
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if _, port, _ := net.SplitHostPort(address); port == "80" { // the site without TLS
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(host, port))
			}
			return new(net.Dialer).DialContext(ctx, network, connect)
		}
	}
	if !asJSON {
		c.Found = func(f probe.Finding) { show(f, out) } // it takes a while
	}
	report, err := probe.Run(ctx, c)
	if err != nil {
		return err
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(report); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "\n%d requests; %d ok, %d weak, %d not tried.\n", report.Requests, report.Count(probe.OK), report.Count(probe.Weak), report.Count(probe.NotTried))
	}
	return verdict(report.Count(probe.Hole), report.Count(probe.Failed))
}

func show(f probe.Finding, out io.Writer) {
	fmt.Fprintf(out, "%-9s  %s\n", f.Result, f.Check)
	if f.Detail != "" {
		fmt.Fprintf(out, "           %s\n", f.Detail)
	}
	for line := range strings.SplitSeq(f.Mend, " · ") {
		if line != "" {
			fmt.Fprintf(out, "           %s\n", line)
		}
	}
}

// verdict is an error where the site is not shown to be good.
func verdict(holes, failed int) error {
	var bad []string
	if holes > 0 {
		bad = append(bad, fmt.Sprintf("holes were found: %d", holes))
	}
	if failed > 0 {
		bad = append(bad, fmt.Sprintf("checks that say nothing, because no answer came: %d; run it again", failed))
	}
	if len(bad) == 0 {
		return nil
	}
	return errors.New(strings.Join(bad, "; "))
}
