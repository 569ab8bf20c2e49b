package tlsclient

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/kortti-id/kortti/card"
)

// Identity is a certificate that may be presented, and the state of its key.
type Identity struct {
	Fingerprint card.Fingerprint
	Leaf        *x509.Certificate
	Chain       []*x509.Certificate   // leaf first, then CA certificates in any order
	Schemes     []tls.SignatureScheme // what the key can sign; nil means all that its type can
	MaxVersion  uint16                // of TLS; 0 means no limit
	Usable      bool                  // may be used for a TLS login
	WhyNot      string                // the reason when Usable is false
	Unlocked    bool
	Epoch       uint64 // changes with every lock, unlock and removal
	Card        string // the card's ID, for messages
}

// Source gives the identities that are present. It must be safe for concurrent
// use and quick: it is asked inside handshakes.
type Source interface {
	// Identities returns what is present now, locked or not.
	Identities() []Identity

	// Signer returns the key for one handshake with host, or an error that
	// wraps ErrLocked when it must be unlocked first.
	Signer(f card.Fingerprint, host string) (crypto.Signer, error)
}

// Static returns a Source of certificates with keys that need no unlocking: a
// service's token (card/token), or a test's. A certificate's
// SupportedSignatureAlgorithms limit what its key is asked to sign.
func Static(certificates ...tls.Certificate) Source {
	s := &static{keys: make(map[card.Fingerprint]crypto.Signer)}
	for _, c := range certificates {
		s.add(c)
	}
	return s
}

type static struct {
	identities []Identity
	keys       map[card.Fingerprint]crypto.Signer
}

func (s *static) add(c tls.Certificate) {
	id := Identity{Schemes: c.SupportedSignatureAlgorithms, Unlocked: true}
	for i, der := range c.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			id.WhyNot = fmt.Sprintf("certificate %d of its chain cannot be read", i)
			break
		}
		id.Chain = append(id.Chain, cert)
	}
	if len(id.Chain) == 0 {
		return
	}
	id.Leaf = id.Chain[0]
	id.Fingerprint = card.FingerprintOf(id.Leaf.Raw)
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		id.WhyNot = "its key cannot sign"
	}
	if tls12Only(id.Schemes) {
		id.MaxVersion = tls.VersionTLS12
	}
	id.Usable = id.WhyNot == ""
	s.identities = append(s.identities, id)
	s.keys[id.Fingerprint] = key
}

func (s *static) Identities() []Identity { return slices.Clone(s.identities) }

func (s *static) Signer(f card.Fingerprint, _ string) (crypto.Signer, error) {
	if key := s.keys[f]; key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("find the key of certificate %s: %w", f, ErrRemoved)
}

// tls12Only reports whether schemes has none that signs in TLS 1.3, which
// forbids PKCS#1 v1.5 and SHA-1 there (RFC 8446 section 4.2.3).
func tls12Only(schemes []tls.SignatureScheme) bool {
	return len(schemes) > 0 && !slices.ContainsFunc(schemes, func(s tls.SignatureScheme) bool {
		switch s {
		case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.PKCS1WithSHA1, tls.ECDSAWithSHA1:
			return false
		}
		return true
	})
}

// complete returns the identity with its chain in order and as long as the
// certificates of its own chain and extra allow. Servers often list only roots
// while cards hold only leaves: without the links between, nothing would match.
func (id Identity) complete(extra []*x509.Certificate) Identity {
	if id.Leaf == nil {
		return id
	}
	pool := slices.Concat(id.Chain, extra)
	chain := []*x509.Certificate{id.Leaf}
	for last := id.Leaf; !bytes.Equal(last.RawIssuer, last.RawSubject); {
		i := slices.IndexFunc(pool, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && !slices.ContainsFunc(chain, c.Equal) &&
				last.CheckSignatureFrom(c) == nil
		})
		if i < 0 {
			break
		}
		last = pool[i]
		chain = append(chain, last)
	}
	id.Chain = chain
	return id
}

// certificate returns what is given to crypto/tls. A root is not sent (RFC
// 8446 section 4.4.2): the server has it or does not trust it.
func (id Identity) certificate(key crypto.Signer) *tls.Certificate {
	c := &tls.Certificate{PrivateKey: key, Leaf: id.Leaf, SupportedSignatureAlgorithms: id.Schemes}
	for i, cert := range id.Chain {
		if i > 0 && bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			break
		}
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}
