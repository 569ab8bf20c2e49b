package card

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
)

// noting is a key that notes how it is asked to sign.
type noting struct {
	crypto.MessageSigner
	asked []string
}

func (n *noting) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	padding := ""
	if _, ok := n.Public().(*rsa.PublicKey); ok {
		padding = "PKCS1 "
		if _, ok := opts.(*rsa.PSSOptions); ok {
			padding = "PSS "
		}
	}
	n.asked = append(n.asked, padding+opts.HashFunc().String())
	return n.MessageSigner.SignMessage(random, message, opts)
}

// Real modules and cards have ways of their own. Where the key can be used at
// all, TLS works, in the versions and with the signatures that it can make.
func TestLoginWithQuirks(t *testing.T) {
	const pss, pkcs1, ec = "PSS SHA-256", "PKCS1 SHA-256", "SHA-384"
	both := []uint16{tls.VersionTLS12, tls.VersionTLS13}
	auth, signature := []byte{softhsm.AuthenticationID}, []byte{softhsm.SignatureID}
	for name, test := range map[string]struct {
		key      softhsm.KeyType
		quirks   softhsm.Quirks
		shape    func(*testCard) error
		versions []uint16
		asked    string
	}{
		"raw RSA alone":         {softhsm.RSA2048, softhsm.NoPSS | softhsm.NoPKCS1, nil, both, pss},
		"raw RSA and PKCS1":     {softhsm.RSA2048, softhsm.NoPSS, nil, both, pss},
		"PKCS1 alone":           {softhsm.RSA2048, softhsm.NoPSS | softhsm.NoRawRSA, nil, both[:1], pkcs1},
		"PSS alone":             {softhsm.RSA2048, softhsm.NoRawRSA | softhsm.NoPKCS1, nil, both, pss},
		"write-protected":       {softhsm.P384, softhsm.WriteProtected, nil, both, ec},
		"no search by label":    {softhsm.P384, softhsm.NoLabelSearch, nil, both, ec},
		"whole digests only":    {softhsm.P384, softhsm.WholeDigests, nil, both, ec},
		"texts padded with NUL": {softhsm.P384, softhsm.NULPadding, nil, both, ec},
		"EC, no public keys": {softhsm.P384, 0, func(c *testCard) error {
			return c.RemovePublicKeys()
		}, both, ec},
		"RSA, no public keys": {softhsm.RSA2048, 0, func(c *testCard) error {
			return c.RemovePublicKeys()
		}, both, pss},
		"EC key without id": {softhsm.P384, 0, func(c *testCard) error {
			return c.SetKeyID(auth, nil)
		}, both, ec},
		"RSA keys without ids": {softhsm.RSA2048, 0, func(c *testCard) error {
			return errors.Join(c.SetKeyID(auth, nil), c.SetKeyID(signature, nil))
		}, both, pss},
		"EC key with another id": {softhsm.P384, 0, func(c *testCard) error {
			return errors.Join(c.SetKeyID(auth, []byte{0x77}), c.RemovePublicKeys())
		}, both, ec},
		"RSA keys with each other's ids": {softhsm.RSA2048, 0, func(c *testCard) error {
			return errors.Join(c.SetKeyID(auth, []byte{0x01}), c.SetKeyID(signature, auth), c.SetKeyID([]byte{0x01}, signature))
		}, both, pss},
		"unknown keys beside": {softhsm.P384, 0, func(c *testCard) error {
			return errors.Join(c.AddOddKey(auth), c.AddOddKey(nil), c.AddOddKey([]byte{0x99}))
		}, both, ec},
		"everything at once": {softhsm.P384, softhsm.WriteProtected | softhsm.NoLabelSearch | softhsm.WholeDigests | softhsm.NULPadding, func(c *testCard) error {
			return errors.Join(c.SetKeyID(auth, nil), c.AddOddKey(auth), c.RemovePublicKeys())
		}, both, ec},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCard(t, softhsm.Spec{Key: test.key, Label: "HENKILOKORTTI"})
			if test.shape != nil {
				check(t, test.shape(c))
			}
			check(t, c.SetQuirks(test.quirks))
			check(t, c.ResetCounts())
			m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
			if card := onlyCard(t, m); card.Label != "HENKILOKORTTI" || strings.ContainsRune(m.Snapshot().Readers[0].Name, 0) {
				t.Errorf("label %q in reader %q", card.Label, m.Snapshot().Readers[0].Name)
			}
			mustUnlock(t, m, c)
			for _, version := range both {
				want := min(version, slices.Max(test.versions))
				key := notingKey(t, m, c)
				got, err := handshake(t, m, c, testHost, version, tls.Certificate{Certificate: [][]byte{c.leaf.Raw}, PrivateKey: key, Leaf: c.leaf})
				if err != nil || got != want || !slices.Equal(key.asked, []string{test.asked}) {
					t.Errorf("up to TLS %x: version %x signed with %q, err %v; want version %x and %q", version, got, key.asked, err, want, test.asked)
				}
			}
			if logins, made := c.count(t, "C_Login"), c.count(t, "signatures"); logins != 1 || made != 2 {
				t.Errorf("%d C_Login and %d signatures, want 1 and 2", logins, made)
			}
		})
	}
}

