// Package openscconf reads, changes and writes OpenSC's configuration, the
// scconf format of opensc.conf(5), as OpenSC 0.23 to 0.27 understand it.
//
// It takes and refuses what OpenSC's own reader takes and refuses, oddities
// included, because what it is for is to keep a system's settings just as they
// take effect. It keeps no comments, and it never touches a file.
//
// A file has blocks "app NAME". For a program OpenSC uses up to three of them:
// the first with the program's path as its name (since 0.24), the first with
// the application's name ("opensc-pkcs11" in the PKCS#11 module), and the first
// named "default". A block in them, such as "framework pkcs15", counts once: the
// first one in that order hides all others, whatever options they have.
package openscconf

import (
	"fmt"
	"slices"
	"strings"
)

// File is a configuration. The zero File is an empty one. It is not safe for
// concurrent use.
type File struct {
	root block
}

// Place is a block within an app block, as "framework" and "pkcs15"; the zero
// Place is the app block itself. An empty Label stands for any.
type Place struct{ Block, Label string }

// String is the place as it is written in the file.
func (p Place) String() string { return strings.TrimSpace(p.Block + " " + p.Label) }

// Setting is one option with its values in the order of the file.
type Setting struct {
	App   string // the app block's name; "" outside of all
	Place Place
	Key   string
	// Values are as written, without quotes.
	Values []string
	// Hidden says that OpenSC never looks there: it is outside of all app blocks,
	// or another block of the same name counts instead.
	Hidden bool
}

// block is a block, or the file itself. Keys are compared without regard to
// case.
type block struct {
	labels []string
	items  []*item
}

// item is an option with its values, or a block.
type item struct {
	key    string
	values []string
	block  *block
}

// value returns the option with this key, or nil.
func (b *block) value(key string) *item {
	for _, i := range b.items {
		if i.block == nil && strings.EqualFold(i.key, key) {
			return i
		}
	}
	return nil
}

// child returns the first block with this key and first label; an empty label
// stands for any.
func (b *block) child(key, label string) *block {
	for _, i := range b.items {
		if i.block != nil && strings.EqualFold(i.key, key) && (label == "" || strings.EqualFold(i.block.labels[0], label)) {
			return i.block
		}
	}
	return nil
}

// place returns the block at p within b, or nil.
func (b *block) place(p Place) *block {
	if p == (Place{}) {
		return b
	}
	return b.child(p.Block, p.Label)
}

// Settings lists the options outside of all app blocks, and in the app blocks
// with these names, which are in OpenSC's order and end with "default", down to
// the blocks within them.
func (f *File) Settings(apps ...string) []Setting {
	isApp := func(i *item) bool { return strings.EqualFold(i.key, "app") }
	never := func(*block, Place) bool { return true }
	all := f.root.settings("", true, func(i *item) bool { return !isApp(i) }, never)
	for _, app := range apps {
		for _, i := range f.root.items {
			if i.block == nil || !isApp(i) || !strings.EqualFold(i.block.labels[0], app) {
				continue
			}
			all = append(all, i.block.settings(app, i.block != f.root.child("app", app), func(*item) bool { return true },
				func(b *block, p Place) bool { return b != f.effective(p, apps) })...)
		}
	}
	return all
}

// settings lists the options in b, and in those of its blocks that are wanted;
// hidden says whether a block does not count.
func (b *block) settings(app string, hides bool, wanted func(*item) bool, hidden func(*block, Place) bool) []Setting {
	all := b.options(app, Place{}, hides)
	for _, i := range b.items {
		if i.block != nil && wanted(i) {
			p := Place{Block: i.key, Label: i.block.labels[0]}
			all = append(all, i.block.options(app, p, hidden(i.block, p))...)
		}
	}
	return all
}

// options lists the options in b itself.
func (b *block) options(app string, p Place, hidden bool) []Setting {
	var all []Setting
	for _, i := range b.items {
		if i.block == nil && len(i.values) > 0 {
			all = append(all, Setting{App: app, Place: p, Key: i.key, Values: slices.Clone(i.values), Hidden: hidden})
		}
	}
	return all
}

