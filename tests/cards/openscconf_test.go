package cards

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

var myEID = []virtualcard.Profile{virtualcard.MyEIDRSA, virtualcard.MyEIDEC}

// systemSettings puts a file in the place of the system's OpenSC configuration,
// and sees at the end that no private one is left.
func systemSettings(t testing.TB, settings string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "opensc.conf")
	check(t, os.WriteFile(name, []byte("app default {\n"+settings+"\n}\n"), 0o644))
	t.Setenv("OPENSC_CONF", name)
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(os.TempDir(), "kortti-opensc-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("private configurations are left: %v %v", left, err)
		}
	})
}

// onlySigners waits until no lister works any more: the watcher and a signer for
// each unlocked card are left.
func onlySigners(t testing.TB, before []int, signers int) {
	t.Helper()
	waitFor(t, "the listers to end", func() bool { return len(without(children(t), before)) == 1+signers })
}

// heard counts the commands to a card but those by which its own signer asks the
// card, every second, whether it is still logged in: VERIFY without a PIN.
func heard(c *testCard) *atomic.Int64 {
	var n atomic.Int64
	c.SetLog(func(e virtualcard.Exchange) {
		if len(e.Command) > 5 || !bytes.HasPrefix(e.Command, []byte{0x00, 0x20}) {
			n.Add(1)
		}
	})
	return &n
}

// An unlocked card hears of nobody but its own signer, whatever happens in
// another reader; so it stays logged in also where the system has OpenSC reset
// every card that it lets go of.
func TestUnlockedCardIsLeftAlone(t *testing.T) {
	for name, settings := range map[string]string{"standard": "", "resets": "reader_driver pcsc { disconnect_action = reset; }"} {
		for _, p := range myEID {
			t.Run(name+"/"+string(p), func(t *testing.T) {
				systemSettings(t, settings)
				pcscd.Start(t)
				a, b := newCard(t, virtualcard.Spec{Profile: p}), newCard(t, virtualcard.Spec{Profile: p})
				before := children(t)
				m := start(t, card.Config{})
				a.insert(t, pcscd.Address0)
				a.ready(t, m)
				a.mustUnlock(t, m)
				onlySigners(t, before, 1)
				alone, atA := a.Counts(), heard(a)

				b.insert(t, pcscd.Address1)
				b.ready(t, m)
				b.mustUnlock(t, m)
				check(t, b.sign(m))
				check(t, m.Refresh(within(t)))
				onlySigners(t, before, 2)
				if n := atA.Load(); n != 0 {
					t.Errorf("the unlocked card heard %d commands while another was used", n)
				}
				atB := heard(b)
				check(t, a.sign(m))
				if n := atB.Load(); n != 0 {
					t.Errorf("the other card heard %d commands while the first signed", n)
				}
				b.pull()
				waitFor(t, "the other card to be gone", func() bool { _, ok := b.state(m); return !ok })
				check(t, m.Refresh(within(t)))
				check(t, a.sign(m))
				if now := a.Counts(); now.Verifies != 1 || now.Resets != alone.Resets || now.PowerOns != alone.PowerOns {
					t.Errorf("the unlocked card counted %+v at first and %+v at the end", alone, now)
				}
			})
		}
	}
}

// When another program has reset the card, its PIN has to be given again by a
// person: OpenSC has not kept it.
func TestNoPINIsKept(t *testing.T) {
	for _, p := range myEID {
		t.Run(string(p), func(t *testing.T) {
			systemSettings(t, "framework pkcs15 { use_pin_caching = true; }")
			pcscd.Start(t)
			c := newCard(t, virtualcard.Spec{Profile: p})
			m := start(t, card.Config{})
			c.insert(t, pcscd.Address0)
			c.ready(t, m)
			c.mustUnlock(t, m)
			check(t, c.sign(m))
			if out, err := exec.Command("opensc-tool", "--reader", "0", "--reset").CombinedOutput(); err != nil {
				t.Fatalf("opensc-tool: %v\n%s", err, out)
			}
			if c.Verified() {
				t.Fatal("the card was not reset")
			}
			err := c.sign(m)
			if !errors.Is(err, card.ErrLocked) {
				t.Fatalf("a signature after a reset by another program, with the PIN shown %d times for one entry: %v, want %v",
					c.Counts().Verifies, err, card.ErrLocked)
			}
			if n := c.Counts().Verifies; n != 1 || c.Verified() {
				t.Errorf("the card was shown its PIN %d times for one entry", n)
			}
			waitFor(t, "the card to be shown as locked", func() bool {
				state, ok := c.state(m)
				return ok && state == card.Locked
			})
			c.mustUnlock(t, m)
			check(t, c.sign(m))
		})
	}
}

// The system's own settings hold for listers and signers.
func TestSystemSettingsHold(t *testing.T) {
	systemSettings(t, `ignored_readers = "`+pcscd.Reader1+`";`)
	pcscd.Start(t)
	a, b := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC}), newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	m := start(t, card.Config{})
	b.insert(t, pcscd.Address1)
	waitFor(t, "the ignored card to be powered", func() bool { return b.Counts().PowerOns > 0 })
	a.insert(t, pcscd.Address0)
	a.ready(t, m)
	a.mustUnlock(t, m)
	check(t, a.sign(m))
	check(t, m.Refresh(within(t)))
	if _, ok := b.state(m); ok || b.Counts().APDUs != 0 {
		t.Errorf("the card in a reader that the system ignores was sent %d commands", b.Counts().APDUs)
	}
}