func notingKey(t *testing.T, m *Manager, c *testCard) *noting {
	t.Helper()
	signer, err := m.Signer(c.auth, testHost)
	check(t, err)
	return &noting{MessageSigner: signer}
}

// Where a key cannot be used, its certificate says why.
func TestCertificatesSayWhyNot(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{Key: softhsm.RSA2048})
	check(t, c.SetQuirks(softhsm.NoPSS|softhsm.NoRawRSA|softhsm.NoPKCS1))
	odd := issue(t, c, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public())
	m := start(t, Config{Modules: []string{c.Module()}})
	for f, want := range map[Fingerprint]string{c.auth: "no mechanism", odd.auth: "key type not supported (Ed25519)"} {
		_, cert, ok := m.Snapshot().Find(f)
		if !ok || cert.Login || !strings.Contains(cert.WhyNot, want) {
			t.Errorf("certificate %+v, want it to say %q", cert, want)
		}
		wantError(t, m.Unlock(within(t), f, NewPIN([]byte(rightPIN)), UnlockOptions{}), ErrNotForLogin)
	}
}

// issue puts one more certificate onto the card, for any key, with the CKA_ID of
// the authentication key, and returns the card as one with that certificate.
func issue(t *testing.T, c *testCard, public crypto.PublicKey) *testCard {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{BaseURL: "http://127.0.0.1:1"})
	check(t, err)
	issued, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{PublicKey: public, GivenName: "ÄILI", Surname: "TESTINEN"})
	check(t, err)
	check(t, c.ImportCertificate([]byte{softhsm.AuthenticationID}, "toinen", issued.Certificate.Raw))
	return &testCard{Card: c.Card, leaf: issued.Certificate, auth: FingerprintOf(issued.Certificate.Raw), issuer: pki.CitizenEC.Certificate}
}

// A renewed certificate lies beside the old one, on the same key.
func TestTwoCertificatesOnOneKey(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	renewed := issue(t, c, c.leaf.PublicKey)
	m := start(t, Config{Modules: []string{c.Module()}})
	mustUnlock(t, m, renewed)
	for _, with := range []*testCard{c, renewed} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if got, err := login(t, m, with, testHost, version); err != nil || got != version {
				t.Errorf("version %x, %v", got, err)
			}
		}
	}
	if n := c.count(t, "C_Login"); n != 1 {
		t.Errorf("%d C_Login, want 1: the PIN is the card's", n)
	}
}

// Where two keys could be meant and nothing tells them apart, none is used.
func TestKeysThatNothingTellsApart(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	check(t, c.SetKeyID([]byte{softhsm.AuthenticationID}, nil))
	check(t, c.SetKeyID([]byte{softhsm.SignatureID}, nil))
	m := start(t, Config{Modules: []string{c.Module()}})
	mustUnlock(t, m, c)
	wantError(t, sign(t, m, c), ErrMechanism)
	if n := c.count(t, "C_SignInit"); n != 0 {
		t.Errorf("%d C_SignInit, want none", n)
	}
}

