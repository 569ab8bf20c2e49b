package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The commands that README and the guides show exist, with their flags.
func TestDocumentsShowCommandsThatExist(t *testing.T) {
	entries := table()
	guides, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(guides) == 0 {
		t.Fatal(guides, err)
	}
	shown := regexp.MustCompile("(?m)(?:^|`|[(|&;] |bin/)kortti ([a-z]+[^`#|\n]*)")
	flags := regexp.MustCompile(`(^| )(--?[a-z][a-z-]*)`)
	count := 0
	for _, file := range append(guides, "../../README.md") {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range shown.FindAllStringSubmatch(string(raw), -1) {
			line, _, _ := strings.Cut(m[1], " -- ")
			words := strings.Fields(line)
			if words[0] == "help" {
				continue
			}
			e := find(entries, words)
			if e == nil {
				t.Errorf("%s shows kortti %s, which does not exist", file, line)
				continue
			}
			count++
			for _, f := range flags.FindAllStringSubmatch(line, -1) {
				if e.flags != nil && e.flags.Lookup(strings.TrimLeft(f[2], "-")) == nil && f[2] != "--help" {
					t.Errorf("%s shows kortti %s: there is no flag %s", file, line, f[2])
				}
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d commands were found in the documents", count)
	}
}

// find is the entry of a command line: its verb's where the line has one.
func find(entries []entry, words []string) *entry {
	path := words[0]
	if len(words) > 1 && slices.ContainsFunc(entries, func(e entry) bool { return e.path == path+" "+words[1] }) {
		path += " " + words[1]
	}
	i := slices.IndexFunc(entries, func(e entry) bool { return e.path == path })
	if i < 0 {
		return nil
	}
	return &entries[i]
}
