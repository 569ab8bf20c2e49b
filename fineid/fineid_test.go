package fineid_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

func newPKI(t testing.TB, options fineidtest.Options) (*fineidtest.PKI, *fineid.Table) {
	t.Helper()
	pki, err := fineidtest.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return pki, fineid.DVV().With(pki.Issuers()...)
}

// newECOnly is quick: it makes no RSA keys.
func newECOnly(t testing.TB) (*fineidtest.PKI, *fineid.Table) {
	t.Helper()
	return newPKI(t, fineidtest.Options{ECOnly: true})
}

func issue(t testing.TB, pki *fineidtest.PKI, ca *fineidtest.CA, leaf fineidtest.Leaf) *x509.Certificate {
	t.Helper()
	issued, err := pki.Issue(ca, leaf)
	if err != nil {
		t.Fatal(err)
	}
	return issued.Certificate
}

func TestParseReadsEveryField(t *testing.T) {
	pki, table := newPKI(t, fineidtest.Options{})
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.CitizenRSA} {
		satu := fineidtest.SATU(12345)
		id, err := table.Parse(issue(t, pki, ca, fineidtest.Leaf{
			GivenName: "LIISA-MAIJA ÅKE", Surname: "SPECIMEN-NISYJU", SerialNumber: satu.String(),
			Organization: "KORTTI OY", Units: []string{"OSASTO A", "OSASTO B"}, Title: "LÄÄKÄRI", Pseudonym: "00112233",
			Email: "liisa@example.com", UPN: "liisa@ad.example.com",
		}))
		if err != nil {
			t.Fatalf("%s: %v", ca.Name, err)
		}
		want := fineid.Identity{
			Class: fineid.Citizen, Purpose: fineid.Authentication, Family: "kortti-test-citizen",
			SerialNumber: satu.String(), SATU: satu, GivenName: "LIISA-MAIJA ÅKE", Surname: "SPECIMEN-NISYJU",
			CommonName: "SPECIMEN-NISYJU LIISA-MAIJA ÅKE " + satu.String(), Country: "FI", Organization: "KORTTI OY",
			Title: "LÄÄKÄRI", Pseudonym: "00112233", Email: "liisa@example.com", UPN: "liisa@ad.example.com",
			OrganizationalUnits: []string{"OSASTO A", "OSASTO B"}, Policies: id.Policies, Issuer: ca.Certificate.Subject.CommonName,
		}
		if fmt.Sprint(id) != fmt.Sprint(want) {
			t.Errorf("%s:\n got %+v\nwant %+v", ca.Name, id, want)
		}
		if len(id.Policies) != 1 || !strings.HasPrefix(id.Policies[0], "1.2.246.517.99.10.") {
			t.Errorf("%s: policies %q", ca.Name, id.Policies)
		}
	}
}

func TestPurposeByKeyUsage(t *testing.T) {
	pki, table := newECOnly(t)
	for usage, want := range map[x509.KeyUsage]fineid.Purpose{
		x509.KeyUsageDigitalSignature:                                                                 fineid.Authentication,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement:                                     fineid.Authentication,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment:  fineid.Authentication,
		x509.KeyUsageContentCommitment:                                                                fineid.Signature,
		x509.KeyUsageContentCommitment | x509.KeyUsageDigitalSignature:                                fineid.PurposeOther,
		x509.KeyUsageKeyEncipherment:                                                                  fineid.PurposeOther,
		x509.KeyUsageDecipherOnly | x509.KeyUsageKeyAgreement:                                         fineid.PurposeOther,
		x509.KeyUsageContentCommitment | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement:    fineid.PurposeOther,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement | x509.KeyUsageDecipherOnly:         fineid.Authentication,
		x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment: fineid.Signature,
	} {
		id, err := table.Parse(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{KeyUsage: usage}))
		if err != nil {
			t.Fatal(err)
		}
		if id.Purpose != want {
			t.Errorf("keyUsage %b: %s, want %s", usage, id.Purpose, want)
		}
	}
}