// padCard is a card in a reader with a PIN pad.
func padCard(t *testing.T, tries int) (*testCard, *Manager, func(UnlockOptions) error) {
	t.Helper()
	c := newTestCard(t, softhsm.Spec{Tries: tries})
	check(t, c.SetQuirks(softhsm.PINPad))
	limits := defaultLimits
	limits.pad = hangs
	m := startWith(t, Config{Modules: []string{c.Module()}}, limits)
	if !onlyCard(t, m).PIN.PinPad {
		t.Fatal("the PIN pad is not shown")
	}
	return c, m, func(o UnlockOptions) error { return m.Unlock(within(t), c.auth, nil, o) }
}

func TestPINPad(t *testing.T) {
	c, m, unlock := padCard(t, 3)
	check(t, c.SetPad(softhsm.PadCancelled, 0))
	wantError(t, unlock(UnlockOptions{}), ErrPINCancelled)
	if left, err := c.TriesLeft(); left != 3 || err != nil || m.Counters().LoginsRefused != 0 {
		t.Errorf("%d tries are left, %v, after a cancelled entry; counters %+v", left, err, m.Counters())
	}
	check(t, c.SetPad(softhsm.PadWrong, 0))
	wantError(t, unlock(UnlockOptions{}), ErrWrongPIN)
	check(t, c.SetPad(softhsm.PadRight, 100*time.Millisecond))
	check(t, unlock(UnlockOptions{}))
	if got, err := login(t, m, c, testHost, tls.VersionTLS13); err != nil || got != tls.VersionTLS13 {
		t.Errorf("version %x, %v", got, err)
	}
	if entries, logins := c.count(t, "logins_pad"), c.count(t, "C_Login"); entries != 3 || logins != 3 || m.Counters().Logins != 3 {
		t.Errorf("%d entries at the pad and %d C_Login, want 3 of each, all without a PIN; counters %+v", entries, logins, m.Counters())
	}
}

func TestPINPadFinalTryAndLock(t *testing.T) {
	c, _, unlock := padCard(t, 2)
	check(t, c.SetPad(softhsm.PadWrong, 0))
	wantError(t, unlock(UnlockOptions{}), ErrWrongPIN)
	wantError(t, unlock(UnlockOptions{}), ErrFinalTry)
	wantError(t, unlock(UnlockOptions{ConfirmFinal: true}), ErrPINLocked)
	wantError(t, unlock(UnlockOptions{ConfirmFinal: true}), ErrPINLocked)
	if n := c.count(t, "C_Login"); n != 2 {
		t.Errorf("%d C_Login, want 2", n)
	}
}

// Nobody types, the card is pulled, or the program does not want to wait.
func TestPINPadThatNobodyAnswers(t *testing.T) {
	c, m, unlock := padCard(t, 5)
	again := func() {
		t.Helper()
		check(t, c.SetPad(softhsm.PadRight, 0))
		waitFor(t, "the card", func() bool { _, _, ok := m.Snapshot().Find(c.auth); return ok })
		check(t, unlock(UnlockOptions{ConfirmFinal: true}))
		check(t, m.Lock("", "test"))
		check(t, c.SetPad(softhsm.PadRight, time.Minute))
	}
	check(t, c.SetPad(softhsm.PadRight, time.Minute))
	wantError(t, unlock(UnlockOptions{}), ErrModuleHung)
	again()

	asked := func(n uint64) {
		t.Helper()
		waitFor(t, "the pad to ask", func() bool { return c.count(t, "logins_pad") == n })
	}
	failed := make(chan error, 1)
	go func() { failed <- unlock(UnlockOptions{}) }()
	asked(3)
	check(t, c.Pull())
	wantError(t, <-failed, ErrRemoved)
	waitFor(t, "the removal", func() bool { _, _, there := m.Snapshot().Find(c.auth); return !there })
	check(t, c.Insert())
	again()

	ctx, cancel := context.WithCancelCause(within(t))
	why := fmt.Errorf("%w: the browser is gone", ErrPINCancelled)
	go func() { failed <- m.Unlock(ctx, c.auth, nil, UnlockOptions{}) }()
	asked(5)
	cancel(why)
	wantError(t, <-failed, why)
	again()
	if left, err := c.TriesLeft(); left != 5 || err != nil {
		t.Errorf("%d tries are left, want all; %v", left, err)
	}
}
