package softhsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// RemovePublicKeys deletes all public key objects, which many cards do not
// have. [Card.PublicKey] knows the keys still.
func (c *Card) RemovePublicKeys() error {
	return c.alter(func(module *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		objects, err := find(module, session, pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY))
		for _, object := range objects {
			err = errors.Join(err, module.DestroyObject(session, object))
		}
		return err
	})
}

// SetKeyID gives the private key with the CKA_ID old another on the token, or
// with nil none. Everything else, and [Card.PublicKey], knows it by the old one.
func (c *Card) SetKeyID(old, id []byte) error {
	return c.alter(func(module *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		objects, err := find(module, session,
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, old))
		if err == nil && len(objects) != 1 {
			err = fmt.Errorf("%d private keys have the id %x", len(objects), old)
		}
		if err != nil {
			return err
		}
		return module.SetAttributeValue(session, objects[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id)})
	})
}

// AddOddKey puts a private key of a type that nobody uses for TLS
// (Diffie-Hellman) onto the token, with the given CKA_ID. It can do nothing.
func (c *Card) AddOddKey(id []byte) error {
	return c.alter(func(module *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		_, err := module.CreateObject(session, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_DH),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id),
			pkcs11.NewAttribute(pkcs11.CKA_PRIME, []byte{23}),
			pkcs11.NewAttribute(pkcs11.CKA_BASE, []byte{5}),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE, []byte{6}),
		})
		return err
	})
}

// alter calls f with a read-write session that is logged in.
func (c *Card) alter(f func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	module := pkcs11.New(c.Module())
	if module == nil {
		return fmt.Errorf("the PKCS#11 library %s cannot be loaded", c.Module())
	}
	defer module.Destroy()
	err := module.Initialize()
	if err == nil {
		err = errors.Join(c.withSession(module, f), module.Finalize())
	}
	if err != nil {
		return fmt.Errorf("alter test card %s: %w", c.Name(), err)
	}
	return nil
}

func (c *Card) withSession(module *pkcs11.Ctx, f func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	session, err := module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := module.Login(session, pkcs11.CKU_USER, c.spec.PIN); err != nil {
		return err
	}
	return f(module, session)
}

func find(module *pkcs11.Ctx, session pkcs11.SessionHandle, template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := module.FindObjectsInit(session, template); err != nil {
		return nil, err
	}
	const enough = 64
	found, _, err := module.FindObjects(session, enough)
	return found, errors.Join(err, module.FindObjectsFinal(session))
}
