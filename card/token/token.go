// Package token gives a service a TLS identity whose key lies in a PKCS#11
// token, such as an HSM or SoftHSM, through crypto11.
//
// It is for programs that run a token of their own, in their own process and by
// their own choice: the PIN comes from their configuration and stays in memory,
// the module's C code runs among theirs, and the login lasts until Close. It is
// not for a person's card: Kortti's agent never uses it, and package card does
// nothing of the kind. docs/decisions/0002 says why there are two ways.
//
//	identity, err := token.Open(token.Config{
//		Module: "/usr/lib/softhsm/libsofthsm2.so",
//		Label:  "billing service",
//		PIN:    pin,
//		Chain:  issuing,
//	})
//	defer identity.Close()
//	config := &tls.Config{
//		Certificates: []tls.Certificate{identity.TLSCertificate()},
//		MaxVersion:   identity.MaxVersion(),
//	}
package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// ErrPINRefused says that the token did not take the PIN: it is wrong, or
// locked. Opening again with the same PIN uses up another try.
var ErrPINRefused = errors.New("the token refused the PIN")

// ErrNoIdentity says that the token has no fitting key with a certificate.
var ErrNoIdentity = errors.New("no key with a certificate on the token")

// Config says which token, key and certificate to use.
type Config struct {
	Module string // path of the PKCS#11 library

	// Exactly one of these names the token.
	TokenSerial string
	Label       string
	Slot        *int

	// PIN is the user's. crypto11 keeps it in memory until Close. Where this
	// process is logged in to the token already, PKCS#11 does not check it.
	PIN string

	// CertificateID is the CKA_ID of key and certificate; nil where the token
	// has only one pair. Of several certificates with one id (a renewal that
	// left the old one there) the token decides which is used.
	CertificateID []byte

	// Chain holds the issuing CAs to send after the certificate, in order. They
	// are not looked for on the token.
	Chain []*x509.Certificate

	// MaxSessions limits the sessions opened on the token; one less is the
	// number of signatures made at once. 0 means 2, which is also the least.
	MaxSessions int
}

// Identity is a certificate with its key in a token. Its methods, and the
// signer in its certificate, are safe for concurrent use.
//
// An Identity does not survive its token: after the token was taken away or
// reset, all signatures fail until it is closed and opened anew.
type Identity struct {
	context     *crypto11.Context
	certificate tls.Certificate
	maxVersion  uint16
	close       func() error
}

// Open logs in to the token, finds the identity and proves it by one signature.
// It tries the PIN once.
//
// While another Identity of this process uses the same module, an Open that
// fails ends that one too: crypto11 v1.2.5 then finalizes the module under it.
func Open(config Config) (*Identity, error) {
	sessions := config.MaxSessions
	if sessions == 0 {
		sessions = 2
	}
	context, err := crypto11.Configure(&crypto11.Config{
		Path: config.Module, TokenSerial: config.TokenSerial, TokenLabel: config.Label, SlotNumber: config.Slot,
		Pin: config.PIN, MaxSessions: sessions,
	})
	if err != nil {
		return nil, openError(config.Module, err)
	}
	identity := &Identity{context: context, close: sync.OnceValue(context.Close)}
	if err := identity.find(config); err != nil {
		return nil, errors.Join(fmt.Errorf("use the token in %s: %w", config.Module, err), identity.Close())
	}
	return identity, nil
}

func openError(module string, err error) error {
	switch code(err) {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_INVALID:
		return fmt.Errorf("log in to the token in %s: %w (correct it before trying again): %w", module, ErrPINRefused, err)
	}
	return fmt.Errorf("open the token in %s: %w", module, err)
}

// code returns the PKCS#11 return value in err, or CKR_OK. crypto11 wraps by a
// version of pkg/errors that errors.As does not see through.
func code(err error) pkcs11.Error {
	for err != nil {
		var c pkcs11.Error
		if errors.As(err, &c) {
			return c
		}
		wrapper, ok := err.(interface{ Cause() error })
		if !ok {
			break
		}
		err = wrapper.Cause()
	}
	return pkcs11.CKR_OK
}

