package fineid

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
)

// personalTypes are the attribute types of persons (FINEID S2, RFC 4519) for
// which pkix.Name.String has no name; it would print their values as
// hexadecimal DER.
var personalTypes = []struct {
	oid  asn1.ObjectIdentifier
	name string
}{
	{asn1.ObjectIdentifier{2, 5, 4, 4}, "SN"},
	{asn1.ObjectIdentifier{2, 5, 4, 12}, "title"},
	{asn1.ObjectIdentifier{2, 5, 4, 42}, "GN"},
	{asn1.ObjectIdentifier{2, 5, 4, 65}, "pseudonym"},
}

// DistinguishedName writes a subject or an issuer by RFC 4514 for people to
// read. Nothing may be decided by it: see [Identity] for that.
func DistinguishedName(name pkix.Name) string {
	var parts []string
	for _, attribute := range slices.Backward(name.Names) {
		part := pkix.RDNSequence{{attribute}}.String()
		for _, t := range personalTypes {
			if attribute.Type.Equal(t.oid) {
				// As a common name, only to have the value escaped.
				attribute.Type = asn1.ObjectIdentifier{2, 5, 4, 3}
				part = t.name + strings.TrimPrefix(pkix.RDNSequence{{attribute}}.String(), "CN")
				break
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}
