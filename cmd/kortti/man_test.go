package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/docs"
)

// Help, manual and completion come from the commands; the manual's own texts
// must be about commands that are there, and each verb must have one.
func TestManualKnowsTheCommands(t *testing.T) {
	entries := table()
	paths := map[string]bool{"": true}
	for _, e := range entries {
		paths[e.path] = true
		if e.flags == nil && len(e.verbs) == 0 {
			t.Errorf("kortti %s does not say how it is used", e.path)
		}
		if strings.Contains(e.path, " ") && manual[e.path] == "" {
			t.Errorf("manual.go has no text for kortti %s", e.path)
		}
		if e.flags != nil && e.flags.Name() != e.path {
			t.Errorf("the help of kortti %s is for %s", e.path, e.flags.Name())
		}
	}
	for path := range manual {
		if !paths[path] {
			t.Errorf("manual.go describes kortti %s, which does not exist", path)
		}
	}
	page := commandPage(entries)
	for _, e := range entries {
		if len(e.verbs) == 0 && !strings.Contains(page, escape("kortti "+e.flags.withFlags())) {
			t.Errorf("the page lacks kortti %s", e.path)
		}
	}
}

// What troff does not understand it prints as it stands, or leaves out.
func TestManualPagesAreRoff(t *testing.T) {
	known := regexp.MustCompile(`^\.(TH|SH|SS|TP|B|PP)( "[^"]*")*$`)
	for name, page := range map[string]string{"kortti.1": commandPage(table()), "kortti.toml.5": settingsPage(docs.Settings)} {
		for line := range strings.Lines(page) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !known.MatchString(line) {
				t.Errorf("%s: %q", name, line)
			}
		}
		groff, err := exec.LookPath("groff")
		if err != nil {
			t.Logf("groff is not installed: only the lines of %s were looked at", name)
			continue
		}
		cmd := exec.Command(groff, "-man", "-ww", "-Tutf8")
		cmd.Stdin = strings.NewReader(page)
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil || said.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, said.String())
		}
	}
}

func TestSettingsPage(t *testing.T) {
	page := settingsPage("# About.\n\n[card]\n# What it is.\nmodules = [\"auto\"]\n\n# One table each.\n#[[host]]\n# A name\n# for it.\n#name = \"a.example.fi\"\n")
	want := `.TH "KORTTI.TOML" "5" "" "kortti devel" "Kortti"
.SH "NAME"
kortti.toml \- settings of the kortti agent
.SH "DESCRIPTION"
About.
.PP
.SS "[card]"
.TP
.B "modules = [\(dqauto\(dq]"
What it is.
.SS "[[host]]"
One table each.
.TP
.B "name = \(dqa.example.fi\(dq"
A name
for it.
.SH "SEE ALSO"
kortti(1)
`
	if page != want {
		t.Errorf("got\n%s", page)
	}
}
