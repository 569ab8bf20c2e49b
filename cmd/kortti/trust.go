package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/truststore"
)

const trustUsage = "install [HOST]... | status | uninstall [HOST]... | print HOST"

// runTrust needs a running agent, as it alone makes the roots and keeps them.
func runTrust(ctx context.Context, std stdio, args []string) error {
	what, args, err := verb(std, "trust", trustUsage, args)
	if err != nil {
		return err
	}
	switch what {
	case "install":
		return installTrust(ctx, std, args)
	case "uninstall":
		return uninstallTrust(ctx, std, args)
	case "status":
		return showTrust(ctx, std, args)
	}
	return printRoot(ctx, std, args)
}

// printRoot prints a root for programs that are told of it by hand.
func printRoot(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "trust print", "HOST")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		root, err := c.Trust(ctx, rest[0])
		if err != nil {
			return aboutHost(rest[0], err)
		}
		if *asJSON {
			return printJSON(std.out, root)
		}
		_, err = fmt.Fprint(std.out, root.PEM)
		return err
	})
}

// trustFlags are those of install and uninstall.
type trustFlags struct {
	*flagSet
	socket              *string
	print, system, json *bool
}

func newTrustFlags(std stdio, name, args string) trustFlags {
	fs := newFlags(std, name, args)
	return trustFlags{
		flagSet: fs, socket: socketFlag(fs), json: jsonFlag(fs),
		print:  fs.Bool("print", false, "change nothing; print the commands that would do it"),
		system: fs.Bool("system", false, "the system's store too (curl, git and others use it; Chromium and Firefox do not)"),
	}
}

func installTrust(ctx context.Context, std stdio, args []string) error {
	fs := newTrustFlags(std, "trust install", "[HOST]...")
	hosts, err := parse(fs.flagSet, args)
	if err != nil {
		return err
	}
	return changeTrust(ctx, std, fs, control.TrustRequest{Action: control.TrustInstall, Hosts: hosts, All: len(hosts) == 0})
}

func uninstallTrust(ctx context.Context, std stdio, args []string) error {
	fs := newTrustFlags(std, "trust uninstall", "[HOST]...")
	all := fs.Bool("all", false, "every local root, also those of hosts that are not listed any more")
	hosts, err := parse(fs.flagSet, args)
	if err != nil {
		return err
	}
	if *all == (len(hosts) > 0) {
		return &usageError{"name hosts, or give --all", fs.use() + " | kortti trust uninstall --all"}
	}
	return changeTrust(ctx, std, fs, control.TrustRequest{Action: control.TrustUninstall, Hosts: hosts, All: *all})
}