func TestClassByIssuer(t *testing.T) {
	pki, table := newECOnly(t)
	organisation := issue(t, pki, pki.OrganisationEC, fineidtest.Leaf{})
	id, err := table.Parse(organisation)
	if err != nil {
		t.Fatal(err)
	}
	if id.Class != fineid.Organisation || id.Family != "kortti-test-organisation" || len(id.SerialNumber) != 11 {
		t.Errorf("organisation: %s, family %s, serialNumber %s", id.Class, id.Family, id.SerialNumber)
	}

	// A SATU below an organisation's CA is a number like any other.
	id, err = table.Parse(issue(t, pki, pki.OrganisationEC, fineidtest.Leaf{SerialNumber: "99900335E"}))
	if err != nil {
		t.Fatal(err)
	}
	if !id.SATU.IsZero() || id.SerialNumber != "99900335E" {
		t.Errorf("organisation with a SATU: SATU %q, serialNumber %q", id.SATU, id.SerialNumber)
	}

	// Without its row an issuer is unknown and a family of its own.
	citizen := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{SerialNumber: "99900335E"})
	unknown, err := fineid.Parse(citizen)
	if err != nil {
		t.Fatal(err)
	}
	other, err := fineid.Parse(organisation)
	if err != nil {
		t.Fatal(err)
	}
	if unknown.Class != fineid.Unknown || !unknown.SATU.IsZero() || !strings.HasPrefix(unknown.Family, "x509-") || unknown.Family == other.Family {
		t.Errorf("unknown issuers: %s %s and %s", unknown.Class, unknown.Family, other.Family)
	}
}

func TestTableRows(t *testing.T) {
	pki, _ := newECOnly(t)
	cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{Policies: []string{"1.2.3.4"}})
	row := pki.Issuers()[0]
	temporary := row
	temporary.Class, temporary.Policy = fineid.Temporary, "1.2.3.4"
	for name, test := range map[string]struct {
		rows []fineid.Issuer
		want fineid.Class
	}{
		"policy fits":        {[]fineid.Issuer{temporary, row}, fineid.Temporary},
		"other policy":       {[]fineid.Issuer{{CN: row.CN, Policy: "1.2.3.5", Class: fineid.Temporary, Family: "x"}, row}, fineid.Citizen},
		"other organization": {[]fineid.Issuer{{CN: row.CN, Org: "Somebody", Class: fineid.Temporary, Family: "x"}}, fineid.Unknown},
		"any organization":   {[]fineid.Issuer{{CN: row.CN, Class: fineid.SocialHealthCare, Family: "x"}}, fineid.SocialHealthCare},
		"case does not fit":  {[]fineid.Issuer{{CN: strings.ToLower(row.CN), Class: fineid.Temporary, Family: "x"}}, fineid.Unknown},
	} {
		id, err := fineid.DVV().With(test.rows...).Parse(cert)
		if err != nil || id.Class != test.want {
			t.Errorf("%s: class %s, error %v; want %s", name, id.Class, err, test.want)
		}
	}
	id, err := fineid.DVV().With(temporary).With(row).Parse(cert)
	if err != nil || id.Class != fineid.Citizen {
		t.Errorf("two With: class %s, error %v; want that of the last", id.Class, err)
	}
}

// The CAs of systems issue to nobody who could log in.
func TestIssuersOfSystems(t *testing.T) {
	pki, _ := newECOnly(t)
	cert := *issue(t, pki, pki.CitizenEC, fineidtest.Leaf{})
	for _, pin := range fineid.Pins() {
		if !strings.Contains(pin.CN, "Service") {
			continue
		}
		org := "Digi- ja vaestotietovirasto CA"
		if strings.HasPrefix(pin.CN, "VRK") {
			org = "Vaestorekisterikeskus CA"
		}
		cert.Issuer = pkix.Name{
			Organization: []string{org},
			Names:        []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: pin.CN}},
		}
		id, err := fineid.Parse(&cert)
		if err != nil || id.Class != fineid.Unknown || strings.HasPrefix(id.Family, "x509-") {
			t.Errorf("%s: class %s, family %s, %v", pin.CN, id.Class, id.Family, err)
		}
	}
}

