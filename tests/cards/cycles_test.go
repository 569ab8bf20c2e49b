package cards

import (
	"os"
	"strconv"
	"testing"
	"time"

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

// insertUntilListed inserts the card, and takes it out and inserts it again as
// long as PC/SC does not see it: the virtual reader of pcsc-lite 2.5 sometimes
// misses a card that comes right after another (the connection is there, the
// service says that the reader is empty).
func (c *testCard) insertUntilListed(t *testing.T, m *card.Manager, address string) (in *virtualcard.Insertion, shown *card.Card) {
	t.Helper()
	const missed = 3 * time.Second
	var inserted time.Time
	waitFor(t, "the card to be listed", func() bool {
		if in != nil && !inReader(m, address) && time.Since(inserted) > missed {
			t.Log("the virtual reader has missed the card")
			in.Pull()
			in = nil
		}
		if in == nil {
			var err error
			in, err = virtualcard.Insert(within(t), address, c.Card)
			check(t, err)
			inserted = time.Now()
		}
		var cert *card.Certificate
		var ok bool
		shown, cert, ok = m.Snapshot().Find(c.auth)
		return ok && cert.Login
	})
	return in, shown
}

// inReader tells whether PC/SC sees a card in the reader at an address.
func inReader(m *card.Manager, address string) bool {
	i := 0
	if address == pcscd.Address1 {
		i = 1
	}
	readers := m.Snapshot().PCSCReaders
	return i < len(readers) && readers[i].Present
}

// cycle is one life of a card in a reader. Every other time it is locked before
// it is pulled.
func (c *testCard) cycle(t *testing.T, m *card.Manager, address string, i int) {
	in, shown := c.insertUntilListed(t, m, address)
	defer in.Pull()
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
	waitFor(t, "PC/SC to see the reader empty", func() bool { return !inReader(m, address) })
}