func changeTrust(ctx context.Context, std stdio, fs trustFlags, request control.TrustRequest) error {
	request.Print, request.System = *fs.print, *fs.system
	var result control.TrustResult
	err := withAgent(*fs.socket, func(c *control.Client) (err error) {
		result, err = c.ChangeTrust(ctx, request)
		return err
	})
	if err != nil {
		return aboutHost(strings.Join(request.Hosts, ", "), err)
	}
	failed := 0
	for _, c := range result.Changes {
		if c.Change == control.TrustFailed {
			failed++
		}
	}
	switch {
	case *fs.json:
		err = printJSON(std.out, result)
	case request.Print:
		printPlan(std, request.Action, result)
	default:
		printChanges(std, request, result)
	}
	if err == nil && failed > 0 {
		return &control.Error{Code: "trust-failed", Message: fmt.Sprintf("%s could not be changed", number(failed, "trust store"))}
	}
	return err
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// nowhereToInstall is said where an installation has come to nothing at all.
const nowhereToInstall = "Nothing to install: no browser's trust store was found (start the browser once), or no host is listed (see: kortti hosts list)."

// printPlan prints commands for a shell: all else is a comment, so that the
// whole can be kept as a script.
func printPlan(std stdio, action string, result control.TrustResult) {
	for _, command := range result.Commands {
		fmt.Fprintln(std.out, command)
	}
	switch {
	case len(result.Changes) == 0 && action == control.TrustInstall:
		fmt.Fprintln(std.out, "# "+nowhereToInstall)
	case len(result.Commands) == 0:
		fmt.Fprintln(std.out, "# Nothing needs to be done.")
	}
	printRestart(std.out, "# ", "Afterwards", result)
	printFailures(std.err, result)
}

func printChanges(std stdio, request control.TrustRequest, result control.TrustResult) {
	words := map[control.TrustOutcome]string{
		control.TrustInstalled: "now trusts", control.TrustRemoved: "no longer has", control.TrustAlready: "already trusts",
	}
	for i, c := range result.Changes {
		word, first := words[c.Change], !slices.ContainsFunc(result.Changes[:i], func(before control.TrustChange) bool { return like(c, before) })
		if word == "" || !first {
			continue
		}
		var of []string
		for _, other := range result.Changes[i:] {
			if like(c, other) {
				of = append(of, hostAndRoot(other, result.Changes))
			}
		}
		fmt.Fprintf(std.out, "%s %s the local root of %s.\n", placeOf(c), word, strings.Join(of, ", "))
	}
	if len(result.Changes) == 0 {
		if request.Action == control.TrustUninstall {
			fmt.Fprintln(std.out, "No trust store holds such a root: nothing needs to be removed.")
		} else {
			fmt.Fprintln(std.out, nowhereToInstall)
			fmt.Fprintln(std.out, "Programs such as curl take the root from a file: kortti trust print HOST > root.pem")
		}
	}
	printRestart(std.out, "", "Now", result)
	if len(result.Commands) > 0 {
		fmt.Fprintln(std.out, "The system's store belongs to root. Run these commands to change it:")
		for _, command := range result.Commands {
			fmt.Fprintln(std.out, "  "+command)
		}
	}
	printFailures(std.err, result)
}

// like says whether two changes are told together.
func like(a, b control.TrustChange) bool { return a.Store == b.Store && a.Change == b.Change }

// hostAndRoot names a root by its host, and more closely where a change names
// two roots of one host.
func hostAndRoot(c control.TrustChange, all []control.TrustChange) string {
	for _, other := range all {
		if other.Store == c.Store && other.Host == c.Host && other.SHA256 != c.SHA256 {
			return fmt.Sprintf("%s (%.8s)", c.Host, c.SHA256)
		}
	}
	return c.Host
}

// printRestart says which browsers see the change only when they are started
// again. What runs is told by the names of programs, which may miss one.
func printRestart(w io.Writer, prefix, when string, result control.TrustResult) {
	for _, browser := range result.Restart {
		if slices.Contains(result.Running, browser) {
			fmt.Fprintf(w, "%s%s: close %s and start it again. It runs, and goes on with the roots it had until then.\n", prefix, when, browser)
			continue
		}
		fmt.Fprintf(w, "%s%s sees the change when it is started next.\n", prefix, browser)
	}
}

// printFailures tells of each reason once, with the stores that it keeps.
func printFailures(w io.Writer, result control.TrustResult) {
	var told []string
	for _, c := range result.Changes {
		if c.Error == "" || slices.Contains(told, c.Error) {
			continue
		}
		told = append(told, c.Error)
		for _, other := range result.Changes {
			if other.Error == c.Error {
				fmt.Fprintf(w, "Not changed: %s\n", placeOf(other))
			}
		}
		fmt.Fprintf(w, "  because %s.\n", c.Error)
		if c.Hint != "" {
			fmt.Fprintf(w, "  %s\n", c.Hint)
		}
	}
}

func placeOf(c control.TrustChange) string {
	if c.Store == "" {
		return "the local root of " + c.Host
	}
	return c.Owner + " (" + c.Store + ")"
}

func showTrust(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "trust status", "")
	socket := socketFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		status, err := c.TrustStatus(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(std.out, status)
		}
		printTrust(std.out, status)
		return nil
	})
}

