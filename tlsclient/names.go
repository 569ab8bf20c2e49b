package tlsclient

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
)

// nameSet is a server's list of acceptable CAs.
type nameSet struct {
	list      []string        // for people
	canonical map[string]bool // as canonicalName returns them
}

func newNameSet(ders [][]byte) nameSet {
	n := nameSet{canonical: make(map[string]bool)}
	for _, der := range ders {
		n.canonical[canonicalName(der)] = true
		n.list = append(n.list, readableName(der))
	}
	return n
}

// issued reports whether an element of chain was issued under a listed name.
func (n nameSet) issued(chain []*x509.Certificate) bool {
	for _, c := range chain {
		if n.canonical[canonicalName(c.RawIssuer)] {
			return true
		}
	}
	return false
}

// canonicalName makes names comparable as RFC 5280 section 7.1 wants, near
// enough: without regard to the string type, to case and to runs of spaces. A
// server's list may spell a CA in UTF8String that its certificates spell in
// PrintableString. What cannot be parsed is compared as it is.
func canonicalName(der []byte) string {
	rdns, ok := parseName(der)
	if !ok {
		return "der:" + string(der)
	}
	var b strings.Builder
	for _, rdn := range rdns {
		for _, a := range rdn {
			text, ok := a.Value.(string)
			if !ok {
				return "der:" + string(der)
			}
			value := strings.ToLower(strings.Join(strings.Fields(text), " "))
			fmt.Fprintf(&b, "%s=%d:%s,", a.Type, len(value), value)
		}
		b.WriteByte(';')
	}
	return b.String()
}

// readableName writes a name as RFC 4514 does, or in hexadecimal if it is none.
func readableName(der []byte) string {
	rdns, ok := parseName(der)
	if !ok {
		return "unreadable name " + hex.EncodeToString(der[:min(len(der), 64)])
	}
	return rdns.String()
}

func parseName(der []byte) (rdns pkix.RDNSequence, ok bool) {
	rest, err := asn1.Unmarshal(der, &rdns)
	return rdns, err == nil && len(rest) == 0
}
