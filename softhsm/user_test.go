package softhsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"testing"

	"github.com/kortti-id/kortti/softhsm"
	"github.com/miekg/pkcs11"
)

var digest = make([]byte, 64)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, spec softhsm.Spec) *softhsm.Card {
	t.Helper()
	card, err := softhsm.Create(t.TempDir(), spec)
	check(t, err)
	return card
}

func mustCounts(t *testing.T, card *softhsm.Card) softhsm.Counts {
	t.Helper()
	counts, err := card.Counts()
	check(t, err)
	return counts
}

func want(t *testing.T, card *softhsm.Card, wanted softhsm.Counts) {
	t.Helper()
	counts := mustCounts(t, card)
	for name, n := range wanted {
		if got, ok := counts[name]; !ok || got != n {
			t.Errorf("counted %d of %s, want %d", got, name, n)
		}
	}
}

func wantCode(t *testing.T, err error, code pkcs11.Error) {
	t.Helper()
	var got pkcs11.Error
	if err != nil && !errors.As(err, &got) || got != code {
		t.Errorf("answered %v, want %v", err, code)
	}
}

// user is a program that uses a card through its module.
type user struct {
	module  *pkcs11.Ctx
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
}

func openCard(card *softhsm.Card) (*user, error) {
	u := &user{module: pkcs11.New(card.Module())}
	if u.module == nil {
		return nil, fmt.Errorf("%s cannot be loaded", card.Module())
	}
	err := u.module.Initialize()
	if err == nil {
		u.session, err = u.module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION)
	}
	return u, err
}

func use(t *testing.T, card *softhsm.Card) *user {
	t.Helper()
	u, err := openCard(card)
	check(t, err)
	t.Cleanup(func() { check(t, u.close()) })
	return u
}

func (u *user) close() error {
	defer u.module.Destroy()
	return u.module.Finalize()
}

func (u *user) rw(t *testing.T) pkcs11.SessionHandle {
	t.Helper()
	check(t, u.module.CloseSession(u.session))
	var err error
	u.session, err = u.module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	check(t, err)
	return u.session
}

// findKey finds the authentication key, which only a login shows.
func (u *user) findKey() error {
	err := u.module.FindObjectsInit(u.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{softhsm.AuthenticationID}),
	})
	if err != nil {
		return err
	}
	found, _, err := u.module.FindObjects(u.session, 1)
	if err := errors.Join(err, u.module.FindObjectsFinal(u.session)); err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("no private key visible")
	}
	u.key = found[0]
	return nil
}

func (u *user) sign(data []byte, mechanism uint, params any) ([]byte, error) {
	if u.key == 0 {
		if err := u.findKey(); err != nil {
			return nil, err
		}
	}
	if err := u.module.SignInit(u.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, params)}, u.key); err != nil {
		return nil, err
	}
	return u.module.Sign(u.session, data)
}

// verify makes one signature and checks it with the card's public key.
func verify(t *testing.T, card *softhsm.Card, u *user, kind softhsm.KeyType) {
	t.Helper()
	public, err := card.PublicKey([]byte{softhsm.AuthenticationID})
	check(t, err)
	check(t, u.findKey())
	if kind == softhsm.P384 {
		signature, err := u.sign(digest[:48], pkcs11.CKM_ECDSA, nil)
		check(t, err)
		r, s := new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:])
		if !ecdsa.Verify(public.(*ecdsa.PublicKey), digest[:48], r, s) {
			t.Error("the ECDSA signature is wrong")
		}
		return
	}
	if size := public.(*rsa.PublicKey).N.BitLen(); fmt.Sprint("rsa", size) != string(kind) {
		t.Errorf("the key has %d bits, want %s", size, kind)
	}
	signature, err := u.sign(digest[:32], pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32))
	check(t, err)
	check(t, rsa.VerifyPSS(public.(*rsa.PublicKey), crypto.SHA256, digest[:32], signature, nil))
}
