package verify

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/kortti-id/kortti/fineid"
)

// oidSmartcardLogon is Microsoft's extended key usage for logging in with a
// card; FINEID S2 allows it in authentication certificates.
var oidSmartcardLogon = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 2}

// policy is what a certificate must be besides trusted.
type policy struct {
	policies []string
	classes  []fineid.Class
	content  string // what the trust epoch is made from
}

func newPolicy(c Config) (policy, error) {
	if c.Purpose != fineid.PurposeOther && c.Purpose != fineid.Authentication {
		return policy{}, fmt.Errorf("verify: purpose %q cannot be used to log in; use %q", c.Purpose, fineid.Authentication)
	}
	p := policy{policies: slices.Clone(c.Policies), classes: slices.Clone(c.Classes)}
	if len(p.classes) == 0 {
		p.classes = []fineid.Class{fineid.Citizen, fineid.Organisation, fineid.SocialHealthCare, fineid.Temporary}
	}
	for _, oid := range p.policies {
		if _, err := x509.ParseOID(oid); err != nil {
			return policy{}, fmt.Errorf("verify: policy %q is not an object identifier such as 1.2.246.517.1.10.302.1", oid)
		}
	}
	sort.Strings(p.policies)
	slices.Sort(p.classes)
	p.content = fmt.Sprint(p.policies, p.classes)
	return p, nil
}

func (r *run) checkValidity(leaf *x509.Certificate) error {
	switch {
	case r.now.Before(leaf.NotBefore):
		return r.fail(CheckValidity, CodeNotYetValid, "valid from "+leaf.NotBefore.UTC().Format(time.RFC3339), nil)
	case r.now.After(leaf.NotAfter):
		return r.fail(CheckValidity, CodeExpired, "valid until "+leaf.NotAfter.UTC().Format(time.RFC3339), nil)
	}
	r.pass(CheckValidity, "valid until "+leaf.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// checkUsage asks what the key is for. The exact keyUsage differs between RSA
// and P-384 cards; digitalSignature without nonRepudiation is what they share
// (FINEID S2), and what tells PIN1 from PIN2.
func (r *run) checkUsage(leaf *x509.Certificate) error {
	switch {
	case leaf.IsCA:
		return r.fail(CheckKeyUsage, CodeWrongPurpose, "it is a CA certificate", nil)
	case leaf.KeyUsage&x509.KeyUsageContentCommitment != 0:
		return r.fail(CheckKeyUsage, CodeWrongPurpose, "it is for document signatures (nonRepudiation)", nil)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return r.fail(CheckKeyUsage, CodeWrongPurpose, "digitalSignature is missing", nil)
	}
	r.pass(CheckKeyUsage, "digitalSignature, no nonRepudiation")
	if !mayLogIn(leaf) {
		return r.fail(CheckExtendedKeyUsage, CodeWrongPurpose, "neither clientAuth nor smart card logon is among its extended key usages", nil)
	}
	if !restricted(leaf) {
		r.pass(CheckExtendedKeyUsage, "none: any use is allowed")
		return nil
	}
	r.pass(CheckExtendedKeyUsage, "allows client authentication")
	return nil
}

// restricted tells whether a certificate names extended key usages. Card
// certificates usually do not.
func restricted(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage) > 0 || len(c.UnknownExtKeyUsage) > 0
}

func mayLogIn(c *x509.Certificate) bool {
	return !restricted(c) ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) ||
		slices.ContainsFunc(c.UnknownExtKeyUsage, oidSmartcardLogon.Equal)
}

// checkPolicy compares the leaf's policies with the configured ones. There is
// no policy tree (RFC 5280 section 6.1): DVV's CA certificates carry other
// policies than the leaves below them, so a tree would always be empty.
func (r *run) checkPolicy(leaf *x509.Certificate) error {
	if len(r.policies) == 0 {
		r.pass(CheckPolicy, "any policy is accepted")
		return nil
	}
	for _, oid := range leaf.Policies {
		if name := oid.String(); slices.Contains(r.policies, name) {
			r.pass(CheckPolicy, name)
			return nil
		}
	}
	return r.fail(CheckPolicy, CodePolicy, fmt.Sprintf("its policies %v are not among those accepted", leaf.Policies), nil)
}

// checkIdentity reads who the holder is. What is ambiguous is refused by
// fineid; here the stable key must come out whole.
func (r *run) checkIdentity(leaf *x509.Certificate) (fineid.Identity, error) {
	who, err := r.table.Parse(leaf)
	if err != nil {
		return fineid.Identity{}, r.fail(CheckIdentity, CodeBadIdentity, "it does not say clearly who the holder is", err)
	}
	switch {
	case who.Purpose != fineid.Authentication:
		return fineid.Identity{}, r.fail(CheckIdentity, CodeWrongPurpose, fmt.Sprintf("purpose %q", who.Purpose), nil)
	case who.SerialNumber == "":
		return fineid.Identity{}, r.fail(CheckIdentity, CodeBadIdentity, "the subject has no serialNumber", nil)
	case !slices.Contains(r.classes, who.Class):
		return fineid.Identity{}, r.fail(CheckIdentity, CodePolicy, fmt.Sprintf("holders of class %q, from issuer %q, are not accepted", who.Class, who.Issuer), nil)
	}
	r.pass(CheckIdentity, fmt.Sprintf("class %s, issuer family %s", who.Class, who.Family))
	return who, nil
}
