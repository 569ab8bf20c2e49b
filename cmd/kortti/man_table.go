package main

import (
	"context"
	"flag"
	"io"
	"slices"
	"strings"
)

// description is what a command says of itself when asked for help: its flags
// and arguments, or the verbs that it takes.
type description struct {
	flags *flagSet
	uses  []string
}

// entry is a command, or a command and a verb, as the command line knows it.
// Help, shell completion and manual page are all made of these.
type entry struct {
	path  string // "status", "hosts add"
	short string // of the command
	flags *flagSet
	verbs []string // where the command takes one; flags are its verbs' then
}

// table asks each command for its help and returns them all, each followed by
// its verbs.
func table() []entry {
	var all []entry
	for _, c := range commands() {
		e := describeOne(c, nil)
		all = append(all, e)
		for _, v := range e.verbs {
			all = append(all, describeOne(c, []string{v}))
		}
	}
	return all
}

// describeOne runs a command with --help, which does nothing else.
func describeOne(c command, verb []string) entry {
	e := entry{path: strings.Join(append([]string{c.name}, verb...), " "), short: c.short}
	std := stdio{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	std.describe = func(d description) {
		e.flags = d.flags
		for _, use := range d.uses {
			if v, _, _ := strings.Cut(use, " "); !slices.Contains(e.verbs, v) {
				e.verbs = append(e.verbs, v)
			}
		}
	}
	_ = c.run(context.Background(), std, append(verb, "--help")) // flag.ErrHelp
	return e
}

// all are the flags in order of their names.
func (e entry) all() []*flag.Flag {
	var flags []*flag.Flag
	if e.flags != nil {
		e.flags.VisitAll(func(f *flag.Flag) { flags = append(flags, f) })
	}
	return flags
}
