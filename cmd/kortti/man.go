package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"unicode"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/docs"
)

// runMan shows a manual page on a terminal, and prints its source elsewhere.
func runMan(ctx context.Context, std stdio, args []string) error {
	rest, err := parse(newFlags(std, "man", "[PAGE]"), args)
	if err != nil {
		return err
	}
	page := ""
	switch strings.Join(rest, "") {
	case "", "kortti":
		page = commandPage(table())
	case "kortti.toml":
		page = settingsPage(docs.Settings)
	default:
		return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("there is no manual page %q", rest[0]), Hint: "There are kortti and kortti.toml."}
	}
	viewer, err := exec.LookPath("man")
	if err != nil || !isTerminal(std.out) {
		_, err := fmt.Fprint(std.out, page)
		return err
	}
	show := exec.CommandContext(ctx, viewer, "-l", "-")
	show.Stdin, show.Stdout, show.Stderr = strings.NewReader(page), std.out, std.err
	return show.Run()
}

// roff writes a page in the man macros (groff_man(7)).
type roff struct{ strings.Builder }

func newPage(name, section, what string) *roff {
	p := &roff{}
	p.macro("TH", name, section, "", "kortti "+version, "Kortti")
	p.macro("SH", "NAME")
	p.text(strings.ToLower(name) + " - " + what)
	return p
}

// macro writes a request with its arguments.
func (p *roff) macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, a := range args {
		p.WriteString(` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`)
	}
	p.WriteString("\n")
}

// text writes lines that are filled to the width of the page.
func (p *roff) text(lines string) {
	if lines == "" {
		return // an empty line would be shown as one
	}
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		p.WriteString(escape(strings.TrimSpace(line)) + "\n")
	}
}

// item writes a term and what it means.
func (p *roff) item(term, text string) {
	p.macro("TP")
	p.macro("B", term)
	p.text(text)
}

// escape keeps roff from reading text as its own; it takes ASCII only.
func escape(s string) string {
	var b strings.Builder
	if strings.HasPrefix(s, ".") {
		b.WriteString(`\&`)
	}
	for _, r := range s {
		switch {
		case escapes[r] != "":
			b.WriteString(escapes[r])
		case r > unicode.MaxASCII:
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

var escapes = map[rune]string{'\\': `\e`, '-': `\-`, '\'': `\(aq`, '`': `\(ga`, '^': `\(ha`, '~': `\(ti`}

// commandPage is kortti(1), made of the command table and the texts of the manual.
func commandPage(entries []entry) string {
	p := newPage("KORTTI", "1", "log in to web services with a smart card")
	p.macro("SH", "SYNOPSIS")
	p.macro("B", "kortti")
	p.text("COMMAND [flags] [arguments]")
	p.macro("SH", "DESCRIPTION")
	p.text(manual[""])
	p.macro("SH", "COMMANDS")
	for _, e := range entries {
		if len(e.verbs) > 0 {
			continue
		}
		p.macro("SS", "kortti "+e.flags.withFlags())
		text := manual[e.path]
		if text == "" {
			text = e.short + "."
		}
		p.text(strings.ToUpper(text[:1]) + text[1:])
		for _, f := range e.all() {
			value, text := usageOf(f)
			p.item(strings.TrimSpace(dashes(f)+" "+value), text)
		}
	}
	p.macro("SH", "EXIT STATUS")
	for _, c := range exitCodes {
		p.item(fmt.Sprint(c.code), c.what)
	}
	p.macro("SH", "FILES")
	for _, f := range manualFiles {
		p.item(f[0], f[1])
	}
	p.macro("SH", "SEE ALSO")
	p.text("kortti.toml(5), curl(1), certutil(1)")
	return p.String()
}

var (
	settingsTable = regexp.MustCompile(`^#?(\[\[?[a-z]+\]\]?)$`)
	settingsKey   = regexp.MustCompile(`^#?([a-z_]+ = .*)$`)
)

// settingsPage is kortti.toml(5), made of the sample with all settings: each
// table and key stands after the comment that describes it.
func settingsPage(sample string) string {
	p := newPage("KORTTI.TOML", "5", "settings of the kortti agent")
	p.macro("SH", "DESCRIPTION")
	var said []string
	flush := func() string {
		text := strings.Join(said, "\n")
		said = nil
		return text
	}
	for line := range strings.SplitSeq(sample, "\n") {
		switch {
		case settingsTable.MatchString(line):
			p.macro("SS", settingsTable.FindStringSubmatch(line)[1])
			p.text(flush())
		case settingsKey.MatchString(line):
			p.item(settingsKey.FindStringSubmatch(line)[1], flush())
		case strings.HasPrefix(line, "#"):
			said = append(said, strings.TrimPrefix(line, "#"))
		case len(said) > 0:
			p.text(flush())
			p.macro("PP")
		}
	}
	p.macro("SH", "SEE ALSO")
	p.text("kortti(1)")
	return p.String()
}