// Of two common names x509 shows the last one; neither places the issuer.
func TestIssuerWithTwoNamesIsUnknown(t *testing.T) {
	pki, table := newECOnly(t)
	cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{})
	two := *cert
	two.Issuer.Names = append([]pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "Somebody Else"},
	}, cert.Issuer.Names...)
	id, err := table.Parse(&two)
	if err != nil || id.Class != fineid.Unknown || id.Issuer != "" {
		t.Errorf("class %s, issuer %q, error %v; want unknown", id.Class, id.Issuer, err)
	}
}

// attr is an attribute with a chosen string type.
type attr struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type attrSET []attr

func utf8(last int, value string) attr { return typed(last, asn1.TagUTF8String, []byte(value)) }

func typed(last, tag int, value []byte) attr {
	return attr{asn1.ObjectIdentifier{2, 5, 4, last}, asn1.RawValue{Tag: tag, Bytes: value}}
}

// subject encodes RDNs as they are.
func subject(t testing.TB, rdns ...attrSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(rdns)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func one(attributes ...attr) (rdns []attrSET) {
	for _, a := range attributes {
		rdns = append(rdns, attrSET{a})
	}
	return rdns
}

const (
	cn, sn, serial, country, ou, given = 3, 4, 5, 6, 11, 42
)

func bmp(s string) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		out = append(out, byte(unit>>8), byte(unit))
	}
	return out
}

func TestParseRefusesHostileSubjects(t *testing.T) {
	pki, table := newECOnly(t)
	ok := utf8(serial, "99900335E")
	manyUnits := one(ok)
	for range 40 {
		manyUnits = append(manyUnits, attrSET{utf8(ou, strings.Repeat("A", 200))})
	}
	for name, test := range map[string]struct {
		rdns []attrSET
		want error
	}{
		"two serialNumbers":          {one(ok, utf8(serial, "99902038C")), fineid.ErrAmbiguous},
		"the same serialNumber":      {one(ok, ok), fineid.ErrAmbiguous},
		"two in one RDN":             {[]attrSET{{ok, utf8(serial, "99902038C")}}, fineid.ErrAmbiguous},
		"two common names":           {one(ok, utf8(cn, "A"), utf8(cn, "B")), fineid.ErrAmbiguous},
		"two surnames":               {one(ok, utf8(sn, "A"), utf8(sn, "B")), fineid.ErrAmbiguous},
		"two countries":              {one(ok, utf8(country, "FI"), utf8(country, "SE")), fineid.ErrAmbiguous},
		"NUL in a name":              {one(ok, utf8(given, "LIISA\x00X")), fineid.ErrMalformed},
		"NUL in serialNumber":        {one(utf8(serial, "99900335E\x00")), fineid.ErrMalformed},
		"line break":                 {one(ok, utf8(cn, "A\nadmin")), fineid.ErrMalformed},
		"right-to-left override":     {one(ok, utf8(cn, "A\u202eB")), fineid.ErrMalformed},
		"zero-width space":           {one(ok, utf8(given, "LII\u200bSA")), fineid.ErrMalformed},
		"control in OU":              {one(ok, utf8(ou, "A\x07")), fineid.ErrMalformed},
		"empty name":                 {one(ok, utf8(given, "")), fineid.ErrMalformed},
		"huge name":                  {one(ok, utf8(given, strings.Repeat("Ä", 257))), fineid.ErrMalformed},
		"huge subject":               {manyUnits, fineid.ErrMalformed},
		"space at the end":           {one(utf8(serial, "99900335E ")), fineid.ErrMalformed},
		"full-width digits":          {one(utf8(serial, "９9900335E")), fineid.ErrMalformed},
		"quotes in serialNumber":     {one(utf8(serial, `"99900335E"`)), fineid.ErrMalformed},
		"lone surrogate":             {one(ok, typed(given, asn1.TagBMPString, []byte{0xd8, 0x00})), nil},
		"an integer as serialNumber": {one(typed(serial, asn1.TagInteger, []byte{1})), nil},
		"no serialNumber":            {one(utf8(cn, "SPECIMEN LIISA 99900335E")), fineid.ErrSATU},
		"empty subject":              {nil, fineid.ErrSATU},
		"bad check character":        {one(utf8(serial, "99900335F")), fineid.ErrSATU},
		"lower case":                 {one(utf8(serial, "99900335e")), fineid.ErrSATU},
		"a Vartti number":            {one(utf8(serial, "12345678901")), fineid.ErrSATU},
		// The injection that logs in as somebody else in DN-string readers.
		"slash in CN": {one(utf8(serial, "99999999X"), utf8(cn, "B/serialNumber=99900335E")), fineid.ErrSATU},
	} {
		issued, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{RawSubject: subject(t, test.rdns...)})
		if err != nil {
			if test.want != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue // x509 itself refuses it
		}
		id, err := table.Parse(issued.Certificate)
		if err == nil || !errors.Is(err, test.want) || id.SerialNumber != "" {
			t.Errorf("%s: identity %+v, error %v; want %v", name, id, err, test.want)
		}
	}
}

