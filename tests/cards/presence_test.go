package cards

import (
	"crypto"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// gone waits until the manager shows the card no more.
func (c *testCard) gone(t testing.TB, m *card.Manager) {
	t.Helper()
	waitFor(t, "the card to be gone", func() bool { _, shown := c.state(m); return !shown })
}

// reported waits until PC/SC says whether a card is in the first reader.
func reported(t testing.TB, m *card.Manager, present bool) time.Time {
	t.Helper()
	waitFor(t, "PC/SC to tell of the card", func() bool {
		readers := m.Snapshot().PCSCReaders
		return len(readers) > 0 && readers[0].Present == present
	})
	return time.Now()
}

// An inserted card is listed, and a removed one has lost its unlocked state,
// soon after PC/SC says so. The times are reported; a second is the aim.
func TestInsertionAndRemoval(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{})
		for _, when := range []string{"first", "known"} {
			c.insert(t, pcscd.Address0)
			inserted := reported(t, m, true)
			c.ready(t, m)
			t.Logf("%s insertion: ready after %v", when, time.Since(inserted).Round(time.Millisecond))
			c.mustUnlock(t, m)
			signer, err := m.Signer(c.auth, host)
			check(t, err)
			c.pull()
			removed := reported(t, m, false)
			c.gone(t, m)
			t.Logf("removal: gone after %v", time.Since(removed).Round(time.Millisecond))
			if err := c.sign(m); err == nil {
				t.Error("a card that is gone has signed")
			}
			if _, err := signer.SignMessage(nil, nil, crypto.SHA384); err == nil {
				t.Error("an old signer has signed")
			}
		}
		if n := c.Counts().Verifies; n != 2 {
			t.Errorf("%d PINs reached the card, want 2", n)
		}
	})
}

// A card that takes another's place never gets the other's PIN, and nothing of
// the first works any more.
func TestSwap(t *testing.T) {
	pcscd.Start(t)
	a := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC, PIN1: "1111"})
	b := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC, PIN1: "2222"})
	m := start(t, card.Config{})
	for range 3 {
		a.insert(t, pcscd.Address0)
		a.ready(t, m)
		check(t, a.unlock(t, m, "1111"))
		check(t, a.sign(m))
		verified := b.Counts().Verifies
		a.pull()
		b.insert(t, pcscd.Address0)
		if err := a.unlock(t, m, "1111"); err == nil && b.Counts().Verifies != verified {
			t.Fatal("the other card was unlocked with the first one's PIN")
		}
		b.ready(t, m)
		if err := a.sign(m); err == nil {
			t.Error("the first card signs although the second is in the reader")
		}
		if n := b.Counts().Verifies; n != verified {
			t.Errorf("the second card got %d PINs that were not meant for it", n-verified)
		}
		check(t, b.unlock(t, m, "2222"))
		check(t, b.sign(m))
		b.pull()
		b.gone(t, m)
	}
}

// Two cards work side by side; what happens to one leaves the other alone.
func TestTwoReaders(t *testing.T) {
	pcscd.Start(t)
	last := profiles()[len(profiles())-1]
	a, b := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDRSA}), newCard(t, virtualcard.Spec{Profile: last})
	m := start(t, card.Config{})
	a.insert(t, pcscd.Address0)
	a.ready(t, m)
	a.mustUnlock(t, m)
	quiet := a.Counts().APDUs
	b.insert(t, pcscd.Address1)
	b.ready(t, m)
	b.mustUnlock(t, m)
	check(t, b.sign(m))
	if n := a.Counts().APDUs; n != quiet {
		t.Errorf("the unlocked card was sent %d commands while the other was read, unlocked and used", n-quiet)
	}
	check(t, a.sign(m))
	b.pull()
	b.gone(t, m)
	check(t, a.sign(m))
	if s, _ := a.state(m); s != card.Unlocked {
		t.Errorf("the first card is %v", s)
	}
	check(t, m.Lock("", "test"))
	if a.Verified() {
		t.Error("the first card still has a verified PIN")
	}
}

// A card that is pulled in the middle of a signature costs that request an
// honest error and nothing more.
func TestPulledDuringASignature(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		c.mustUnlock(t, m)
		c.SetSignDelay(2 * time.Second)
		signed := make(chan error, 1)
		before := c.Counts().Signatures
		go func() { signed <- c.sign(m) }()
		waitFor(t, "the card to be busy with a signature", func() bool { return c.Counts().Signatures > before })
		c.pull()
		err := <-signed
		var known *card.Error
		if !errors.As(err, &known) || card.Hint(err) == "" {
			t.Errorf("the signature: %v (%q)", err, card.Hint(err))
		}
		c.gone(t, m)
		c.SetSignDelay(0)
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		c.mustUnlock(t, m)
		check(t, c.sign(m))
		if n := c.Counts().Verifies; n != 2 {
			t.Errorf("%d PINs reached the card, want the 2 that were entered", n)
		}
	})
}

// The smart card service may come later than the agent, and go and come again.
func TestServiceComesAndGoes(t *testing.T) {
	c := newCard(t, virtualcard.Spec{Profile: profiles()[len(profiles())-1]})
	m := start(t, card.Config{})
	if m.Snapshot().PCSC == "" {
		t.Fatal("there is a PC/SC service already")
	}
	service := pcscd.Start(t)
	waitFor(t, "the service to be found", func() bool { return m.Snapshot().PCSC == "" })
	for range 2 {
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		c.mustUnlock(t, m)
		check(t, c.sign(m))
		service.Stop()
		c.gone(t, m)
		if err := c.sign(m); err == nil {
			t.Error("a card signs without the service that it is reached by")
		}
		if err := m.Lock("", "test"); !errors.Is(err, card.ErrLockNotConfirmed) {
			t.Errorf("nobody can reset the card, and its lock says %v", err)
		}
		c.pull()
		service = pcscd.Start(t)
		waitFor(t, "the lock to be confirmed", func() bool { return m.Lock("", "test") == nil })
	}
}

// While nothing happens nobody talks to the card, locked or unlocked, and no
// process is started.
func TestIdleCardIsLeftAlone(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	m := start(t, card.Config{Poll: 20 * time.Millisecond})
	c.insert(t, pcscd.Address0)
	c.ready(t, m)
	quiet := func(state string, processes int) {
		t.Helper()
		waitFor(t, "the other children to be done", func() bool { return len(children(t)) == processes })
		apdus, started := c.Counts().APDUs, m.Counters().Children
		time.Sleep(50 * 20 * time.Millisecond) // fifty polls long nothing must happen
		if now := c.Counts().APDUs; now != apdus {
			t.Errorf("%s: %d commands were sent to an idle card", state, now-apdus)
		}
		if now := m.Counters().Children; now != started {
			t.Errorf("%s: %d processes were started", state, now-started)
		}
	}
	quiet("locked", 2) // pcscd and the watcher
	c.mustUnlock(t, m)
	check(t, c.sign(m))
	quiet("unlocked", 3) // the signer too
}

// A card that takes another's place so fast that PC/SC has not noticed cannot be
// read at first, and counts as unknown; it is looked at again and found.
func TestSecondLook(t *testing.T) {
	pcscd.Start(t)
	for i := range 4 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			a, b := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC}), newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
			a.insert(t, pcscd.Address0)
			waitForReader(t, "Yes")
			pkcs11Tool(t, "--list-token-slots")
			a.pull()
			m := start(t, card.Config{Poll: 100 * time.Millisecond})
			b.insert(t, pcscd.Address0)
			b.ready(t, m)
			b.pull()
			b.gone(t, m)
			waitForReader(t, "No")
		})
	}
}
