package softhsm

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// initToken makes the token and sets its PINs, which crypto11 cannot.
func (c *Card) initToken() error {
	module := pkcs11.New(c.Module())
	if module == nil {
		return fmt.Errorf("the PKCS#11 library %s cannot be loaded", c.Module())
	}
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		return fmt.Errorf("initialize SoftHSM: %w", err)
	}
	err := initToken(module, c.spec)
	if finalErr := module.Finalize(); err == nil {
		err = finalErr
	}
	if err != nil {
		return fmt.Errorf("initialize the token: %w", err)
	}
	return nil
}

func initToken(module *pkcs11.Ctx, spec Spec) error {
	if err := module.InitToken(0, spec.SOPIN, spec.Label); err != nil {
		return err
	}
	session, err := module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := module.Login(session, pkcs11.CKU_SO, spec.SOPIN); err != nil {
		return err
	}
	return module.InitPIN(session, spec.PIN)
}

// AddKey makes a key pair on the card with the given CKA_ID and label and
// returns its public half. It logs in with the PIN that the card was made with.
func (c *Card) AddKey(kind KeyType, id []byte, label string) (crypto.PublicKey, error) {
	unlock, err := c.lockRecord()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := c.readRecord()
	if err != nil {
		return nil, err
	}
	if r.key(id) != nil {
		return nil, fmt.Errorf("test card %s already has a key with id %x", c.Name(), id)
	}
	key, err := c.generate(kind, id, label)
	if err != nil {
		return nil, fmt.Errorf("make a key on test card %s: %w", c.Name(), err)
	}
	r.Keys = append(r.Keys, key)
	if err := c.writeRecord(r); err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(key.Public)
}

func (c *Card) generate(kind KeyType, id []byte, label string) (made keyRecord, err error) {
	token, err := c.configure(&crypto11.Config{Pin: c.spec.PIN})
	if err != nil {
		return made, err
	}
	defer func() {
		if closeErr := token.Close(); err == nil {
			err = closeErr
		}
	}()
	var key crypto11.Signer
	switch kind {
	case RSA2048:
		key, err = token.GenerateRSAKeyPairWithLabel(id, []byte(label), 2048)
	case RSA3072:
		key, err = token.GenerateRSAKeyPairWithLabel(id, []byte(label), 3072)
	case P384:
		key, err = token.GenerateECDSAKeyPairWithLabel(id, []byte(label), elliptic.P384())
	default:
		err = fmt.Errorf("unknown key type %q", kind)
	}
	if err != nil {
		return made, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	return keyRecord{ID: id, Type: kind, Label: label, Public: public}, err
}

// PublicKey returns the public half of the key with the given CKA_ID, whether
// the card is inserted or not.
func (c *Card) PublicKey(id []byte) (crypto.PublicKey, error) {
	r, err := c.readRecord()
	if err != nil {
		return nil, err
	}
	key := r.key(id)
	if key == nil {
		return nil, fmt.Errorf("test card %s has no key with id %x", c.Name(), id)
	}
	return x509.ParsePKIXPublicKey(key.Public)
}

func (r record) key(id []byte) *keyRecord {
	for i, k := range r.Keys {
		if bytes.Equal(k.ID, id) {
			return &r.Keys[i]
		}
	}
	return nil
}

// ImportCertificate puts a certificate on the card: with the CKA_ID of its key,
// or, for a CA's, with one that no key has. It needs no login.
func (c *Card) ImportCertificate(id []byte, label string, der []byte) (err error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("import a certificate to test card %s: %w", c.Name(), err)
	}
	token, err := c.configure(&crypto11.Config{LoginNotSupported: true})
	if err != nil {
		return fmt.Errorf("import a certificate to test card %s: %w", c.Name(), err)
	}
	defer func() {
		if closeErr := token.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := token.ImportCertificateWithLabel(id, []byte(label), certificate); err != nil {
		return fmt.Errorf("import a certificate to test card %s: %w", c.Name(), err)
	}
	return nil
}

// configure opens the card through crypto11 by its slot and with few sessions
// (crypto11 opens a new one for each operation until its pool is full).
func (c *Card) configure(config *crypto11.Config) (*crypto11.Context, error) {
	present, err := c.Present()
	if err != nil {
		return nil, err
	}
	if !present {
		return nil, fmt.Errorf("the card is pulled: insert it first")
	}
	config.Path, config.SlotNumber, config.MaxSessions = c.Module(), new(int), 2
	return crypto11.Configure(config)
}