func TestParseTakesOddButHonestSubjects(t *testing.T) {
	pki, table := newECOnly(t)
	for name, rdns := range map[string][]attrSET{
		"other order":       one(utf8(cn, "MÄKELÄ LIISA 99900335E"), utf8(sn, "MÄKELÄ"), utf8(serial, "99900335E")),
		"one RDN for all":   {{utf8(cn, "MÄKELÄ LIISA 99900335E"), utf8(sn, "MÄKELÄ"), utf8(serial, "99900335E")}},
		"BMPString":         one(typed(sn, asn1.TagBMPString, bmp("MÄKELÄ")), utf8(serial, "99900335E")),
		"teletex, old card": one(typed(sn, asn1.TagT61String, []byte("M\xc4KEL\xc4")), utf8(serial, "99900335E")),
	} {
		id, err := table.Parse(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{RawSubject: subject(t, rdns...)}))
		if err != nil || id.Surname != "MÄKELÄ" || id.SATU.String() != "99900335E" {
			t.Errorf("%s: surname %q, SATU %s, error %v", name, id.Surname, id.SATU, err)
		}
	}
	id, err := table.Parse(issue(t, pki, pki.CitizenEC, fineidtest.Leaf{
		RawSubject: subject(t, one(utf8(serial, "99900335E"), utf8(cn, "B/serialNumber=99902038C"))...),
	}))
	if err != nil || id.SATU.String() != "99900335E" {
		t.Errorf("slash in CN: SATU %s, error %v", id.SATU, err)
	}
}

func TestParseRefusesOtherThanHolders(t *testing.T) {
	pki, table := newPKI(t, fineidtest.Options{})
	for name, cert := range map[string]*x509.Certificate{
		"none": nil, "not parsed": {}, "issuing CA": pki.CitizenEC.Certificate, "root": pki.RootRSA.Certificate,
	} {
		if _, err := table.Parse(cert); !errors.Is(err, fineid.ErrNotPersonal) {
			t.Errorf("%s: error %v, want ErrNotPersonal", name, err)
		}
	}
}

// sanOf encodes GeneralNames; each is the DER of one.
func sanOf(t testing.TB, critical bool, names ...[]byte) []pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(names, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: value}}
}

