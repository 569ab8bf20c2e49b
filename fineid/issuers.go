package fineid

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
)

// Issuer is one row of a Table: it places the certificates of an issuing CA.
type Issuer struct {
	// CN is the issuing CA's common name, compared exactly.
	CN string
	// Org is the issuing CA's organizationName; "" fits any.
	Org string
	// Policy is a certificate policy OID (dotted) that the certificate must
	// carry for the row to fit; "" fits any.
	Policy string
	// Class is the class of the certificates.
	Class Class
	// Family names the issuing CAs that number the same holders: a person
	// keeps the same serialNumber within a family when the CA changes its
	// generation. It must not hold a slash.
	Family string
}

// Table places certificates by their issuing CA. It is immutable and safe for
// concurrent use.
type Table struct {
	rows []Issuer
}

// The organisation names of the agency and its predecessor.
const (
	orgDVV     = "Digi- ja vaestotietovirasto CA"
	orgVRK     = "Vaestorekisterikeskus CA"
	orgDVVTest = "Digi- ja vaestotietovirasto TEST"
	orgVRKTest = "Vaestorekisterikeskus TEST"
)

// DVV gives the published issuing CAs of the Digital and Population Data
// Services Agency (DVV, before 2020 VRK) from the Finnish trusted list, and
// the issuers of its test cards, which are families of their own.
//
// The CAs of professional and of temporary cards are not on that list, and
// their present names could not be confirmed: add them with With.
func DVV() *Table {
	return &Table{rows: []Issuer{
		{CN: "DVV Citizen Certificates - G4E", Org: orgDVV, Class: Citizen, Family: "dvv-citizen"},
		{CN: "DVV Citizen Certificates - G4R", Org: orgDVV, Class: Citizen, Family: "dvv-citizen"},
		{CN: "VRK Gov. CA for Citizen Certificates - G3", Org: orgVRK, Class: Citizen, Family: "dvv-citizen"},

		{CN: "DVV Organisational Certificates - G4E", Org: orgDVV, Class: Organisation, Family: "dvv-organisation"},
		{CN: "DVV Organisational Certificates - G4R", Org: orgDVV, Class: Organisation, Family: "dvv-organisation"},
		{CN: "VRK CA for Organisational Certificates - G3", Org: orgVRK, Class: Organisation, Family: "dvv-organisation"},

		// Certificates of systems: no class of card holders.
		{CN: "DVV Service Certificates - G5E", Org: orgDVV, Class: Unknown, Family: "dvv-service"},
		{CN: "DVV Service Certificates - G5R", Org: orgDVV, Class: Unknown, Family: "dvv-service"},
		{CN: "VRK CA for Service Providers - G4", Org: orgVRK, Class: Unknown, Family: "dvv-service"},
		{CN: "DVV Social Welfare and Healthcare Service Certificates - G3E", Org: orgDVV, Class: Unknown, Family: "dvv-social-health-care-service"},
		{CN: "DVV Social Welfare and Healthcare Service Certificates - G3R", Org: orgDVV, Class: Unknown, Family: "dvv-social-health-care-service"},
		{CN: "VRK CA for Social Welfare and Healthcare Service Providers - G2", Org: orgVRK, Class: Unknown, Family: "dvv-social-health-care-service"},

		{CN: "DVV TEST Certificates - G5E", Org: orgDVVTest, Class: Citizen, Family: "dvv-test-citizen"},
		{CN: "DVV TEST Certificates - G5R", Org: orgDVVTest, Class: Citizen, Family: "dvv-test-citizen"},
		{CN: "VRK CA for Test Purposes - G3", Org: orgVRKTest, Class: Citizen, Family: "dvv-test-citizen"},
		{CN: "VRK TEST CA for Healthcare Professionals", Org: orgVRKTest, Class: SocialHealthCare, Family: "dvv-test-social-health-care"},
	}}
}

// With gives a new table in which the given rows come before those of t; of
// several rows that fit a certificate the first one counts.
func (t *Table) With(rows ...Issuer) *Table {
	return &Table{rows: slices.Concat(rows, t.rows)}
}

// ClassOf tells the class of the holders of a family. An error means that no
// row has the family.
func (t *Table) ClassOf(family string) (Class, error) {
	i := slices.IndexFunc(t.rows, func(row Issuer) bool { return row.Family == family })
	if i < 0 {
		return Unknown, fmt.Errorf("unknown issuer family %q", family)
	}
	return t.rows[i].Class, nil
}

// place finds the row for a certificate. An issuer without one gets a family
// made from its name, so that equal serial numbers of two unknown CAs never
// look like one holder.
func (t *Table) place(cert *x509.Certificate, policies []string) (Class, string) {
	cn, org := issuerName(cert)
	for _, row := range t.rows {
		if row.CN == cn && (row.Org == "" || row.Org == org) &&
			(row.Policy == "" || slices.Contains(policies, row.Policy)) {
			return row.Class, row.Family
		}
	}
	sum := sha256.Sum256(cert.RawIssuer)
	return Unknown, "x509-" + hex.EncodeToString(sum[:16])
}

// issuerName gives the issuing CA's CN and O. An attribute that occurs twice
// counts as absent: x509 would silently take the last CN.
func issuerName(cert *x509.Certificate) (cn, org string) {
	var cns []string
	for _, attribute := range cert.Issuer.Names {
		if attribute.Type.Equal(oidCommonName) {
			value, _ := attribute.Value.(string)
			cns = append(cns, value)
		}
	}
	if len(cns) == 1 {
		cn = cns[0]
	}
	if len(cert.Issuer.Organization) == 1 {
		org = cert.Issuer.Organization[0]
	}
	return cn, org
}
