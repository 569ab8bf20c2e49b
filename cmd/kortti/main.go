// Command kortti runs the agent, which presents a smart card's certificate to
// web services for the programs on this machine, and talks to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// version is set by the release build.
var version = "devel"

// The exit codes that scripts may rely on.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2
	exitNoCard    = 3
	exitPIN       = 4
	exitPINLocked = 5
)

// A command is one subcommand. usage is what follows the name.
type command struct {
	name, usage, short string
	run                func(ctx context.Context, std stdio, args []string) error
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func commands() []command {
	return []command{
		{"agent", "[--config FILE]", "run the agent: local proxy, prompts, control API", runAgent},
		{"status", "[--json]", "is the agent running, is the card unlocked", runStatus},
		{"cards", "[--json]", "readers and cards", runCards},
		{"certs", "[--json]", "certificates on the cards, and which can log in", runCerts},
		{"unlock", "[CARD]", "ask for the PIN and unlock the card", runUnlock},
		{"lock", "[CARD]", "lock the card, or all cards", runLock},
		{"prompt", "[--once]", "answer the agent's questions on this terminal", runPrompt},
		{"hosts", "list | add HOST | remove HOST", "the hosts that get the card's certificate", runHosts},
		{"trust", "print HOST", "the local root certificate of a listed host, for curl and others", runTrust},
		{"why", "HOST", "which certificate a host would get, and why", runWhy},
		{"audit", "[--json]", "what the agent decided", runAudit},
		{"testcard", "create | list | delete | pull | insert", "test cards made with SoftHSM", runTestcard},
		{"demo", "[--keep]", "a test card logs in to a demo service, from end to end", runDemo},
		{"version", "", "the version of this program", runVersion},
	}
}

func main() {
	card.RunIfChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, stdio{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, std stdio, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		printUsage(std.out)
		return exitDone
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return report(std.err, c, c.run(ctx, std, args[1:]))
		}
	}
	fmt.Fprintf(std.err, "kortti: there is no command %q; `kortti help` lists them\n", args[0])
	return exitUsage
}

func printUsage(w io.Writer) {
	fmt.Fprintln(w, "kortti logs you in to web services with your smart card.")
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(tw, "  kortti %s\t%s\n", strings.TrimSpace(c.name+" "+c.usage), c.short)
	}
	tw.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(w, "Start with: kortti agent")
}

// usageError is a wrong use of the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// report prints an error with what to do next and turns it into an exit code.
func report(w io.Writer, c command, err error) int {
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(w, "kortti %s: %s\nuse: kortti %s\n", c.name, usage, strings.TrimSpace(c.name+" "+c.usage))
		return exitUsage
	}
	message, hint := err.Error(), card.Hint(err)
	var ce *control.Error
	if errors.As(err, &ce) {
		message, hint = ce.Message, ce.Hint
	}
	fmt.Fprintf(w, "kortti %s: %s\n", c.name, message)
	if hint != "" {
		fmt.Fprintln(w, hint)
	}
	return exitCode(err)
}

// flags makes the flag set of a command; parse errors become usage errors.
func flags(std stdio, name string) *flag.FlagSet {
	fs := flag.NewFlagSet("kortti "+name, flag.ContinueOnError)
	fs.SetOutput(std.err)
	return fs
}

// parse lets flags stand before and after the other arguments and checks that
// between least and most of those are given.
func parse(fs *flag.FlagSet, args []string, least, most int) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usageError("see above")
		}
		if fs.NArg() == 0 {
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	switch {
	case len(rest) < least:
		return nil, usageError("something is missing")
	case len(rest) > most:
		return nil, usageError(fmt.Sprintf("%q is too much", rest[most]))
	}
	return rest, nil
}

func runVersion(_ context.Context, std stdio, args []string) error {
	if _, err := parse(flags(std, "version"), args, 0, 0); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "kortti %s\n", version)
	return nil
}
