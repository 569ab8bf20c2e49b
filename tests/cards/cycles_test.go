package cards

import (
	"os"
	"strconv"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// cycles is how often each profile is inserted, unlocked, used and removed in
// each room: 210 in all; KORTTI_CYCLES in the environment takes its place.
func cycles(t *testing.T) int {
	t.Helper()
	text := os.Getenv("KORTTI_CYCLES")
	if text == "" {
		return 30
	}
	n, err := strconv.Atoi(text)
	check(t, err)
	return n
}

// Cards come and go for a long time, two at once, and nothing is left behind
// (start sees to that) and no PIN try is lost.
func TestCycles(t *testing.T) {
	pcscd.Start(t)
	m := start(t, card.Config{})
	n := cycles(t)
	var all []*testCard
	for _, p := range profiles() {
		all = append(all, newCard(t, virtualcard.Spec{Profile: p}))
	}
	half := (len(all) + 1) / 2
	t.Run("readers", func(t *testing.T) {
		for address, cards := range map[string][]*testCard{pcscd.Address0: all[:half], pcscd.Address1: all[half:]} {
			t.Run(address, func(t *testing.T) {
				t.Parallel()
				for i := range n {
					for _, c := range cards {
						c.cycle(t, m, address, i)
					}
				}
			})
		}
	})
	for _, c := range all {
		counts := c.Counts()
		if counts.Verifies != uint64(n) || counts.Refused != 0 || counts.Signatures != uint64(n) {
			t.Errorf("after %d cycles the card counted %+v", n, counts)
		}
	}
	t.Logf("%d cycles with %d cards: %+v", n, len(all), m.Counters())
}

// cycle is one life of a card in a reader. Every other time it is locked before
// it is pulled.
func (c *testCard) cycle(t *testing.T, m *card.Manager, address string, i int) {
	in, err := virtualcard.Insert(within(t), address, c.Card)
	check(t, err)
	defer in.Pull()
	shown := c.ready(t, m)
	c.mustUnlock(t, m)
	check(t, c.sign(m))
	if i%2 == 1 {
		check(t, m.Lock(shown.ID, "test"))
		if c.Verified() {
			t.Fatal("the card still has a verified PIN after the lock")
		}
	}
	in.Pull()
	c.gone(t, m)
	// The module may tell it first. A virtual reader whose card is changed
	// before the service looks again tells it nothing of the change.
	waitFor(t, "PC/SC to see the reader empty", func() bool {
		for i, r := range m.Snapshot().PCSCReaders {
			if (i == 1) == (address == pcscd.Address1) {
				return !r.Present
			}
		}
		return false
	})
}
