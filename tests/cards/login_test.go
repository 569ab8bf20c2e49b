package cards

import (
	"crypto/tls"
	"errors"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// A card logs in over both versions of TLS with one PIN entry, its signature
// key is never offered, and when it is locked the card itself has no verified
// PIN any more.
func TestLogin(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		check(t, onlyAuthentication(m, c))
		c.mustUnlock(t, m)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			got, err := c.login(t, m, version)
			if err != nil || got != version {
				t.Errorf("TLS %#x: got %#x, %v", version, got, err)
			}
		}
		counts := c.Counts()
		if counts.Verifies != 1 || counts.Refused != 0 || counts.Signatures != 2 {
			t.Errorf("the card counted %+v, want one PIN and two signatures", counts)
		}
		if !c.Verified() {
			t.Error("the card has no verified PIN while it is unlocked")
		}
		check(t, m.Lock("", "test"))
		if c.Verified() {
			t.Error("the card still has a verified PIN after the lock")
		}
		if err := c.sign(m); !errors.Is(err, card.ErrLocked) {
			t.Errorf("a locked card: %v", err)
		}
	})
}

// onlyAuthentication says whether of all certificates that are shown the
// authentication certificate alone is for login, once.
func onlyAuthentication(m *card.Manager, c *testCard) error {
	usable := 0
	for _, r := range m.Snapshot().Readers {
		if r.Card == nil {
			continue
		}
		for _, cert := range r.Card.Certificates {
			switch {
			case cert.Login && cert.Fingerprint != c.auth:
				return errors.New("another certificate is offered for login: " + cert.X509.Subject.String())
			case cert.Login:
				usable++
			}
		}
	}
	if usable != 1 {
		return errors.New("the authentication certificate is not offered once")
	}
	return nil
}

// Wrong PINs cost a try each, the same one none, and the final one asks first.
func TestPINTries(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		tries := c.TriesLeft(virtualcard.PIN1)
		m := start(t, card.Config{})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		want := func(pin string, confirm bool, err error, cost int) {
			t.Helper()
			before := c.TriesLeft(virtualcard.PIN1)
			got := m.Unlock(within(t), c.auth, card.NewPIN([]byte(pin)), card.UnlockOptions{ConfirmFinal: confirm})
			if !errors.Is(got, err) {
				t.Errorf("PIN %s: %v, want %v", pin, got, err)
			}
			if spent := before - c.TriesLeft(virtualcard.PIN1); spent != cost {
				t.Errorf("PIN %s: it cost %d tries, want %d", pin, spent, cost)
			}
		}
		want("9001", false, card.ErrWrongPIN, 1)
		want("9001", false, card.ErrPINRefusedBefore, 0)
		want("12", false, card.ErrPINLength, 0)
		want("9002", false, card.ErrWrongPIN, 1)
		want("9003", false, card.ErrFinalTry, 0) // by our count, or the token's
		for left := tries - 2; left > 1; left-- {
			want("900"+string(rune('3'+left)), true, card.ErrWrongPIN, 1)
		}
		want("9999", false, card.ErrFinalTry, 0)
		want("9999", true, card.ErrPINLocked, 1)
		want(rightPIN, true, card.ErrPINLocked, 0)
		if n := c.Counts().Verifies; n != uint64(tries) {
			t.Errorf("%d PINs reached the card, want %d", n, tries)
		}
	})
}
