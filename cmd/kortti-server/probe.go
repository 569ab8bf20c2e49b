package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

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
		c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, connect)
		}
	}
	findings, err := probe.Run(ctx, c)
	if err != nil {
		return err
	}
	return report(findings, asJSON, out)
}

// report lists what was found; holes are an error.
func report(findings []probe.Finding, asJSON bool, out io.Writer) error {
	holes := 0
	for _, f := range findings {
		if f.Result == probe.Hole {
			holes++
		}
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(findings); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			fmt.Fprintf(out, "%-9s  %s\n", f.Result, f.Check)
			if f.Detail != "" {
				fmt.Fprintf(out, "           %s\n", f.Detail)
			}
			if f.Mend != "" {
				fmt.Fprintf(out, "           %s\n", f.Mend)
			}
		}
	}
	switch holes {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("1 hole was found")
	}
	return fmt.Errorf("%d holes were found", holes)
}
