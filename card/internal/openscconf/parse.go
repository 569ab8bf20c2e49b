package openscconf

import (
	"fmt"
	"strings"
)

// maxDepth is how deep OpenSC lets blocks be nested.
const maxDepth = 16

// Parse reads a configuration. Where it fails, so does OpenSC, which then uses
// nothing of the file at all; only a zero byte it would read over. Like OpenSC,
// Parse forgives a missing semicolon, a string that nobody closed and blocks
// that are open at the end.
func Parse(text []byte) (*File, error) {
	if i := strings.IndexByte(string(text), 0); i >= 0 {
		return nil, fmt.Errorf("line %d: a zero byte", 1+strings.Count(string(text[:i]), "\n"))
	}
	f := &File{}
	p := parser{rest: string(text), line: 1, open: []*block{&f.root}}
	for p.rest != "" {
		if err := p.next(); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	return f, nil
}

// state is what the words of a statement were so far.
type state int

const (
	start  state = iota
	keyed        // a key, then labels: next must come a label, '=' or '{'
	label        // after a label: next must come ',', '=' or '{'
	equals       // after '=' or a comma behind it
	valued       // after a value
)

type parser struct {
	rest    string
	line    int
	newline bool     // the token before was the end of a line
	open    []*block // the file and the blocks that are open in it

	state   state
	key     string
	labels  []string
	current *item // the option whose values come
}

// next takes one token off the text.
func (p *parser) next() error {
	c := p.rest[0]
	afterNewline := p.newline
	switch c {
	case ' ', '\t', '\r':
		p.rest = p.rest[1:]
		return nil
	case '\n':
		p.rest = p.rest[1:]
		p.newline = true
		p.line++
		if afterNewline {
			return p.comment()
		}
		return nil
	}
	p.newline = false
	switch c {
	case '#':
		p.until(1, "\r\n")
		return p.comment()
	case ',', '{', '}', '=', ';':
		p.rest = p.rest[1:]
		return p.punctuation(c)
	case '"':
		return p.word(p.quoted())
	}
	return p.word(p.until(1, ";, \t\r\n"))
}

// until takes the text up to one of the ends, which stays, from byte n on.
func (p *parser) until(n int, ends string) string {
	if i := strings.IndexAny(p.rest[n:], ends); i >= 0 {
		n += i
	} else {
		n = len(p.rest)
	}
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	return taken
}

// quoted takes a string in quotation marks. One that is not closed on its line
// ends with, and contains, the line's end; at the text's end OpenSC adds the
// byte 255.
func (p *parser) quoted() string {
	s := p.until(1, "\"\r\n")[1:]
	if p.rest == "" {
		return s + "\xff"
	}
	end := p.rest[:1]
	p.rest = p.rest[1:]
	if end == `"` {
		return s
	}
	return s + end
}

// comment takes a comment or an empty line. OpenSC cannot have one within a
// statement: after a key it crashes, and in a list it refuses the next value.
func (p *parser) comment() error {
	switch p.state {
	case keyed, label:
		return fmt.Errorf("a comment or an empty line after %q", p.key)
	}
	p.current = nil
	return nil
}

// word takes a key, a label or a value.
func (p *parser) word(w string) error {
	if p.state == valued { // the semicolon is missing
		p.reset()
	}
	switch p.state {
	case start:
		p.key, p.state = w, keyed
	case keyed:
		p.labels, p.state = append(p.labels, w), label
	case equals:
		if p.current == nil {
			return fmt.Errorf("%q after a comment or an empty line within a list", w)
		}
		p.current.values, p.state = append(p.current.values, w), valued
	default:
		return fmt.Errorf("%q was not expected", w)
	}
	return nil
}

// punctuation takes one of , { } = and ;.
func (p *parser) punctuation(c byte) error {
	inner := p.open[len(p.open)-1]
	switch {
	case (c == '{' || c == ',') && len(p.open) > maxDepth:
		return fmt.Errorf("more than %d blocks within each other", maxDepth)
	case c == ';':
		p.reset()
	case c == ',' && (p.state == keyed || p.state == label):
		p.state = keyed
	case c == ',' && p.state != start:
		p.state = equals
	case c == '=' && (p.state == keyed || p.state == label):
		p.current = inner.option(p.key) // an option that is there gets more values
		p.state = equals
	case c == '{' && (p.state == keyed || p.state == label):
		if len(p.labels) == 0 {
			p.labels = []string{""}
		}
		b := &block{labels: p.labels}
		inner.items = append(inner.items, &item{key: p.key, block: b})
		p.open = append(p.open, b)
		p.reset()
	case c == '}' && (p.state == start || p.state == valued) && len(p.open) > 1:
		p.open = p.open[:len(p.open)-1]
		p.reset()
	default:
		return fmt.Errorf("%q was not expected", string(c))
	}
	return nil
}

// reset ends a statement.
func (p *parser) reset() {
	p.state, p.key, p.labels, p.current = start, "", nil, nil
}
