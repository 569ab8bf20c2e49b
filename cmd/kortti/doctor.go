package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/doctor"
)

// runDoctor says what keeps cards from working. It ends with exitFailed where
// something does.
func runDoctor(ctx context.Context, std stdio, args []string) error {
	l := newLooker(std, "doctor")
	asJSON := jsonFlag(l.flags)
	if _, err := parse(l.flags, args); err != nil {
		return err
	}
	findings, err := l.examine(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		err = printJSON(std.out, control.Doctor{Findings: findings})
	} else {
		err = printFindings(std.out, findings)
	}
	if err != nil {
		return err
	}
	count := 0
	for _, f := range findings {
		if f.Severity == control.SeverityError {
			count++
		}
	}
	switch count {
	case 0:
		return nil
	case 1:
		return &control.Error{Code: "findings", Message: "1 thing is wrong"}
	}
	return &control.Error{Code: "findings", Message: fmt.Sprintf("%d things are wrong", count)}
}

// examine asks a running agent for its findings, or looks by itself. It works
// with a mistake in the configuration too, and tells of that.
func (l *looker) examine(ctx context.Context) ([]control.Finding, error) {
	if *l.module == "" {
		var answer control.Doctor
		stop := l.progress()
		err := withAgent(*l.socket, func(c *control.Client) (err error) {
			answer, err = c.Doctor(ctx)
			return err
		})
		stop()
		if !noAgent(err) {
			return answer.Findings, err
		}
	}
	var findings []control.Finding
	listen := config.DefaultListen
	if cfg, err := config.Load(""); err == nil {
		listen = cfg.Proxy.Listen
		if _, err := control.DefaultSocket(); cfg.Control.Socket == "" && err != nil {
			findings = append(findings, control.Finding{
				Code: "no-socket", Severity: control.SeverityError, Title: "The agent has no place for its control socket",
				Detail: "XDG_RUNTIME_DIR is not set, as it is in a session that a login has opened.", Fix: "Set it, or [control] socket in kortti.toml.",
			})
		}
	} else if *l.module == "" {
		findings = append(findings, control.Finding{
			Code: "config", Severity: control.SeverityError, Title: "The configuration cannot be used, and the agent does not start with it",
			Detail: err.Error(), Fix: "Correct the file; docs/kortti.toml has all settings.",
		})
	}
	modules, err := l.modules()
	if err != nil {
		modules = []string{"auto"}
	}
	snapshot, err := l.look(ctx, modules)
	if err != nil && (ctx.Err() != nil || snapshot.Modules == nil) {
		return nil, err
	}
	return append(findings, doctor.Examine(doctor.Gather(snapshot, listen, false))...), nil
}

// printFindings shows the gravest findings first.
func printFindings(w io.Writer, findings []control.Finding) error {
	order := []control.Severity{control.SeverityError, control.SeverityWarning, control.SeverityNote, control.SeverityOK}
	sorted := slices.Clone(findings)
	slices.SortStableFunc(sorted, func(a, b control.Finding) int {
		return slices.Index(order, a.Severity) - slices.Index(order, b.Severity)
	})
	for _, f := range sorted {
		fmt.Fprintf(w, "%-8s %s\n", f.Severity, f.Title)
		if f.Detail != "" {
			fmt.Fprintf(w, "         %s\n", f.Detail)
		}
		if f.Fix != "" {
			fmt.Fprintf(w, "         What to do: %s\n", f.Fix)
		}
	}
	if len(sorted) > 0 && slices.Contains(order[2:], sorted[0].Severity) {
		_, err := fmt.Fprintln(w, "Nothing is wrong.")
		return err
	}
	return nil
}
