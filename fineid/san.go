package fineid

import (
	"crypto/x509"
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
	names, err := otherNames(cert)
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
	if !containsOID(cert.UnhandledCriticalExtensions, oidSubjectAltName) {
		return cert
	}
	names, err := otherNames(cert)
	if err != nil || len(names) == 0 {
		return cert
	}
	for _, name := range names {
		if _, err := name.upn(); err != nil || !name.oid.Equal(oidUPN) {
			return cert
		}
	}
	if count, err := countNames(cert); err != nil || count != len(names) {
		return cert
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

// otherNames lists the otherNames of the subjectAltName.
func otherNames(cert *x509.Certificate) ([]otherName, error) {
	var names []otherName
	err := eachName(cert, func(tag cryptobyte_asn1.Tag, content cryptobyte.String) error {
		if tag != tagOtherName {
			return nil
		}
		var name otherName
		if !content.ReadASN1ObjectIdentifier(&name.oid) ||
			!content.ReadASN1(&name.value, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) ||
			!content.Empty() {
			return fmt.Errorf("otherName: %w", ErrMalformed)
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

func countNames(cert *x509.Certificate) (int, error) {
	count := 0
	err := eachName(cert, func(cryptobyte_asn1.Tag, cryptobyte.String) error {
		count++
		return nil
	})
	return count, err
}

// eachName walks the GeneralNames of the subjectAltName (RFC 5280 4.2.1.6).
func eachName(cert *x509.Certificate, visit func(cryptobyte_asn1.Tag, cryptobyte.String) error) error {
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(oidSubjectAltName) {
			continue
		}
		der := cryptobyte.String(extension.Value)
		var list cryptobyte.String
		if !der.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !der.Empty() {
			return fmt.Errorf("%w: not a list of names", ErrMalformed)
		}
		for !list.Empty() {
			var content cryptobyte.String
			var tag cryptobyte_asn1.Tag
			if !list.ReadAnyASN1(&content, &tag) {
				return fmt.Errorf("%w: truncated name", ErrMalformed)
			}
			if err := visit(tag, content); err != nil {
				return err
			}
		}
	}
	return nil
}
