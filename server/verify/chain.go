package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/kortti-id/kortti/fineid"
)

// maxHints bounds the certificates of the client that are looked at; what a
// card sends is at most an issuing CA and its root.
const maxHints = 8

// anchors is whom we trust, and the certificates between them and the leaves.
type anchors struct {
	roots         *x509.CertPool
	intermediates *x509.CertPool
	content       string // what the trust epoch is made from
}

// pins gives the test for anchors among the issuing CAs.
func pins(enabled bool) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool {
		_, ok := fineid.Pinned(c)
		return enabled && ok
	}
}

// newAnchors fills the pools. The roots pool is never nil or empty: x509 would
// take the system's roots for a nil one and let the whole web PKI in.
func newAnchors(roots, issuing []*x509.Certificate, pinned func(*x509.Certificate) bool) (anchors, error) {
	a := anchors{roots: x509.NewCertPool(), intermediates: x509.NewCertPool()}
	trusted := 0
	var sums []string
	for _, c := range roots {
		if err := usableCA(c); err != nil {
			return anchors{}, fmt.Errorf("verify: trust anchor: %w", err)
		}
		a.roots.AddCert(c)
		trusted++
		sums = append(sums, "root "+sum(c))
	}
	for _, c := range issuing {
		if err := usableCA(c); err != nil {
			return anchors{}, fmt.Errorf("verify: issuing CA: %w", err)
		}
		a.intermediates.AddCert(c)
		kind := "issuing "
		if pinned(c) {
			a.roots.AddCert(c)
			trusted++
			kind = "pinned "
		}
		sums = append(sums, kind+sum(c))
	}
	if trusted == 0 {
		return anchors{}, errors.New("verify: no trust anchors: name at least one root certificate, or pinned issuing CAs with pins = true")
	}
	sort.Strings(sums)
	a.content = fmt.Sprint(sums)
	return a, nil
}

func usableCA(c *x509.Certificate) error {
	switch {
	case c == nil || len(c.Raw) == 0:
		return errors.New("a certificate is missing")
	case !c.BasicConstraintsValid || !c.IsCA:
		return fmt.Errorf("%q is not a CA certificate", c.Subject.CommonName)
	}
	return nil
}

func sum(c *x509.Certificate) string {
	digest := sha256.Sum256(c.Raw)
	return hex.EncodeToString(digest[:])
}

func hashOf(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// checkChain builds the chain to an anchor. The client's hints can only help
// to find it, never to shorten it. The extended key usages are ours to check
// (checkUsage): card certificates have none, and x509 would then ask for
// serverAuth.
func (r *run) checkChain(leaf *x509.Certificate, hints [][]byte) ([]*x509.Certificate, error) {
	intermediates := r.intermediates
	if len(hints) > 0 {
		intermediates = intermediates.Clone()
		for _, der := range hints[:min(len(hints), maxHints)] {
			if c, err := x509.ParseCertificate(der); err == nil {
				intermediates.AddCert(c)
			}
		}
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         r.roots,
		Intermediates: intermediates,
		CurrentTime:   r.now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return nil, r.fail(CheckChain, CodeUntrustedIssuer, "a CA certificate of the chain is not valid at this time", nil)
		}
		issuer := fmt.Sprintf("issuer %q", leaf.Issuer.CommonName)
		if selfIssued(leaf) {
			issuer = "the holder, who is the issuer," // whose name has no place in a report
		}
		return nil, r.fail(CheckChain, CodeUntrustedIssuer, fmt.Sprintf("no chain from %s to a configured anchor", issuer), describe(err))
	}
	chains = slices.DeleteFunc(chains, misnamed)
	if len(chains) == 0 {
		return nil, r.fail(CheckChain, CodeUntrustedIssuer, fmt.Sprintf("a certificate of the chain names another key of its issuer %q than the one that signed it", leaf.Issuer.CommonName), nil)
	}
	ours := slices.DeleteFunc(slices.Clone(chains), func(chain []*x509.Certificate) bool {
		return len(chain) > 1 && impostor(chain[1])
	})
	if len(ours) == 0 {
		return nil, r.fail(CheckChain, CodeUntrustedIssuer, fmt.Sprintf("the issuing CA has the name of DVV's %q and is not the published one; if DVV has renewed it, a newer version of this program knows it", leaf.Issuer.CommonName), nil)
	}
	chain := bestChain(ours)
	if chain == nil {
		return nil, r.fail(CheckChain, CodeUntrustedIssuer, "the certificate is itself an anchor", nil)
	}
	for _, c := range chain[1 : len(chain)-1] {
		if !mayLogIn(c) {
			return nil, r.fail(CheckChain, CodeUntrustedIssuer, fmt.Sprintf("issuing CA %q is for other uses (extended key usage)", c.Subject.CommonName), nil)
		}
	}
	if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return !wholeConstraints(c) }) {
		return nil, r.fail(CheckChain, CodeBadCertificate, "the basicConstraints of a certificate of the chain cannot be read as a whole", nil)
	}
	detail := fmt.Sprintf("issued by %q, anchor %q", chain[1].Subject.CommonName, chain[len(chain)-1].Subject.CommonName)
	r.pass(CheckChain, detail)
	if err := strong(chain); err != nil {
		return nil, r.fail(CheckStrength, CodeWeakKey, "not accepted", err)
	}
	r.pass(CheckStrength, keyName(leaf))
	return chain, nil
}

