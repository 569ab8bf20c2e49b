package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// peer is who is at the other end of a connection, from the kernel and the TLS
// handshake, never from anything that the peer has written in HTTP.
type peer struct {
	address  netip.Addr // invalid on a Unix socket
	uid      uint32
	hasUID   bool
	leaf     [32]byte // SHA-256 of its TLS client certificate
	hasLeaf  bool
	recorded bool // address and uid come from ConnContext
}

type peerKey struct{}

// ConnContext is for http.Server.ConnContext: it notes who has connected. A
// header is believed only on connections that it has seen, because
// http.Request.RemoteAddr may have been rewritten on the way to Read.
func (rd *Reader) ConnContext(ctx context.Context, c net.Conn) context.Context {
	for {
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = wrapped.NetConn()
	}
	p := peer{recorded: true}
	switch c := c.(type) {
	case *net.UnixConn:
		if uid, err := peerUID(c); err == nil {
			p.uid, p.hasUID = uid, true
		}
	default:
		if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			p.address = a.Addr().Unmap()
		}
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(r *http.Request) peer {
	p, ok := r.Context().Value(peerKey{}).(peer)
	if !ok {
		if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			p.address = a.Addr().Unmap()
		}
	}
	if r.TLS != nil && r.TLS.HandshakeComplete && len(r.TLS.PeerCertificates) > 0 {
		p.leaf, p.hasLeaf = sha256.Sum256(r.TLS.PeerCertificates[0].Raw), true
	}
	return p
}

// trusted is the parsed list of proxies.
type trusted struct {
	uids     map[uint32]bool
	leaves   map[[32]byte]bool
	networks []netip.Prefix
	warnings []string
}

func (t trusted) has(p peer) bool {
	if p.hasUID && t.uids[p.uid] || p.hasLeaf && t.leaves[p.leaf] {
		return true
	}
	if !p.recorded || !p.address.IsValid() {
		return false
	}
	for _, network := range t.networks {
		if network.Contains(p.address.WithZone("")) {
			return true
		}
	}
	return false
}

func parseTrusted(from []string) (trusted, error) {
	t := trusted{uids: map[uint32]bool{}, leaves: map[[32]byte]bool{}}
	for _, entry := range from {
		if err := t.add(strings.TrimSpace(entry)); err != nil {
			return trusted{}, err
		}
	}
	if len(from) == 0 {
		return trusted{}, errors.New(`evidence: a header format is set but no proxy is trusted; list it in from, such as "unix:uid=33"`)
	}
	return t, nil
}

func (t *trusted) add(entry string) error {
	if text, ok := strings.CutPrefix(entry, "unix:uid="); ok {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("evidence: trusted proxy %q: %q is not a numeric user id", entry, text)
		}
		if !peerUIDKnown {
			return fmt.Errorf("evidence: trusted proxy %q: this system does not tell the user of a Unix socket's peer; trust its certificate (mtls) instead", entry)
		}
		t.uids[uint32(uid)] = true
		return nil
	}
	if text, ok := strings.CutPrefix(entry, "mtls:"); ok {
		sum, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		if err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("evidence: trusted proxy %q: give the SHA-256 of the proxy's certificate as 64 hexadecimal digits", entry)
		}
		t.leaves[[32]byte(sum)] = true
		return nil
	}
	network, err := netip.ParsePrefix(entry)
	if err != nil {
		return fmt.Errorf(`evidence: trusted proxy %q is not understood; use "unix:uid=33", "mtls:SHA256" or a network such as "10.1.2.0/24"`, entry)
	}
	if network.Bits() < minBits {
		return fmt.Errorf("evidence: trusted proxy %q is a large part of the Internet; name the proxy's own network", entry)
	}
	if network.Addr().Is4In6() {
		return fmt.Errorf("evidence: trusted proxy %q: write IPv4 networks in IPv4 form", entry)
	}
	if network.Masked().Overlaps(loopback4) || network.Masked().Overlaps(loopback6) {
		t.warnings = append(t.warnings, fmt.Sprintf("trusted proxy %q holds loopback addresses: every user and program of this machine can speak for any client; use a Unix socket and unix:uid= instead", entry))
	}
	t.networks = append(t.networks, network.Masked())
	return nil
}

// minBits is the shortest prefix of a trusted network: no private one is larger
// than fc00::/7 (RFC 4193), and two halves of the Internet are the whole of it.
const minBits = 7

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)
