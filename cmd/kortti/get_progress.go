package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress shows how a long download gets on, on a terminal that shows nothing
// else.
type progress struct {
	to          io.Writer // nil: shows nothing
	got, whole  int64     // bytes; whole is -1 where the host does not say
	began, said time.Time
}

func newProgress(to, out io.Writer, whole int64) *progress {
	p := &progress{whole: whole, began: time.Now()}
	if isTerminal(to) && !isTerminal(out) {
		p.to = to
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Write counts what has come; a short download stays silent.
func (p *progress) Write(b []byte) (int, error) {
	p.got += int64(len(b))
	if now := time.Now(); p.to != nil && now.Sub(p.began) > silence/2 && now.Sub(p.said) > silence/10 {
		p.said = now
		p.show()
	}
	return len(b), nil
}

func (p *progress) show() {
	text := size(p.got)
	if p.whole > 0 {
		text = fmt.Sprintf("%s of %s, %d %%", text, size(p.whole), p.got*100/p.whole)
	}
	fmt.Fprintf(p.to, "\r%s\x1b[K", text)
}

// end leaves the last state on a line of its own.
func (p *progress) end() {
	if !p.said.IsZero() {
		p.show()
		fmt.Fprintln(p.to)
	}
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