// misnamed tells whether a certificate of a chain names another key than its
// issuer's (RFC 5280 section 4.2.1.1). x509 looks at signatures alone; a CA that
// says two things about itself is not to be believed either.
func misnamed(chain []*x509.Certificate) bool {
	for i, c := range chain[:len(chain)-1] {
		want := chain[i+1].SubjectKeyId
		if len(c.AuthorityKeyId) > 0 && len(want) > 0 && !bytes.Equal(c.AuthorityKeyId, want) {
			return true
		}
	}
	return false
}

// wholeConstraints tells whether basicConstraints hold what their type says and
// nothing else (RFC 5280 section 4.2.1.9). x509 reads over what it does not expect,
// which another program may take for a CA's mark.
func wholeConstraints(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidBasicConstraints) {
			continue
		}
		value, inner := cryptobyte.String(e.Value), cryptobyte.String(nil)
		if !value.ReadASN1(&inner, cbasn1.SEQUENCE) || !value.Empty() ||
			!inner.SkipOptionalASN1(cbasn1.BOOLEAN) || !inner.SkipOptionalASN1(cbasn1.INTEGER) || !inner.Empty() {
			return false
		}
	}
	return true
}

var oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}

// describe keeps what x509 says about a chain, without the leaf's names that
// some of its errors hold.
func describe(err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return nil
	case errors.As(err, &invalid):
		return fmt.Errorf("invalid chain (x509 reason %d)", invalid.Reason)
	case errors.As(err, new(x509.UnhandledCriticalExtension)):
		return errors.New("a critical extension is not understood")
	}
	return errors.New("chain not built")
}

// impostor tells whether a CA has the name of a published issuing CA of DVV
// without being it. Holders are placed by their issuer's name, so with another
// trust anchor beside DVV's, whoever runs that one could else mint citizens.
func impostor(ca *x509.Certificate) bool {
	if _, pinned := fineid.Pinned(ca); pinned {
		return false
	}
	return slices.ContainsFunc(fineid.Pins(), func(p fineid.Pin) bool { return !p.Root && p.CN == ca.Subject.CommonName })
}

// bestChain prefers a chain to a real root over one to an issuing CA that is
// an anchor too, and among equals the shorter one.
func bestChain(chains [][]*x509.Certificate) []*x509.Certificate {
	var best []*x509.Certificate
	for _, chain := range chains {
		switch {
		case len(chain) < 2:
		case best == nil,
			selfIssued(last(chain)) && !selfIssued(last(best)),
			selfIssued(last(chain)) == selfIssued(last(best)) && len(chain) < len(best):
			best = chain
		}
	}
	return best
}

func last(chain []*x509.Certificate) *x509.Certificate { return chain[len(chain)-1] }

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// strong refuses keys and signatures below what the rules for these cards
// allow. x509 refuses SHA-1 by itself; it is said again here because the check
// must not hang on a default of another library. The anchor's own signature
// proves nothing and is not looked at.
func strong(chain []*x509.Certificate) error {
	for i, c := range chain {
		switch key := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < 2048 {
				return fmt.Errorf("an RSA key of %d bits, at least 2048 are needed", key.N.BitLen())
			}
		case *ecdsa.PublicKey:
			if key.Curve.Params().BitSize < 256 {
				return fmt.Errorf("an elliptic curve of %d bits, at least 256 are needed", key.Curve.Params().BitSize)
			}
		case ed25519.PublicKey:
		default:
			return fmt.Errorf("a key of an unknown kind (%v)", c.PublicKeyAlgorithm)
		}
		if i == len(chain)-1 {
			break
		}
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			return fmt.Errorf("a signature made with %v", c.SignatureAlgorithm)
		}
	}
	return nil
}

func keyName(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d, %v", key.N.BitLen(), c.SignatureAlgorithm)
	case *ecdsa.PublicKey:
		return fmt.Sprintf("%s, %v", key.Curve.Params().Name, c.SignatureAlgorithm)
	}
	return c.PublicKeyAlgorithm.String()
}
