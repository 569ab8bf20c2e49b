package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

const (
	// auditMax is the most that the agent gives at once.
	auditMax = 10_000
	// followTime is how often --follow looks for new records, followMax how many
	// it sees at once.
	followTime = time.Second
	followMax  = 500
)

// auditView is what of the audit a person wants to see.
type auditView struct {
	host, decision string
	since          time.Time
	limit          int
	follow, json   bool
}

func runAudit(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "audit", "")
	socket := socketFlag(fs)
	var v auditView
	fs.BoolVar(&v.json, "json", false, "machine-readable output; with --follow one record on each line")
	fs.IntVar(&v.limit, "n", 50, "how many of the newest `RECORDS`")
	fs.StringVar(&v.host, "host", "", "only what is about this `HOST`")
	fs.StringVar(&v.decision, "decision", "", "only this `DECISION`, such as consent or signature")
	since := fs.String("since", "", "only what is newer: a `TIME` such as 2h, 2026-11-24 or 2026-11-24T09:00")
	fs.BoolVar(&v.follow, "follow", false, "then wait and show what comes, until Ctrl-C")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	if v.limit < 1 {
		return &usageError{"-n must be 1 or more", fs.use()}
	}
	var err error
	if v.since, err = parseSince(*since, time.Now()); err != nil {
		return err
	}
	return withAgent(*socket, func(c *control.Client) error {
		ask := v.limit
		if v.filters() {
			ask = auditMax
		}
		records, err := v.records(ctx, c, ask)
		if err != nil {
			return err
		}
		if v.follow {
			return v.keepUp(ctx, c, std.out, records)
		}
		if v.json {
			return printJSON(std.out, records)
		}
		if len(records) == 0 {
			fmt.Fprintln(std.out, map[bool]string{false: "Nothing has been decided yet.", true: "Nothing that was decided fits."}[v.filters()])
			return nil
		}
		tw := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, strings.Join(auditHead, "\t"))
		for _, r := range records {
			fmt.Fprintln(tw, strings.Join(auditRow(r), "\t"))
		}
		return tw.Flush()
	})
}

var auditHead = []string{"TIME", "DECISION", "HOST", "PROGRAM", "CERTIFICATE", "REASON"}

func auditRow(r control.AuditRecord) []string {
	return []string{r.Time.Local().Format(time.DateTime), r.Decision, r.Host, r.Program, short(r.Certificate), r.Reason}
}

// parseSince reads a time of day, a day, or how long ago.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, wrongUse("--since %q is no time: say 2h, 2026-11-24 or 2026-11-24T09:00", text)
}

func (v auditView) filters() bool { return v.host != "" || v.decision != "" || !v.since.IsZero() }

// records are those of the newest that the person wants to see, the oldest first.
func (v auditView) records(ctx context.Context, c *control.Client, newest int) ([]control.AuditRecord, error) {
	all, err := c.Audit(ctx, min(newest, auditMax))
	if err != nil {
		return nil, err
	}
	records := []control.AuditRecord{}
	for _, r := range all {
		if v.wants(r) {
			records = append(records, r)
		}
	}
	return records[max(0, len(records)-v.limit):], nil
}

func (v auditView) wants(r control.AuditRecord) bool {
	return (v.host == "" || strings.EqualFold(r.Host, v.host)) &&
		(v.decision == "" || r.Decision == v.decision) && r.Time.After(v.since)
}

// keepUp shows records and then those that come. A new one is told by its time,
// which the agent writes in order.
func (v auditView) keepUp(ctx context.Context, c *control.Client, out io.Writer, records []control.AuditRecord) error {
	v.limit = followMax
	tick := time.NewTicker(followTime)
	defer tick.Stop()
	for {
		for _, r := range records {
			if err := v.line(out, r); err != nil {
				return err
			}
			v.since = r.Time
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var err error
		if records, err = v.records(ctx, c, followMax); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (v auditView) line(out io.Writer, r control.AuditRecord) error {
	if v.json {
		return json.NewEncoder(out).Encode(r)
	}
	_, err := fmt.Fprintln(out, strings.Join(auditRow(r), "  "))
	return err
}
