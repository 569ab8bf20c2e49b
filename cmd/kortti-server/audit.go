package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/server"
	"github.com/kortti-id/kortti/server/audit"
	"github.com/kortti-id/kortti/server/door"
)

// auditOptions are those of the audit commands.
type auditOptions struct {
	file, dir     string
	json          bool
	checkpoints   []string
	before, since time.Time
	user          int64
	certificate   string
	code, ref     string
}

// runAudit reads the audit log beside a running server or without.
func runAudit(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage("say what to do with the audit log: show, verify, checkpoint or prune")
	}
	command := args[0]
	var o auditOptions
	flags := flag.NewFlagSet("kortti-server audit "+command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.file, "config", "kortti-server.toml", "")
	flags.StringVar(&o.dir, "dir", "", "")
	moment := func(to *time.Time) func(string) error {
		return func(text string) (err error) {
			*to, err = parseTime(text)
			return err
		}
	}
	var run func(auditOptions, io.Writer) error
	switch command {
	case "show":
		run = showAudit
		flags.BoolVar(&o.json, "json", false, "")
		flags.Func("since", "", moment(&o.since))
		flags.Int64Var(&o.user, "user", 0, "")
		flags.StringVar(&o.certificate, "certificate", "", "")
		flags.StringVar(&o.code, "code", "", "")
		flags.StringVar(&o.ref, "ref", "", "")
	case "verify":
		run = verifyAudit
		flags.BoolVar(&o.json, "json", false, "")
		flags.Func("checkpoint", "", func(file string) error { o.checkpoints = append(o.checkpoints, file); return nil })
	case "checkpoint":
		run = checkpointAudit
	case "prune":
		run = pruneAudit
		flags.Func("before", "", moment(&o.before))
	default:
		return errUsage(fmt.Sprintf("audit %s is not understood", command))
	}
	rest, err := parseAll(flags, args[1:])
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errUsage(fmt.Sprintf("audit %s takes no %q", command, rest[0]))
	}
	if o.dir == "" {
		config, err := server.Load(o.file)
		if err != nil {
			return err
		}
		if o.dir = config.Audit.Dir; o.dir == "" {
			return fmt.Errorf("%s keeps no audit log: set [audit] dir", o.file)
		}
	}
	return run(o, out)
}

// showAudit lists decisions, the oldest first.
func showAudit(o auditOptions, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !o.json {
		fmt.Fprintln(table, "TIME\tEVENT\tCODE\tUSER\tADDRESS\tCERTIFICATE\tREF")
	}
	encoder := json.NewEncoder(out)
	shown := 0
	err := audit.Read(o.dir, func(e audit.Entry) error {
		var r door.Record
		if err := json.Unmarshal(e.Record, &r); err != nil {
			return fmt.Errorf("line %d of the audit log: %w", e.Seq, err)
		}
		if !o.fits(r) {
			return nil
		}
		shown++
		if o.json {
			return encoder.Encode(e)
		}
		user := ""
		if r.User != 0 {
			user = fmt.Sprint(r.User)
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.12s\t%s\n", r.Time.Local().Format(time.DateTime), r.Event, r.Code, user, r.Address, r.Certificate, r.Ref)
		return err
	})
	if err != nil || o.json {
		return err
	}
	if shown == 0 {
		_, err := fmt.Fprintln(out, "No decision fits.")
		return err
	}
	return table.Flush()
}

func (o auditOptions) fits(r door.Record) bool {
	plain := func(ref string) string { return strings.ToUpper(strings.ReplaceAll(ref, "-", "")) } // as people say it
	return (o.user == 0 || r.User == o.user) && (o.code == "" || r.Code == o.code) && !r.Time.Before(o.since) &&
		strings.HasPrefix(r.Certificate, strings.ToLower(o.certificate)) && (o.ref == "" || plain(r.Ref) == plain(o.ref))
}

func verifyAudit(o auditOptions, out io.Writer) error {
	var checkpoints []audit.Checkpoint
	for _, file := range o.checkpoints {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read the checkpoints: %w", err)
		}
		list, err := audit.ParseCheckpoints(content)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		checkpoints = append(checkpoints, list...)
	}
	r, err := audit.Verify(o.dir, checkpoints)
	if err != nil {
		return err
	}
	if o.json {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(r)
	} else {
		err = printAudit(r, len(checkpoints), out)
	}
	if r.Problem != nil {
		return errors.Join(err, fmt.Errorf("the chain is broken: %s", r.Problem))
	}
	return err
}

func printAudit(r audit.Result, checkpoints int, out io.Writer) error {
	fmt.Fprintf(out, "instance %s: %d decisions in %d segments, lines %d to %d\n", r.Instance, r.Records, r.Segments, r.First, r.Last.Seq)
	if r.First > 1 {
		fmt.Fprintf(out, "lines before %d have been removed with their segments\n", r.First)
	}
	if r.Torn > 0 {
		fmt.Fprintf(out, "%d lines were cut by crashes and put on record\n", r.Torn)
	}
	if r.Problem != nil {
		return nil // the last word is the error
	}
	if checkpoints == 0 {
		_, err := fmt.Fprintln(out, "the chain fits together; without a checkpoint kept elsewhere that says little: see kortti-server audit checkpoint")
		return err
	}
	_, err := fmt.Fprintf(out, "the chain fits together and agrees with %d of %d checkpoints (%d are older than the first line)\n", r.Checked, checkpoints, r.Pruned)
	return err
}

// checkpointAudit prints the end of a chain that fits together, to be kept
// elsewhere.
func checkpointAudit(o auditOptions, out io.Writer) error {
	r, err := audit.Verify(o.dir, nil)
	if err != nil {
		return err
	}
	if r.Problem != nil {
		return fmt.Errorf("the chain is broken: %s", r.Problem)
	}
	return json.NewEncoder(out).Encode(r.Last)
}

func pruneAudit(o auditOptions, out io.Writer) error {
	if o.before.IsZero() {
		return errUsage("audit prune needs --before DATE")
	}
	removed, err := audit.Prune(o.dir, o.before)
	for _, name := range removed {
		fmt.Fprintln(out, "removed", name)
	}
	if err == nil && len(removed) == 0 {
		fmt.Fprintln(out, "No segment had ended before that.")
	}
	return err
}
