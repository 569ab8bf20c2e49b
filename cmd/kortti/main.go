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
	// describe, if there, is handed what --help would print: see table.
	describe func(description)
}

func commands() []command {
	return []command{
		{"agent", "[--config FILE]", "run the agent: local proxy, prompts, control API", runAgent},
		{"service", serviceUsage, "have the agent started by systemd or with your desktop", runService},
		{"status", "[--json]", "is the agent running, is the card unlocked", runStatus},
		{"cards", "[--json]", "readers and cards", runCards},
		{"certs", "[--json | --pem]", "certificates on the cards, and which can log in", runCerts},
		{"doctor", "[--json]", "what keeps a card from working, and what to do", runDoctor},
		{"unlock", "[CARD]", "ask for the PIN and unlock the card", runUnlock},
		{"lock", "[CARD]", "lock the card, or all cards", runLock},
		{"pin", pinUsage, "a new PIN for the card, by the old one or the PUK", runPIN},
		{"prompt", "[--once] [--pinentry]", "answer the agent's questions on this terminal, or by pinentry", runPrompt},
		{"exec", "-- PROGRAM [ARG...]", "run a program so that it reaches listed hosts with the card", runExec},
		{"get", "URL", "get a web page with the card", runGet},
		{"hosts", hostsUsage, "the hosts that get the card's certificate", runHosts},
		{"trust", trustUsage, "make browsers trust the local roots of the listed hosts", runTrust},
		{"why", "HOST", "which certificate a host would get, and why", runWhy},
		{"consents", consentsUsage, "which programs may use a card where", runConsents},
		{"profiles", profilesUsage, "what the agent has learned about hosts", runProfiles},
		{"settings", settingsUsage, "what the agent runs with", runSettings},
		{"reload", "[--json]", "have the agent read its settings again", runReload},
		{"audit", "[--json]", "what the agent decided", runAudit},
		{"testcard", testcardUsage, "test cards made with SoftHSM", runTestcard},
		{"demo", "[--keep]", "a test card logs in to a demo service, from end to end", runDemo},
		{"completion", completionUsage, "a script that lets your shell complete kortti's commands", runCompletion},
		{"man", "[PAGE]", "the manual pages kortti and kortti.toml", runMan},
		{"version", "", "the version of this program", runVersion},
	}
}

func main() {
	card.RunIfChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, std stdio, args []string) int {
	switch {
	case len(args) == 0, len(args) == 1 && isHelp(args[0]):
		printUsage(std.out)
		return exitDone
	case args[0] == completeCommand:
		runComplete(ctx, std, args[1:])
		return exitDone
	case args[0] == "help":
		args = append(args[1:], "--help")
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return report(std.err, c, c.run(ctx, std, args[1:]))
		}
	}
	fmt.Fprintf(std.err, "kortti: there is no command %q\nSee the commands with: kortti help\n", args[0])
	return exitUsage
}

func isHelp(arg string) bool {
	return arg == "help" || arg == "-h" || arg == "-help" || arg == "--help"
}

// helpColumn is how wide the commands are before what they do.
const helpColumn = 33

func printUsage(w io.Writer) {
	fmt.Fprintln(w, "kortti logs you in to web services with your smart card.")
	fmt.Fprintln(w)
	for _, c := range commands() {
		use := strings.TrimSpace("kortti " + c.name + " " + c.usage)
		if len(use) > helpColumn {
			fmt.Fprintf(w, "  %s\n", use)
			use = ""
		}
		fmt.Fprintf(w, "  %-*s  %s\n", helpColumn, use, c.short)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "The flags of a command: kortti COMMAND --help")
	var codes []string
	for _, c := range exitCodes {
		codes = append(codes, fmt.Sprintf("%d %s", c.code, c.what))
	}
	fmt.Fprintln(w, "Exit codes: "+strings.Join(codes, ", "))
	fmt.Fprintln(w, "Start with: kortti agent")
}

// report prints an error with what to do next and turns it into an exit code.
func report(w io.Writer, c command, err error) int {
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.As(err, &usage):
		use := usage.use
		if use == "" {
			use = strings.TrimSpace(c.name + " " + c.usage)
		}
		fmt.Fprintf(w, "kortti %s: %s\nUse: kortti %s\n", c.name, usage.text, use)
		return exitUsage
	}
	message, hint := describe(err)
	fmt.Fprintf(w, "kortti %s: %s\n", c.name, message)
	if hint != "" {
		fmt.Fprintln(w, hint)
	}
	return exitCode(err)
}

// describe says what went wrong and, in a sentence of its own, what to do.
func describe(err error) (message, hint string) {
	var ce *control.Error
	if errors.As(err, &ce) {
		return ce.Message, ce.Hint
	}
	return err.Error(), card.Hint(err)
}

func runVersion(_ context.Context, std stdio, args []string) error {
	if _, err := parse(newFlags(std, "version", ""), args); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "kortti %s\n", version)
	return nil
}