func otherName(t testing.TB, oid asn1.ObjectIdentifier, tag int, text string) []byte {
	t.Helper()
	value, err := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.MarshalWithParams(struct {
		OID   asn1.ObjectIdentifier
		Value asn1.RawValue
	}{oid, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: value}}, "tag:0")
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAlternativeNames(t *testing.T) {
	pki, table := newECOnly(t)
	upnOID, otherOID := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, asn1.ObjectIdentifier{1, 2, 3, 4}
	upn := otherName(t, upnOID, asn1.TagUTF8String, "liisa@ad.example.com")
	foreign := otherName(t, otherOID, asn1.TagUTF8String, "something")
	dns := []byte("\x82\x0bexample.com")
	directory := []byte{0xa4, 2, 0x30, 0}
	for name, test := range map[string]struct {
		names    [][]byte
		upn      string
		parses   bool
		verifies bool // as a critical extension, after Understood
	}{
		"UPN":                 {[][]byte{upn}, "liisa@ad.example.com", true, true},
		"UPN and a DNS name":  {[][]byte{upn, dns}, "liisa@ad.example.com", true, true},
		"UPN and unknown":     {[][]byte{upn, foreign}, "liisa@ad.example.com", true, false},
		"UPN and a directory": {[][]byte{upn, directory}, "liisa@ad.example.com", true, false},
		"unknown":             {[][]byte{foreign}, "", true, false},
		"two UPNs":            {[][]byte{upn, upn}, "", false, true},
		"UPN as IA5String":    {[][]byte{otherName(t, upnOID, asn1.TagIA5String, "liisa@ad")}, "", false, false},
		"UPN with a NUL":      {[][]byte{otherName(t, upnOID, asn1.TagUTF8String, "a\x00@ad")}, "", false, false},
		"empty UPN":           {[][]byte{otherName(t, upnOID, asn1.TagUTF8String, "")}, "", false, false},
		"truncated otherName": {[][]byte{{0xa0, 2, 6, 0}}, "", false, false},
	} {
		cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{ExtraExtensions: sanOf(t, true, test.names...)})
		id, err := table.Parse(cert)
		if (err == nil) != test.parses || id.UPN != test.upn {
			t.Errorf("%s: UPN %q, error %v", name, id.UPN, err)
		}
		unhandled := len(cert.UnhandledCriticalExtensions)
		if err := verify(pki, fineid.Understood(cert)); (err == nil) != test.verifies {
			t.Errorf("%s: verify gave %v", name, err)
		}
		if len(cert.UnhandledCriticalExtensions) != unhandled {
			t.Errorf("%s: the certificate itself was changed", name)
		}
	}
}

func verify(pki *fineidtest.PKI, cert *x509.Certificate) error {
	roots, issuing := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(pki.RootsPEM())
	issuing.AppendCertsFromPEM(pki.IssuingPEM())
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: issuing, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// Another critical extension stays unhandled.
func TestUnderstoodHidesNothingElse(t *testing.T) {
	pki, _ := newECOnly(t)
	cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{
		UPN: "liisa@ad.example.com", CriticalSAN: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: asn1.NullBytes}},
	})
	if verify(pki, cert) == nil || verify(pki, fineid.Understood(cert)) == nil {
		t.Error("an unknown critical extension was let through")
	}
	if got := len(fineid.Understood(cert).UnhandledCriticalExtensions); got != 1 {
		t.Errorf("%d unhandled extensions, want 1", got)
	}
}

func TestNamesOfClassesAndPurposes(t *testing.T) {
	for _, want := range []fineid.Class{fineid.Unknown, fineid.Citizen, fineid.Organisation, fineid.SocialHealthCare, fineid.Temporary} {
		text, err := want.MarshalText()
		var got fineid.Class
		if err != nil || got.UnmarshalText(text) != nil || got != want {
			t.Errorf("class %s: became %s, error %v", want, got, err)
		}
	}
	for _, want := range []fineid.Purpose{fineid.PurposeOther, fineid.Authentication, fineid.Signature} {
		text, err := want.MarshalText()
		var got fineid.Purpose
		if err != nil || got.UnmarshalText(text) != nil || got != want {
			t.Errorf("purpose %s: became %s, error %v", want, got, err)
		}
	}
	var class fineid.Class
	if err := class.UnmarshalText([]byte("citizens")); err == nil {
		t.Error("an unknown class was taken")
	}
}