// printTrust shows a line for each store and root. The system's store, which is
// for those who ask for it, is shown only where it holds one.
func printTrust(w io.Writer, status control.TrustStatus) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "STORE\tHOST\tROOT\tSTATE")
	rows := 0
	var notes []string
	for _, s := range status.Stores {
		if s.Error != "" {
			rows++
			fmt.Fprintf(tw, "%s\t\t\tcannot be read: %s\n", s.Owner, s.Path)
			if note := fmt.Sprintf("Cannot be read: %s. %s", s.Error, s.Hint); !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
			continue
		}
		for _, r := range s.Roots {
			if s.Kind != "system" || r.State != control.TrustMissing {
				rows++
				fmt.Fprintf(tw, "%s\t%s\t%.8s\t%s\n", s.Owner, r.Host, r.SHA256, stateText(r.State))
			}
		}
		if s.Shadowed {
			notes = append(notes, fmt.Sprintf("%s uses ~/.pki/nssdb, because it is there; %s is for when it is not.", s.Owner, s.Path))
		}
	}
	if rows > 0 {
		tw.Flush()
	} else if len(status.Roots) > 0 {
		fmt.Fprintln(w, "No browser's trust store was found. Start the browser once, then: kortti trust install")
		fmt.Fprintln(w, "Programs on the command line need none: kortti exec -- PROGRAM")
	}
	for _, note := range append(notes, trustAdvice(status)...) {
		fmt.Fprintln(w, note)
	}
}

func stateText(s control.TrustState) string {
	switch s {
	case control.TrustMissing:
		return "not there"
	case control.TrustUntrusted:
		return "there, but not trusted"
	case control.TrustStale:
		return "not in use any more"
	case control.TrustDuplicate:
		return "there more than once"
	}
	return string(s)
}

// trustAdvice says what to do about what the table shows.
func trustAdvice(status control.TrustStatus) (advice []string) {
	var install, leftover []string
	system := ""
	add := func(list *[]string, host string) {
		if !slices.Contains(*list, host) {
			*list = append(*list, host)
		}
	}
	listed := func(host string) bool {
		return slices.ContainsFunc(status.Roots, func(r control.Root) bool { return r.Host == host })
	}
	for _, s := range status.Stores {
		for _, r := range s.Roots {
			switch {
			case r.State == control.TrustStale && !listed(r.Host):
				add(&leftover, r.Host)
			case r.State != control.TrustTrusted && (s.Kind != "system" || r.State != control.TrustMissing):
				add(&install, r.Host)
				if s.Kind == "system" {
					system = " --system"
				}
			}
		}
	}
	for _, r := range status.Roots {
		switch {
		case r.Error != "":
			advice = append(advice, fmt.Sprintf("The local root of %s: %s", r.Host, r.Error))
		case !time.Now().Before(r.RenewAt):
			advice = append(advice, fmt.Sprintf("The local root of %s ends on %s: install a new one.", r.Host, r.NotAfter.Local().Format(time.DateOnly)))
			add(&install, r.Host)
		}
	}
	if len(install) > 0 {
		advice = append(advice, "Install what is missing: kortti trust install "+truststore.Quote(install...)+system)
	}
	if len(leftover) > 0 {
		advice = append(advice, "Remove what is left of hosts that are not listed: kortti trust uninstall "+truststore.Quote(leftover...))
	}
	if len(status.Roots) == 0 && len(leftover) == 0 {
		advice = append(advice, "No host is listed, so there is no root to install. Add one: kortti hosts add HOST")
	}
	if len(install) > 0 && len(status.Stores) == 1 && status.Stores[0].Kind == "system" {
		advice = append(advice, "No browser's trust store was found.")
	}
	return advice
}
