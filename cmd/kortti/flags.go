package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// usageError is a wrong use of the command line; use is the right one, "" for
// that of the whole command.
type usageError struct{ text, use string }

func (e *usageError) Error() string { return e.text }

func wrongUse(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// flagSet is a command's flags and the names of the arguments that it takes,
// those that may be left out in brackets: "HOST", "[CARD]". The last may come
// again where it ends in "...": "[HOST]...". Where it ends in "...]" it stands
// for all that follows, flags of another program included.
type flagSet struct {
	*flag.FlagSet
	args []string
	std  stdio // for help
}

func newFlags(std stdio, name, args string) *flagSet {
	fs := &flagSet{flag.NewFlagSet(name, flag.ContinueOnError), strings.Fields(args), std}
	fs.SetOutput(io.Discard) // what package flag says of mistakes is in its error too
	return fs
}

// open tells that the arguments end with those of another program.
func (fs *flagSet) open() bool {
	return len(fs.args) > 0 && strings.HasSuffix(fs.args[len(fs.args)-1], "...]")
}

// many tells that the last argument may come again.
func (fs *flagSet) many() bool {
	return len(fs.args) > 0 && strings.HasSuffix(fs.args[len(fs.args)-1], "...")
}

// use is the command with its arguments.
func (fs *flagSet) use() string {
	if fs.open() {
		return fs.Name() + " -- " + strings.Join(fs.args, " ")
	}
	return strings.Join(append([]string{fs.Name()}, fs.args...), " ")
}

// withFlags is use with the place of the flags: before those of another program.
func (fs *flagSet) withFlags() string {
	if fs.open() {
		return fs.Name() + " [flags] -- " + strings.Join(fs.args, " ")
	}
	return fs.use() + " [flags]"
}

// repeats tells that the last argument may be given more than once: "[HOST]...".
func (fs *flagSet) repeats() bool {
	return len(fs.args) > 0 && strings.HasSuffix(fs.args[len(fs.args)-1], "]...")
}

// print shows the flags with two dashes, as they are written everywhere else.
func (fs *flagSet) print() {
	if fs.std.describe != nil {
		fs.std.describe(description{flags: fs})
		return
	}
	fmt.Fprintf(fs.std.out, "Use: kortti %s\n", fs.withFlags())
	tw := tabwriter.NewWriter(fs.std.out, 0, 0, 2, ' ', 0)
	fs.VisitAll(func(f *flag.Flag) {
		value, text := usageOf(f)
		fmt.Fprintf(tw, "  %s\t%s\n", strings.TrimSpace(dashes(f)+" "+value), text)
	})
	tw.Flush()
}

// usageOf is the name of a flag's value, "" where it takes none, and its text.
func usageOf(f *flag.Flag) (value, text string) {
	value, text = flag.UnquoteUsage(f)
	if f.DefValue != "" && f.DefValue != "false" {
		text += fmt.Sprintf(" (default: %s)", f.DefValue)
	}
	return value, text
}

// dashes is a flag as it is written: a letter alone with one dash.
func dashes(f *flag.Flag) string {
	if len(f.Name) == 1 {
		return "-" + f.Name
	}
	return "--" + f.Name
}

// parse lets flags stand before and after the other arguments and checks that
// all of those are given that must be, and none more.
func parse(fs *flagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fs.print()
				return nil, err
			}
			return nil, &usageError{err.Error(), fs.withFlags() + " (--help lists them)"}
		}
		if fs.open() {
			rest = fs.Args()
			break
		}
		if fs.NArg() == 0 {
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	if len(rest) > len(fs.args) && !fs.open() && !fs.repeats() {
		return nil, &usageError{fmt.Sprintf("%q is one argument too many", rest[len(fs.args)]), fs.use()}
	}
	for i, name := range fs.args {
		if !strings.HasPrefix(name, "[") && (i >= len(rest) || rest[i] == "") {
			return nil, &usageError{name + " is missing", fs.use()}
		}
	}
	return rest, nil
}

// verb takes the first of args as one of a command's verbs, which usage lists as
// in "list | add HOST". Asked for help, it shows what each verb takes.
func verb(std stdio, name, usage string, args []string) (string, []string, error) {
	uses := strings.Split(usage, " | ")
	if len(args) > 0 && isHelp(args[0]) {
		if std.describe != nil {
			std.describe(description{uses: uses})
			return "", nil, flag.ErrHelp
		}
		for _, use := range uses {
			fmt.Fprintf(std.out, "Use: kortti %s %s\n", name, use)
		}
		fmt.Fprintf(std.out, "The flags of each: kortti %s %s --help\n", name, strings.Fields(uses[0])[0])
		return "", nil, flag.ErrHelp
	}
	var verbs []string
	for _, use := range uses {
		v, _, _ := strings.Cut(use, " ")
		if len(args) > 0 && args[0] == v {
			return v, args[1:], nil
		}
		verbs = append(verbs, v)
	}
	all := strings.Join(verbs, ", ")
	if len(args) == 0 {
		return "", nil, wrongUse("say what to do: %s", all)
	}
	return "", nil, wrongUse("%q is none of: %s", args[0], all)
}
