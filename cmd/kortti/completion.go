package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/presets"
)

// completeCommand is what the shells' scripts call; help does not show it.
const completeCommand = "__complete"

// completeTime bounds the question to the agent: a person waits at the keyboard.
const completeTime = time.Second

// What the shell completes by itself: answers in the place of words.
const (
	filesByShell    = ":files"
	commandsByShell = ":commands"
)

//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

//go:embed completion.fish
var fishCompletion string

const completionUsage = "bash | zsh | fish"

// runCompletion prints a script that a shell reads at its start.
func runCompletion(_ context.Context, std stdio, args []string) error {
	shell, args, err := verb(std, "completion", completionUsage, args)
	if err != nil {
		return err
	}
	if _, err := parse(newFlags(std, "completion "+shell, ""), args); err != nil {
		return err
	}
	script := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[shell]
	_, err = fmt.Fprint(std.out, script)
	return err
}

// A word is what may come next on the command line, and what it is.
type word struct{ text, what string }

// runComplete prints the words that may stand in the place of the last of args,
// each with what it is after a tab. It fails in silence: it runs while a person
// types.
func runComplete(ctx context.Context, std stdio, args []string) {
	if len(args) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	last := args[len(args)-1]
	for _, w := range next(ctx, args[:len(args)-1], last) {
		if strings.HasPrefix(w.text, last) || strings.HasPrefix(w.text, ":") {
			fmt.Fprintln(std.out, strings.TrimSuffix(w.text+"\t"+w.what, "\t"))
		}
	}
}

// next are the words that may follow those before; last is the beginning of one.
func next(ctx context.Context, before []string, last string) []word {
	entries := table()
	if len(before) == 0 {
		var words []word
		for _, c := range commands() {
			words = append(words, word{c.name, c.short})
		}
		return append(words, word{"help", "how a command is used"})
	}
	if before[0] == "help" {
		return next(ctx, before[1:], last)
	}
	at := func(path string) *entry {
		i := slices.IndexFunc(entries, func(e entry) bool { return e.path == path })
		if i < 0 {
			return nil
		}
		return &entries[i]
	}
	e, rest := at(before[0]), before[1:]
	if e != nil && len(e.verbs) > 0 {
		if len(rest) == 0 {
			var words []word
			for _, v := range e.verbs {
				words = append(words, word{v, ""})
			}
			return words
		}
		e, rest = at(before[0]+" "+rest[0]), rest[1:]
	}
	if e == nil || e.flags == nil {
		return nil
	}
	return e.next(ctx, rest, last)
}

// next are the words that may follow an entry's flags and arguments.
func (e entry) next(ctx context.Context, before []string, last string) []word {
	given := 0 // arguments
	for i := 0; i < len(before); i++ {
		name, isFlag := strings.CutPrefix(before[i], "-")
		if before[i] == "--" && e.flags.open() {
			given += len(before) - i - 1
			break
		}
		if !isFlag {
			given++
			if e.flags.open() {
				given += len(before) - i - 1
				break
			}
			continue
		}
		name = strings.TrimPrefix(name, "-")
		if f := e.flags.Lookup(name); f != nil && takesValue(f) {
			if i == len(before)-1 {
				value, _ := usageOf(f)
				return values(ctx, value)
			}
			i++
		}
	}
	if strings.HasPrefix(last, "-") && (given == 0 || !e.flags.open()) {
		return e.flagWords()
	}
	args := e.flags.args
	switch {
	case len(args) == 0:
		return nil
	case given < len(args):
		return values(ctx, args[given])
	case e.flags.open(), e.flags.many():
		return values(ctx, args[len(args)-1])
	}
	return nil
}

func takesValue(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return !ok || !b.IsBoolFlag()
}

func (e entry) flagWords() []word {
	var words []word
	for _, f := range e.all() {
		_, text := usageOf(f)
		words = append(words, word{dashes(f), text})
	}
	return append(words, word{"--help", "how this is used"})
}

// values are what may stand for a flag's value or an argument, by its name in
// the help.
func values(ctx context.Context, name string) []word {
	name = strings.Trim(name, "[].")
	if before, after, ok := strings.Cut(name, "|"); ok {
		return []word{{before, ""}, {after, ""}}
	}
	switch name {
	case "FILE", "FOLDER", "MODULE", "SOCKET", "ARG":
		return []word{{filesByShell, ""}}
	case "PROGRAM":
		return []word{{commandsByShell, ""}}
	case "HOST":
		return fromAgent(ctx, func(c *control.Client) ([]word, error) {
			hosts, err := c.Hosts(ctx)
			var words []word
			for _, h := range hosts {
				words = append(words, word{h.Name, ""})
			}
			return words, err
		})
	case "CARD":
		return fromAgent(ctx, func(c *control.Client) ([]word, error) {
			status, err := c.Status(ctx)
			var words []word
			for _, card := range status.Cards {
				words = append(words, word{card.Card, card.Label})
			}
			return words, err
		})
	case "SETTING":
		return []word{{control.SettingIdleLock, ""}, {control.SettingUpstream, ""}}
	case "PAGE":
		return []word{{"kortti", "the commands"}, {"kortti.toml", "the settings"}}
	case "PRESET":
		var words []word
		for _, p := range presets.All() {
			words = append(words, word{p.Name, p.Title})
		}
		return words
	}
	return nil
}

func fromAgent(ctx context.Context, ask func(*control.Client) ([]word, error)) (words []word) {
	err := withAgent("", func(c *control.Client) (err error) {
		words, err = ask(c)
		return err
	})
	if err != nil {
		return nil
	}
	return words
}
