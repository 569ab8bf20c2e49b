package cards

import (
	"syscall"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// A signer that hangs or crashes leaves its card with a verified PIN; the lock
// that follows reaches the card all the same, also while another program keeps
// it powered.
func TestLockWithoutTheSignersHelp(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"hung": syscall.SIGSTOP, "crashed": syscall.SIGSEGV} {
		t.Run(name, func(t *testing.T) {
			eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
				pcscd.Start(t)
				c := newCard(t, virtualcard.Spec{Profile: p})
				m := start(t, card.Config{})
				c.insert(t, pcscd.Address0)
				c.ready(t, m)
				waitFor(t, "the lister to be done", func() bool { return len(children(t)) == 2 }) // pcscd and the watcher stay
				hold(t, "shared")
				others := children(t)
				c.mustUnlock(t, m)
				check(t, c.sign(m))
				for _, pid := range without(children(t), others) {
					check(t, syscall.Kill(pid, signal))
				}
				if name == "hung" {
					check(t, m.Lock("", "test"))
				}
				waitFor(t, "the manager to say that the card is locked", func() bool { s, ok := c.state(m); return ok && s == card.Locked })
				waitFor(t, "the card to have no verified PIN", func() bool { return !c.Verified() })
				c.mustUnlock(t, m)
				check(t, c.sign(m))
			})
		})
	}
}
