package config

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Consent says whether a program's first use of a card at a host is asked.
type Consent string

// The values of consent.
const (
	ConsentAsk    Consent = "ask"
	ConsentAlways Consent = "always"
)

// CardAuto lets the rules choose the certificate.
const CardAuto = "auto"

// maxRoots bounds a tls_roots file, in bytes.
const maxRoots = 4 << 20

// Host is a listed host: one that the proxy intercepts. Make it with NewHost.
type Host struct {
	// Name is a DNS name in lower-case ASCII, or "*." and a name: exactly one
	// label stands for the star, as in certificates (RFC 6125 section 6.4.3).
	Name string
	// Port is a decimal port, "" for every port.
	Port    string
	Card    string // CardAuto or a certificate's SHA-256 in lower-case hex
	Consent Consent
	// Address is where to connect instead of asking DNS, host or host:port; ""
	// for DNS.
	Address string
	// TLSRoots is the absolute path of the extra trust anchors, "" for none.
	TLSRoots string
	// Roots are the system's trust anchors and those of TLSRoots; nil for the
	// system's alone.
	Roots *x509.CertPool
	// Managed tells that the host stands in managed.toml.
	Managed bool
}

// fileHost is a [[host]] table.
type fileHost struct {
	Name     string `toml:"name"`
	Card     string `toml:"card,omitempty"`
	Consent  string `toml:"consent,omitempty"`
	Address  string `toml:"address,omitempty"`
	TLSRoots string `toml:"tls_roots,omitempty"`
}

// NewHost checks what describes a host and reads its tlsRoots file. Empty
// strings mean the defaults; a relative tlsRoots is relative to dir.
func NewHost(dir, name, card, consent, address, tlsRoots string) (Host, error) {
	h := Host{Card: CardAuto, Consent: ConsentAsk, Address: address}
	var err error
	if h.Name, h.Port, err = ParseName(name); err != nil {
		return Host{}, err
	}
	if card != "" && card != CardAuto {
		h.Card = strings.ToLower(strings.ReplaceAll(card, ":", "")) // as openssl x509 -fingerprint prints it
		if raw, err := hex.DecodeString(h.Card); err != nil || len(raw) != 32 {
			return Host{}, fmt.Errorf("host %s: card %q: want \"auto\" or a certificate's SHA-256 (64 hexadecimal digits)", name, card)
		}
	}
	switch Consent(consent) {
	case "", ConsentAsk:
	case ConsentAlways:
		h.Consent = ConsentAlways
	default:
		return Host{}, fmt.Errorf(`host %s: consent %q: want "ask" or "always"`, name, consent)
	}
	if address != "" && !validAddress(address) {
		return Host{}, fmt.Errorf("host %s: address %q: want an IP address or a name, with or without :PORT", name, address)
	}
	if tlsRoots != "" {
		if !filepath.IsAbs(tlsRoots) {
			tlsRoots = filepath.Join(dir, tlsRoots)
		}
		h.TLSRoots = tlsRoots
		if h.Roots, err = readRoots(tlsRoots); err != nil {
			return Host{}, fmt.Errorf("host %s: tls_roots: %w", name, err)
		}
	}
	return h, nil
}

// String is the name with the port, as it is written in the files.
func (h Host) String() string {
	if h.Port == "" {
		return h.Name
	}
	return h.Name + ":" + h.Port
}

// Equal tells whether two entries of the same name say the same; in which file
// they stand makes no difference.
func (h Host) Equal(o Host) bool {
	same := h.Roots == nil && o.Roots == nil || h.Roots != nil && o.Roots != nil && h.Roots.Equal(o.Roots)
	h.Roots, o.Roots, h.Managed, o.Managed = nil, nil, false, false
	return same && h == o
}

// Dial is where to connect for a request to host and port.
func (h Host) Dial(host, port string) string {
	if h.Address == "" {
		return net.JoinHostPort(host, port)
	}
	if name, p, err := net.SplitHostPort(h.Address); err == nil {
		return net.JoinHostPort(name, p)
	}
	return net.JoinHostPort(strings.Trim(h.Address, "[]"), port)
}

// Match reports whether the host is listed by this entry, and how closely: 0
// not at all, more is closer. A full name is closer than a star, and a port
// closer than none.
func (h Host) Match(host, port string) int {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || (h.Port != "" && h.Port != port) {
		return 0
	}
	score := 0
	if suffix, star := strings.CutPrefix(h.Name, "*"); star {
		label, ok := strings.CutSuffix(host, suffix)
		if !ok || label == "" || strings.Contains(label, ".") {
			return 0
		}
		score = 1
	} else if host == h.Name {
		score = 3
	} else {
		return 0
	}
	if h.Port != "" {
		score++
	}
	return score
}

// ParseName splits a host as the person writes it, "NAME", "*.NAME" or either
// with ":PORT", and gives the name in lower-case ASCII (IDNA).
func ParseName(s string) (name, port string, err error) {
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("host name %q %s", s, why)
	}
	if strings.Contains(s, "/") {
		return bad("must be a name, not a URL")
	}
	name = s
	if head, tail, ok := strings.Cut(s, ":"); ok && !strings.Contains(tail, ":") {
		n, err := strconv.ParseUint(tail, 10, 16)
		if err != nil || n == 0 {
			return bad("has no valid port after the colon")
		}
		name, port = head, strconv.FormatUint(n, 10)
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return bad("is an IP address; local roots are for names: list a name and set its address")
	}
	rest, star := strings.CutPrefix(name, "*.")
	rest, err = idna.Lookup.ToASCII(strings.TrimSuffix(rest, "."))
	if err != nil || rest == "" || len(rest) > 251 {
		return bad("is not a DNS name")
	}
	if last := rest[strings.LastIndexByte(rest, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return bad("is not a DNS name") // 1.2.3 and the like: URL parsers take them for IP addresses
	}
	if star {
		if !strings.Contains(rest, ".") {
			return bad("covers too much: at least two labels must follow the star")
		}
		rest = "*." + rest
	}
	return rest, port, nil
}

func validAddress(s string) bool {
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	_, err := idna.Lookup.ToASCII(host)
	return err == nil && host != "" && !strings.ContainsAny(host, "/@:")
}

// readRoots reads extra trust anchors. An empty set would silently trust the
// system's anchors alone, so it is an error.
func readRoots(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxRoots {
		return nil, errors.Join(err, fmt.Errorf("%s is not a PEM file of at most %d MiB", path, maxRoots>>20))
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxRoots))
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's trust anchors: %w", err)
	}
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return pool, nil
}