func FuzzParse(f *testing.F) {
	pki, table := newPKI(f, fineidtest.Options{})
	f.Add(issue(f, pki, pki.CitizenEC, fineidtest.Leaf{Email: "a@example.com", UPN: "a@ad"}).Raw)
	f.Add(issue(f, pki, pki.CitizenRSA, fineidtest.Leaf{Purpose: fineid.Signature}).Raw)
	f.Add(issue(f, pki, pki.OrganisationEC, fineidtest.Leaf{Units: []string{"A", "B"}, UPN: "a@ad", CriticalSAN: true}).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		fineid.Understood(cert)
		id, err := table.Parse(cert)
		if err != nil {
			return
		}
		if id.Family == "" || (id.Class == fineid.Citizen) == id.SATU.IsZero() {
			t.Fatalf("class %s, family %q, SATU %q", id.Class, id.Family, id.SATU)
		}
		values := slices.Concat(id.OrganizationalUnits, []string{
			id.SerialNumber, id.GivenName, id.Surname, id.CommonName, id.Organization, id.Title, id.Pseudonym, id.Email, id.UPN,
		})
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
				t.Fatalf("invisible characters in %q", value)
			}
		}
	})
}

func Example() {
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	card, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{
		GivenName: "LIISA", Surname: "SPECIMEN-NISYJU", SerialNumber: "99900335E",
	})
	if err != nil {
		log.Fatal(err)
	}
	// Verify the certificate first; then read it.
	id, err := fineid.DVV().With(pki.Issuers()...).Parse(card.Certificate)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id.Class, id.Purpose, id.SATU)
	fmt.Println(id.Profile().FirstName, id.Profile().LastName)
	// Output:
	// citizen authentication 99900335E
	// Liisa Specimen-Nisyju
}

// A subject alone is read as strictly as the one in a certificate.
func TestParseSubject(t *testing.T) {
	pki, table := newECOnly(t)
	satu := fineidtest.SATU(12345)
	names := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{GivenName: "LIISA", Surname: "MÄKELÄ", SerialNumber: satu.String()}).Subject.Names
	id, err := table.ParseSubject("kortti-test-citizen", names)
	if err != nil || id.SATU != satu || id.Class != fineid.Citizen || id.Family != "kortti-test-citizen" || id.Surname != "MÄKELÄ" || id.Purpose != fineid.PurposeOther {
		t.Errorf("%+v, %v", id, err)
	}
	number := func(value string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: value}
	}
	for _, test := range []struct {
		name, family string
		names        []pkix.AttributeTypeAndValue
		want         error // nil = any
	}{
		{"two numbers", "dvv-citizen", append(slices.Clone(names), number("1")), fineid.ErrAmbiguous},
		{"no SATU", "dvv-citizen", []pkix.AttributeTypeAndValue{number("99912345W")}, fineid.ErrSATU},
		{"a space", "dvv-organisation", []pkix.AttributeTypeAndValue{number("1 ")}, fineid.ErrMalformed},
		{"no number", "dvv-organisation", nil, fineid.ErrMalformed},
		{"no such family", "dvv-citizens", names, nil},
		{"no family", "", names, nil},
	} {
		id, err := table.ParseSubject(test.family, test.names)
		if err == nil || test.want != nil && !errors.Is(err, test.want) || id.SerialNumber != "" {
			t.Errorf("%s: %+v, %v; want %v", test.name, id, err, test.want)
		}
	}
	if id, err := table.ParseSubject("dvv-organisation", []pkix.AttributeTypeAndValue{number("12345678901")}); err != nil || id.SerialNumber != "12345678901" || !id.SATU.IsZero() {
		t.Errorf("an organisation card: %+v, %v", id, err)
	}
}
