package fineid

import (
	"crypto/x509"
	"fmt"
	"slices"
)

// Class says to what kind of holder a certificate was issued. It follows from
// the issuing CA, never from the subject.
type Class int

// The classes of FINeID certificates.
const (
	// Unknown is any issuer that the Table does not place, and issuers of
	// certificates for systems.
	Unknown Class = iota
	// Citizen is the identity card; its serialNumber is a SATU.
	Citizen
	// Organisation is an organisation card; its serialNumber is no SATU.
	Organisation
	// SocialHealthCare is a card of social welfare and health care.
	SocialHealthCare
	// Temporary is a spare card with a short-lived certificate.
	Temporary
)

var classNames = []string{"unknown", "citizen", "organisation", "social-health-care", "temporary"}

// String gives the class's name as used in configuration files.
func (c Class) String() string { return nameOf(classNames, int(c)) }

// MarshalText gives the same as String.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a name that String gives.
func (c *Class) UnmarshalText(text []byte) error {
	i, err := indexOf("class", classNames, string(text))
	if err != nil {
		return err
	}
	*c = Class(i)
	return nil
}

// Purpose says what a certificate's key is for, by its keyUsage.
type Purpose int

// The purposes of a card's certificates.
const (
	// PurposeOther is everything that is clearly neither of the two below,
	// such as seals (digitalSignature with nonRepudiation) or no keyUsage.
	PurposeOther Purpose = iota
	// Authentication has digitalSignature and not nonRepudiation: the key
	// behind the basic PIN (PIN1), the only one to log in with.
	Authentication
	// Signature has nonRepudiation and not digitalSignature: the key behind
	// the signature PIN (PIN2), for documents and never for a login.
	Signature
)

var purposeNames = []string{"other", "authentication", "signature"}

// String gives the purpose's name as used in configuration files.
func (p Purpose) String() string { return nameOf(purposeNames, int(p)) }

// MarshalText gives the same as String.
func (p Purpose) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name that String gives.
func (p *Purpose) UnmarshalText(text []byte) error {
	i, err := indexOf("purpose", purposeNames, string(text))
	if err != nil {
		return err
	}
	*p = Purpose(i)
	return nil
}

// purposeOf reads the keyUsage. Only these two bits decide: RSA cards add
// keyEncipherment and dataEncipherment, P-384 cards keyAgreement, so an exact
// value would lock out one kind or the other.
func purposeOf(cert *x509.Certificate) Purpose {
	signs := cert.KeyUsage&x509.KeyUsageDigitalSignature != 0
	commits := cert.KeyUsage&x509.KeyUsageContentCommitment != 0
	switch {
	case signs && !commits:
		return Authentication
	case commits && !signs:
		return Signature
	}
	return PurposeOther
}

func nameOf(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return names[0]
	}
	return names[i]
}

func indexOf(what string, names []string, name string) (int, error) {
	i := slices.Index(names, name)
	if i < 0 {
		return 0, fmt.Errorf("unknown %s %q: use one of %q", what, name, names)
	}
	return i, nil
}
