package tlsclient_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kortti-id/kortti/tlsclient"
)

// moment is what a connection says of itself at one time.
type moment struct {
	inFlight, available int
	err                 error
}

// changing is a connection whose state changes after a number of questions.
type changing struct {
	before, after moment
	left          int
}

func (c *changing) ask() moment {
	if c.left == 0 {
		return c.after
	}
	c.left--
	return c.before
}

func (c *changing) InFlight() int  { return c.ask().inFlight }
func (c *changing) Available() int { return c.ask().available }
func (c *changing) Err() error     { return c.ask().err }

// A connection whose state changes while a pool looks at it is not taken for
// one that its host has sent away: the pool would close it under a request, or
// under the switched protocol that owns it.
func TestDismissed(t *testing.T) {
	var (
		busy   = moment{inFlight: 1}
		idle   = moment{available: 1}
		gone   = moment{err: errors.New("the caller owns the connection")}
		goaway = moment{}
	)
	for name, c := range map[string]struct {
		before, after moment
		want          bool
	}{
		"a request ends":                      {busy, idle, false},
		"a protocol is switched":              {busy, gone, false},
		"an idle connection breaks":           {idle, gone, false},
		"idle":                                {idle, idle, false},
		"sent away":                           {goaway, goaway, true},
		"sent away, still carrying a request": {busy, busy, false},
	} {
		for questions := range 4 {
			t.Run(fmt.Sprintf("%s after %d", name, questions), func(t *testing.T) {
				if got := tlsclient.Dismissed(&changing{c.before, c.after, questions}); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
			})
		}
	}
}
