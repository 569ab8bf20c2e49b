package roots

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// create makes a root and its leaf. The root's key lives in this function only.
func create(host string, now time.Time) (*Root, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the local root of %s: %w", host, err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the local root of %s: %w", host, err)
	}
	rootTemplate, leafTemplate := templates(host, now)
	rootDER, err := x509.CreateCertificate(rand.Reader, rootTemplate, rootTemplate, rootKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("cannot make the local root of %s: %w", host, err)
	}
	issuer, err := x509.ParseCertificate(rootDER)
	if err != nil {
		return nil, fmt.Errorf("cannot make the local root of %s: %w", host, err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leafTemplate, issuer, leafKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("cannot make the local leaf of %s: %w", host, err)
	}
	return assemble(host, rootDER, leafDER, leafKey)
}

// templates gives what the two certificates say.
func templates(host string, now time.Time) (root, leaf *x509.Certificate) {
	// A clock that is set back a little must not turn the leaf invalid. The
	// last second counts as valid (RFC 5280, section 4.1.2.5).
	from := now.Add(-time.Hour).UTC().Truncate(time.Second)
	to := from.Add(Lifetime - time.Second)
	root = &x509.Certificate{
		Subject:               pkix.Name{CommonName: rootName(host), Organization: []string{organization}},
		NotBefore:             from,
		NotAfter:              to,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	constrain(root, host)
	leaf = &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, OrganizationalUnit: []string{"Local proxy"}},
		NotBefore:             from,
		NotAfter:              to,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	return root, leaf
}

// NamePrefix begins the name of every local root.
const NamePrefix = "Kortti "

const organization = "Kortti"

// IsLocal tells a local root, this one's or another agent's, from all other
// CAs. Local roots are for programs on this machine: a host that shows one is
// not the host, even where a trust store holds the root.
func IsLocal(ca *x509.Certificate) bool {
	return strings.HasPrefix(ca.Subject.CommonName, NamePrefix) && slices.Equal(ca.Subject.Organization, []string{organization})
}

// HostOf is the listed host that a local root was made for, by its constraint;
// "unknown" of a root that carries the name of one but no such constraint.
func HostOf(root *x509.Certificate) string {
	host := ""
	switch {
	case len(root.PermittedDNSDomains) == 1:
		host = root.PermittedDNSDomains[0]
		if strings.HasPrefix(root.Subject.CommonName, NamePrefix+"*.") {
			host = "*." + host
		}
	case len(root.PermittedIPRanges) == 1:
		host = root.PermittedIPRanges[0].IP.String()
	}
	if own, err := normalise(host); err == nil && own == host {
		return host
	}
	return "unknown"
}

// rootName is unique, because trust stores find and remove roots by it, and
// within 64 characters (ub-common-name of RFC 5280, appendix A.1).
func rootName(host string) string {
	unique := make([]byte, 6)
	rand.Read(unique) // never returns an error
	return fmt.Sprintf("%s%.44s %s", NamePrefix, host, hex.EncodeToString(unique))
}

// constrain limits the root to the host (RFC 5280, section 4.2.1.10). Names of
// a kind that is not mentioned are free, so the other kind that a TLS client
// looks at is shut out as a whole. A dNSName constraint covers subdomains too;
// there is no exact one.
func constrain(root *x509.Certificate, host string) {
	root.PermittedDNSDomainsCritical = true
	if ip, err := netip.ParseAddr(host); err == nil {
		bits := ip.BitLen()
		root.PermittedIPRanges = []*net.IPNet{{IP: ip.AsSlice(), Mask: net.CIDRMask(bits, bits)}}
		root.ExcludedDNSDomains = []string{""}
		return
	}
	domain := host
	if len(host) > 2 && host[:2] == "*." {
		domain = host[2:]
	}
	root.PermittedDNSDomains = []string{domain}
	root.ExcludedIPRanges = []*net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

// assemble puts a Root together and proves that it works: the leaf chains to
// the root, within its constraints, for this host and with this key.
func assemble(host string, rootDER, leafDER []byte, key crypto.Signer) (*Root, error) {
	root, err := x509.ParseCertificate(rootDER)
	if err != nil {
		return nil, fmt.Errorf("%w: root of %s: %w", ErrCorrupt, host, err)
	}
	leaf, err := x509.ParseCertificate(leafDER)
	if err != nil {
		return nil, fmt.Errorf("%w: leaf of %s: %w", ErrCorrupt, host, err)
	}
	if public, ok := key.Public().(*ecdsa.PublicKey); !ok || !public.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("%w: the key of %s is not its leaf's", ErrCorrupt, host)
	}
	if names := append(leaf.DNSNames, ipStrings(leaf.IPAddresses)...); len(names) != 1 || names[0] != host {
		return nil, fmt.Errorf("%w: the leaf of %s is not for that name alone", ErrCorrupt, host)
	}
	if !root.PermittedDNSDomainsCritical || len(root.PermittedDNSDomains)+len(root.PermittedIPRanges) != 1 {
		return nil, fmt.Errorf("%w: the root of %s is not constrained to it", ErrCorrupt, host)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	// The time is the leaf's own: one that has ended is renewed, not damaged.
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: leaf.NotBefore}); err != nil {
		return nil, fmt.Errorf("%w: the leaf of %s is not its root's: %w", ErrCorrupt, host, err)
	}
	return &Root{
		Host:        host,
		Certificate: root,
		Leaf:        tls.Certificate{Certificate: [][]byte{leafDER, rootDER}, PrivateKey: key, Leaf: leaf},
	}, nil
}

func ipStrings(ips []net.IP) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}
