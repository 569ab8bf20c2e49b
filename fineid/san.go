package fineid

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidUPN marks a Microsoft user principal name (MS-WCCE 2.2.2.7.7.4);
	// FINEID S2 allows it in authentication certificates.
	oidUPN = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
)

// tagOtherName is the [0] IMPLICIT otherName choice of a GeneralName.
var tagOtherName = cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()

// readAlternativeNames fills Email and UPN.
func readAlternativeNames(cert *x509.Certificate, id *Identity) error {
	if len(cert.EmailAddresses) > 0 {
		email, err := text(cert.EmailAddresses[0])
		if err != nil {
			return fmt.Errorf("rfc822Name: %w", err)
		}
		id.Email = email
	}
	names, _, err := otherNames(cert)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !name.oid.Equal(oidUPN) {
			continue
		}
		if id.UPN != "" {
			return fmt.Errorf("user principal name: %w", ErrAmbiguous)
		}
		if id.UPN, err = name.upn(); err != nil {
			return fmt.Errorf("user principal name: %w", err)
		}
	}
	return nil
}

// Understood gives cert as it must be handed to x509's Verify. Where a
// critical subjectAltName holds nothing but user principal names, x509 does
// not know them and calls the extension unhandled, which makes Verify fail;
// this package does know them, so the result is then a shallow copy of cert
// without that mark. In all other cases it is cert itself.
func Understood(cert *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(cert.UnhandledCriticalExtensions, oidSubjectAltName.Equal) {
		return cert
	}
	names, total, err := otherNames(cert)
	if err != nil || total == 0 || len(names) != total {
		return cert
	}
	for _, name := range names {
		if _, err := name.upn(); err != nil || !name.oid.Equal(oidUPN) {
			return cert
		}
	}
	understood := *cert
	understood.UnhandledCriticalExtensions = slices.DeleteFunc(
		slices.Clone(cert.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
	return &understood
}

// otherName is a name of the form that x509 does not read.
type otherName struct {
	oid   asn1.ObjectIdentifier
	value cryptobyte.String
}

// upn reads the value of a user principal name, a UTF8String.
func (n otherName) upn() (string, error) {
	value := n.value
	var s cryptobyte.String
	if !value.ReadASN1(&s, cryptobyte_asn1.UTF8String) || !value.Empty() {
		return "", fmt.Errorf("%w: not one UTF8String", ErrMalformed)
	}
	return text(string(s))
}

// otherNames lists the otherNames among the GeneralNames of the
// subjectAltName (RFC 5280 4.2.1.6), and counts all names there.
func otherNames(cert *x509.Certificate) (names []otherName, total int, err error) {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
	if i < 0 {
		return nil, 0, nil
	}
	der := cryptobyte.String(cert.Extensions[i].Value)
	var list cryptobyte.String
	if !der.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !der.Empty() {
		return nil, 0, fmt.Errorf("%w: not a list of names", ErrMalformed)
	}
	for !list.Empty() {
		var content cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !list.ReadAnyASN1(&content, &tag) {
			return nil, 0, fmt.Errorf("%w: truncated name", ErrMalformed)
		}
		total++
		if tag != tagOtherName {
			continue
		}
		var name otherName
		if !content.ReadASN1ObjectIdentifier(&name.oid) ||
			!content.ReadASN1(&name.value, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) ||
			!content.Empty() {
			return nil, 0, fmt.Errorf("otherName: %w", ErrMalformed)
		}
		names = append(names, name)
	}
	return names, total, nil
}
