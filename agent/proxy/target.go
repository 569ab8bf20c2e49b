package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// target is a host and a port in their one form: what two of them say is the
// same exactly when they are equal.
type target struct {
	host string // lower case, no final dot; an IP address without brackets
	port string // decimal, 1 to 65535
}

var errTarget = errors.New("not a host and a port")

// parseConnect reads the authority of a CONNECT request (RFC 9110, section
// 9.3.6): a host and always a port.
func parseConnect(s string) (target, error) { return parseAuthority(s, "") }

// parseAuthority reads host[:port]. Only what can be a DNS name or an IP
// address passes, so that a host can be put into a header, a log or a script.
func parseAuthority(s, defaultPort string) (target, error) {
	host, port := s, defaultPort
	if i := strings.LastIndexByte(s, ':'); i >= 0 && i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return target{}, errTarget
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		if !ok || err != nil || !ip.Is6() || ip.Zone() != "" {
			return target{}, errTarget
		}
		return target{ip.Unmap().String(), port}, nil
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if !isName(host) {
		return target{}, errTarget
	}
	return target{host, port}, nil
}

// isName is wider than RFC 1123: names with underscores are in use.
func isName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// String is host:port.
func (t target) String() string { return net.JoinHostPort(t.host, t.port) }

// authority is the form for the URL of a scheme: without its own port.
func (t target) authority(schemePort string) string {
	if t.port != schemePort {
		return t.String()
	}
	return strings.TrimSuffix(t.String(), ":"+t.port)
}

func (t target) isIP() bool {
	_, err := netip.ParseAddr(t.host)
	return err == nil
}

// isLocalName tells names and addresses that lead to this machine without any
// resolver (RFC 6761, section 6.3).
func (t target) isLocalName() bool {
	if ip, err := netip.ParseAddr(t.host); err == nil {
		return ip.IsLoopback() || ip.IsUnspecified()
	}
	return t.host == "localhost" || strings.HasSuffix(t.host, ".localhost")
}
