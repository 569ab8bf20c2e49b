package roots

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// normalise gives the one form of a listed name: lower case, without a port,
// a final dot, or the brackets of an IPv6 address.
func normalise(name string) (string, error) {
	host := name
	if h, _, err := net.SplitHostPort(name); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), nil
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	domain, wildcard := strings.CutPrefix(host, "*.")
	if !isDomain(domain) {
		return "", fmt.Errorf("%w: %.80q", ErrName, name)
	}
	if wildcard && !strings.Contains(domain, ".") {
		return "", fmt.Errorf("%w: %.80q would stand for a whole top-level domain", ErrName, name)
	}
	return host, nil
}

// isDomain checks the letters-digits-hyphen form of RFC 1123, section 2.1. A
// last label of digits alone would be an address to some programs.
func isDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
