// Command kortti-server is the ready-to-run server: it serves the login pages,
// checks a configuration, explains decisions and manages accounts.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kortti-id/kortti/server"
	"github.com/kortti-id/kortti/server/verify"
)

const usage = `kortti-server admits people to web services by the certificate on their card.

usage:
  kortti-server serve  [--config FILE]          run the server until it is interrupted; SIGHUP reads
                                                the configuration anew
  kortti-server check  [--config FILE]          say what is wrong with the configuration
  kortti-server why    [--config FILE] [--at TIME] [--json] CERT
                                                say why a certificate (PEM or DER) is let in or not,
                                                now or at another time (2026-01-31, or RFC 3339)
  kortti-server users  list [--json]            list the accounts, waiting ones first
  kortti-server users  approve WHO              let somebody in, by user name or key
  kortti-server users  deactivate WHO           keep somebody out and end the sessions
  kortti-server users  roles WHO [ROLE ...]     replace somebody's roles
  kortti-server audit  show [--ref REF] [--user N] [--certificate SHA256] [--code CODE] [--since TIME] [--json]
                                                list decisions, such as the one whose reference a person tells
  kortti-server audit  verify [--checkpoint FILE] [--json]
                                                say whether the audit log is still as it was written
  kortti-server audit  checkpoint               print the end of the chain, to be kept elsewhere
  kortti-server audit  prune --before DATE      remove the segments that had ended before
  kortti-server probe  --new-secret FILE        make the file that [probe] secret names
  kortti-server probe  [--secret FILE] [--roots FILE] [--connect HOST:PORT] [--backend HOST:PORT]
                       [--revoked|--expired|--signature FILE] [--json] URL
                                                attack your own site from outside and say what to mend (exit code
                                                1 where it finds a hole, and where a check got no answer)
  kortti-server version

The configuration is kortti-server.toml unless --config names another file.
Exit codes: 0 done, 1 failed or refused, 2 wrong use.
`

// errUsage ends the program with exit code 2; its text is a hint.
type errUsage string

func (e errUsage) Error() string { return string(e) + "; see kortti-server help" }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "kortti-server:", line)
		}
		if _, wrongUse := errors.AsType[errUsage](err); wrongUse {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage("say what to do: serve, check, why, users, audit, probe or version")
	}
	command, args := args[0], args[1:]
	if slices.ContainsFunc(args, func(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }) {
		command = "help"
	}
	switch command {
	case "serve":
		config, err := load(args, 0)
		if err != nil {
			return err
		}
		return serve(ctx, config)
	case "check":
		config, err := load(args, 0)
		if err != nil {
			return err
		}
		return check(config, out)
	case "why":
		config, err := load(args, 1)
		if err != nil {
			return err
		}
		return why(ctx, config, out)
	case "audit":
		return runAudit(args, out)
	case "probe":
		return runProbe(ctx, args, out)
	case "users":
		return runUsers(ctx, args, out)
	case "version":
		_, err := fmt.Fprintln(out, "kortti-server", version())
		return err
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(out, usage)
		return err
	}
	return errUsage(fmt.Sprintf("there is no command %q", command))
}

// loaded is a command line with the configuration that it names.
type loaded struct {
	server.Config
	file string
	args []string
	json bool
	at   time.Time
}

// parse reads the options, which may stand before, between and after the
// arguments.
func parse(args []string) (loaded, error) {
	var l loaded
	flags := flag.NewFlagSet("kortti-server", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&l.file, "config", "kortti-server.toml", "")
	flags.BoolVar(&l.json, "json", false, "")
	flags.Func("at", "", func(text string) (err error) {
		l.at, err = parseTime(text)
		return err
	})
	var err error
	l.args, err = parseAll(flags, args)
	return l, err
}

// parseAll reads the options before, between and after the arguments, and returns
// the arguments.
func parseAll(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return nil, errUsage(err.Error())
		}
		if args = flags.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	return rest, nil
}

func load(args []string, want int) (loaded, error) {
	l, err := parse(args)
	if err != nil {
		return loaded{}, err
	}
	if len(l.args) != want {
		return loaded{}, errUsage(fmt.Sprintf("%d arguments given, %d wanted", len(l.args), want))
	}
	l.Config, err = server.Load(l.file)
	return l, err
}

// serve runs until ctx ends. SIGHUP reads the configuration anew.
func serve(ctx context.Context, config loaded) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	srv, err := server.New(ctx, config.Config, server.Options{Log: log})
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()
	for {
		select {
		case <-hup:
			if err := reload(srv, config.file); err != nil {
				log.Error("the configuration cannot be used; the old one stays in force", "error", err)
			}
		case err := <-served:
			return errors.Join(err, srv.Close())
		}
	}
}

func reload(srv *server.Server, file string) error {
	config, err := server.Load(file)
	if err != nil {
		return err
	}
	_, err = srv.Reload(config)
	return err
}

func check(config loaded, out io.Writer) error {
	var wrong server.Problems
	for _, problem := range server.Check(config.Config) {
		if !problem.Warning {
			wrong = append(wrong, problem)
			continue
		}
		if _, err := fmt.Fprintln(out, problem); err != nil {
			return err
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	_, err := fmt.Fprintf(out, "%s: ok\n", config.file)
	return err
}

func why(ctx context.Context, config loaded, out io.Writer) error {
	content, err := os.ReadFile(config.args[0])
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	report, err := server.Why(ctx, config.Config, content, config.at)
	if problems, ok := errors.AsType[server.Problems](err); ok {
		return problems
	}
	if err != nil {
		return fmt.Errorf("%s: %w", config.args[0], err)
	}
	print := printReport
	if config.json {
		print = printReportJSON
	}
	if err := print(report, out); err != nil {
		return err
	}
	if report.Code != "" {
		return fmt.Errorf("%s: %s", report.Decision, report.Code)
	}
	return nil
}

func printReport(report verify.Report, out io.Writer) error {
	for _, step := range report.Steps {
		if _, err := fmt.Fprintf(out, "%-10s %-22s %s\n", step.Result, step.Check, step.Detail); err != nil {
			return err
		}
	}
	if report.Code != "" {
		return nil // the last word is the error
	}
	_, err := fmt.Fprintln(out, report.Decision)
	return err
}

func printReportJSON(report verify.Report, out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		verify.Report
		Certificate string `json:"certificate"` // SHA-256
	}{report, hex.EncodeToString(report.Fingerprint[:])})
}

// parseTime reads a day, in the local time zone, or a time of RFC 3339.
func parseTime(text string) (time.Time, error) {
	if day, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return day, nil
	}
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errors.New("write 2026-01-31 or 2026-01-31T08:00:00Z")
	}
	return moment, nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