// effective returns the block at p that counts, or nil.
func (f *File) effective(p Place, apps []string) *block {
	for _, app := range apps {
		if a := f.root.child("app", app); a != nil {
			if b := a.place(p); b != nil {
				return b
			}
		}
	}
	return nil
}

// Effective returns the values that an option in the block at p has for the
// application blocks with these names; nil if it has none.
func (f *File) Effective(p Place, key string, apps ...string) []string {
	b := f.effective(p, apps)
	if b == nil {
		return nil
	}
	if i := b.value(key); i != nil {
		return slices.Clone(i.values)
	}
	return nil
}

// Set gives an option at p one value, for whichever of the app blocks OpenSC
// comes to use: in every such block at p that is there. It makes a new block in
// "app default" only, where it hides no other.
func (f *File) Set(p Place, key, value string, apps ...string) error {
	if err := writable(key, value); err != nil {
		return err
	}
	for _, app := range apps {
		if a := f.root.child("app", app); a != nil {
			if b := a.place(p); b != nil {
				b.option(key).values = []string{value}
			}
		}
	}
	f.inDefault(p).option(key).values = []string{value}
	return nil
}

// Add adds a value to a list at p in "app default". It suits the lists that
// OpenSC collects from all app blocks, as ignored_readers.
func (f *File) Add(p Place, key, value string) error {
	if err := writable(key, value); err != nil {
		return err
	}
	i := f.inDefault(p).option(key)
	if !slices.Contains(i.values, value) {
		i.values = append(i.values, value)
	}
	return nil
}

// writable refuses what the format cannot express: it has no escapes.
func writable(texts ...string) error {
	for _, s := range texts {
		if strings.ContainsAny(s, "\"\r\n\x00") {
			return fmt.Errorf("write %q into OpenSC's configuration: it has no way to quote that", s)
		}
	}
	return nil
}

// inDefault returns the block at p in "app default" and makes what is missing.
func (f *File) inDefault(p Place) *block {
	app := f.root.make("app", "default")
	if p == (Place{}) {
		return app
	}
	return app.make(p.Block, p.Label)
}

func (b *block) make(key, label string) *block {
	if c := b.child(key, label); c != nil {
		return c
	}
	c := &block{labels: []string{label}}
	b.items = append(b.items, &item{key: key, block: c})
	return c
}

func (b *block) option(key string) *item {
	if i := b.value(key); i != nil {
		return i
	}
	i := &item{key: key}
	b.items = append(b.items, i)
	return i
}

// Write returns the configuration as text, without comments.
func (f *File) Write() []byte {
	var text strings.Builder
	f.root.write(&text, "")
	return []byte(text.String())
}

func (b *block) write(text *strings.Builder, indent string) {
	for _, i := range b.items {
		if i.block == nil {
			i.write(text, indent)
			continue
		}
		fmt.Fprintf(text, "%s%s %s {\n", indent, quote(i.key), quote(i.block.labels...))
		i.block.write(text, indent+"\t")
		fmt.Fprintf(text, "%s}\n", indent)
	}
}

// write writes a statement for each value: OpenSC adds them up, and refuses the
// commas of a list in the deepest blocks.
func (i *item) write(text *strings.Builder, indent string) {
	if len(i.values) == 0 {
		fmt.Fprintf(text, "%s%s = ;\n", indent, quote(i.key))
	}
	for _, value := range i.values {
		fmt.Fprintf(text, "%s%s = %s;\n", indent, quote(i.key), quote(value))
	}
}

// quote writes words as a list that is read as the same words again. One with a
// quotation mark inside was read without quotes, and one that ends with a line's
// end was read from a string that nobody closed.
func quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		switch {
		case strings.Contains(w, `"`):
			quoted[i] = w
		case strings.HasSuffix(w, "\n"), strings.HasSuffix(w, "\r"):
			quoted[i] = `"` + w
		default:
			quoted[i] = `"` + w + `"`
		}
	}
	return strings.Join(quoted, ", ")
}
