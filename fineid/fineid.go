// Package fineid reads what a certificate of the Finnish identity card family
// (FINeID, issued by DVV) says: whose it is, of what class, and for what.
//
// It works on certificates that somebody else has already verified. It never
// checks a signature, a validity time or a revocation, opens no file and no
// connection, and keeps no state. The SHA-256 pins of the published issuing
// CAs are here too (Pins), for those who build chains.
//
// Names are taken from the parsed subject by attribute type, never from a DN
// string. What is ambiguous is refused: an identity attribute that occurs
// twice, control characters, a citizen whose serialNumber is no SATU.
package fineid

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
)

// Reasons for which Parse refuses a certificate, besides ErrSATU. The errors
// name the attribute and never its value.
var (
	// ErrAmbiguous: an identity attribute occurs more than once.
	ErrAmbiguous = errors.New("attribute occurs more than once")
	// ErrMalformed: a value of a wrong type, too long, or with characters
	// that have no place in it.
	ErrMalformed = errors.New("malformed value")
	// ErrNotPersonal: a CA certificate, or none at all.
	ErrNotPersonal = errors.New("not a holder's certificate")
)

// Identity is what a certificate says about its holder. Absent attributes are
// empty. It proves nothing until the certificate itself has been verified.
type Identity struct {
	Class   Class
	Purpose Purpose
	// Family is the issuer family of the Table, or "x509-…" made from the
	// issuer's name for an issuer that the Table does not know. It is never
	// empty; Family and SerialNumber together are the stable key of a holder.
	Family string
	// SerialNumber is the subject's serialNumber attribute (2.5.4.5), not the
	// certificate's serial number. A citizen's is always present.
	SerialNumber string
	// SATU is set for citizens only: other classes number differently.
	SATU SATU

	GivenName, Surname, CommonName, Country, Organization, Title string
	// Pseudonym (2.5.4.65) holds a professional's registration number.
	Pseudonym string
	// Email is the first rfc822Name of the subjectAltName. Nobody verified it.
	Email string
	// UPN is the Microsoft user principal name of the subjectAltName.
	UPN string

	OrganizationalUnits []string
	// Policies holds the certificate policy OIDs, dotted.
	Policies []string
	// Issuer is the issuing CA's common name.
	Issuer string
}

// LogValue keeps names and identifiers out of logs.
func (id Identity) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("class", id.Class.String()),
		slog.String("purpose", id.Purpose.String()),
		slog.String("family", id.Family),
	)
}

// Parse reads a certificate with the table of DVV. It is safe for concurrent
// use and does not keep cert.
func Parse(cert *x509.Certificate) (Identity, error) { return DVV().Parse(cert) }

// Parse reads a certificate that x509.ParseCertificate gave. Certificates of
// unknown issuers are read too (Class Unknown) and need no serialNumber; that
// of a citizen must be a SATU. Errors wrap ErrAmbiguous, ErrMalformed,
// ErrNotPersonal or ErrSATU.
func (t *Table) Parse(cert *x509.Certificate) (Identity, error) {
	if cert == nil || len(cert.Raw) == 0 {
		return Identity{}, fmt.Errorf("read certificate: %w: it was not parsed from DER", ErrNotPersonal)
	}
	if cert.IsCA {
		return Identity{}, fmt.Errorf("read certificate: %w: it is a CA certificate", ErrNotPersonal)
	}
	id := Identity{Purpose: purposeOf(cert)}
	for _, policy := range cert.Policies {
		id.Policies = append(id.Policies, policy.String())
	}
	id.Issuer, _ = issuerName(cert)
	id.Class, id.Family = t.place(cert, id.Policies)
	if len(cert.RawSubject) > maxSubject {
		return Identity{}, fmt.Errorf("read subject: %w: %d bytes, more than the %d allowed", ErrMalformed, len(cert.RawSubject), maxSubject)
	}
	if !wellFormed(cert.RawSubject) {
		return Identity{}, fmt.Errorf("read subject: %w: it is no Name, or something follows a value", ErrMalformed)
	}
	if err := readSubject(cert.Subject.Names, &id); err != nil {
		return Identity{}, fmt.Errorf("read subject: %w", err)
	}
	if err := readAlternativeNames(cert, &id); err != nil {
		return Identity{}, fmt.Errorf("read subjectAltName: %w", err)
	}
	return id.withSATU()
}

// ParseSubject reads the attributes of a subject alone, where somebody else has
// seen the certificate and says that a CA of this family has issued it. Purpose,
// Issuer and whatever else stands elsewhere in a certificate stay empty. The
// subject must have a serialNumber, a citizen's a SATU. Errors are those of Parse,
// and one for a family that the table does not have.
func (t *Table) ParseSubject(family string, names []pkix.AttributeTypeAndValue) (Identity, error) {
	class, err := t.ClassOf(family)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Class: class, Family: family}
	if err := readSubject(names, &id); err != nil {
		return Identity{}, fmt.Errorf("read subject: %w", err)
	}
	if id.SerialNumber == "" {
		return Identity{}, fmt.Errorf("read subject: %w: no serialNumber", ErrMalformed)
	}
	return id.withSATU()
}

// withSATU reads the serialNumber of citizens.
func (id Identity) withSATU() (Identity, error) {
	if id.Class != Citizen {
		return id, nil
	}
	satu, err := ParseSATU(id.SerialNumber)
	if err != nil {
		return Identity{}, fmt.Errorf("read serialNumber of a citizen certificate: %w", err)
	}
	id.SATU = satu
	return id, nil
}