func (i *Identity) find(config Config) error {
	pair, err := i.pair(config.CertificateID)
	if err != nil {
		return err
	}
	issued := pair.Leaf
	for _, issuer := range config.Chain {
		if err := issued.CheckSignatureFrom(issuer); err != nil {
			return fmt.Errorf("chain: %q has not issued %q: %w", issuer.Subject.CommonName, issued.Subject.CommonName, err)
		}
		pair.Certificate = append(pair.Certificate, issuer.Raw)
		issued = issuer
	}
	i.certificate, i.maxVersion = pair, tls.VersionTLS13
	switch public := pair.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return i.proveECDSA(public)
	case *rsa.PublicKey:
		return i.proveRSA(public)
	default:
		return fmt.Errorf("%w: the certificate's key is neither RSA nor ECDSA", ErrNoIdentity)
	}
}

// pair returns the pair with the given CKA_ID, or the only one.
func (i *Identity) pair(id []byte) (tls.Certificate, error) {
	pairs, err := i.context.FindAllPairedCertificates()
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("list keys and certificates: %w", err)
	}
	if id == nil {
		if len(pairs) > 1 {
			return tls.Certificate{}, fmt.Errorf("%w: there are %d, choose one by CertificateID", ErrNoIdentity, len(pairs))
		}
		if len(pairs) == 0 {
			return tls.Certificate{}, ErrNoIdentity
		}
		return pairs[0], nil
	}
	for _, pair := range pairs {
		attribute, err := i.context.GetAttribute(pair.PrivateKey, crypto11.CkaId)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("read a key's id: %w", err)
		}
		if bytes.Equal(attribute.Value, id) {
			return pair, nil
		}
	}
	return tls.Certificate{}, fmt.Errorf("%w has the id %x", ErrNoIdentity, id)
}

// proveECDSA pins the hash to the curve. TLS 1.2 leaves it free, and some
// modules refuse a digest shorter than the curve's.
func (i *Identity) proveECDSA(public *ecdsa.PublicKey) error {
	switch public.Curve {
	case elliptic.P256():
		i.certificate.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	case elliptic.P384():
		i.certificate.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}
	case elliptic.P521():
		i.certificate.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP521AndSHA512}
	default:
		return fmt.Errorf("%w: TLS has no signatures for the curve %s", ErrNoIdentity, public.Params().Name)
	}
	digest, signature, err := i.sign(crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(public, digest, signature) {
		return errors.New("the certificate does not belong to the key with its id")
	}
	return nil
}

// proveRSA finds out whether the token makes PSS signatures, which TLS 1.3
// needs and Go prefers in TLS 1.2. Asking for one is surer than the token's
// list of mechanisms, and it shows that key and certificate fit.
func (i *Identity) proveRSA(public *rsa.PublicKey) error {
	pkcs1 := []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}
	pss := []tls.SignatureScheme{tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512}
	digest, signature, err := i.sign(&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	switch {
	case err == nil:
		i.certificate.SupportedSignatureAlgorithms = append(pss, pkcs1...)
		err = rsa.VerifyPSS(public, crypto.SHA256, digest, signature, nil)
	case code(err) == pkcs11.CKR_MECHANISM_INVALID:
		i.certificate.SupportedSignatureAlgorithms, i.maxVersion = pkcs1, tls.VersionTLS12
		if digest, signature, err = i.sign(crypto.SHA256); err != nil {
			return err
		}
		err = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, signature)
	default:
		return err
	}
	if err != nil {
		return fmt.Errorf("the certificate does not belong to the key with its id: %w", err)
	}
	return nil
}

func (i *Identity) sign(opts crypto.SignerOpts) (digest, signature []byte, err error) {
	sum := sha256.Sum256([]byte("kortti card/token: does this key sign?"))
	signature, err = i.certificate.PrivateKey.(crypto.Signer).Sign(rand.Reader, sum[:], opts)
	if err != nil {
		return nil, nil, fmt.Errorf("make a signature with the token: %w", err)
	}
	return sum[:], signature, nil
}

// TLSCertificate returns the identity for [tls.Config] Certificates or
// GetClientCertificate. Its SupportedSignatureAlgorithms hold what the token
// can sign. It stops working when the Identity is closed.
func (i *Identity) TLSCertificate() tls.Certificate { return i.certificate }

// MaxVersion returns the newest TLS version that the token can sign for, to be
// set in [tls.Config]: TLS 1.2 for RSA without PSS, else TLS 1.3. Without the
// limit such a token's connections fail where the server chooses TLS 1.3.
func (i *Identity) MaxVersion() uint16 { return i.maxVersion }

// Close waits for signatures under way and logs out. Calls after the first do
// nothing and return what it returned.
func (i *Identity) Close() error { return i.close() }
