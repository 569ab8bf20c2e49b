package server

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/evidence"
)

// openLegacy prepares for names that a proxy says in place of certificates. The
// accounts are those of the people's certificates, so that a migration loses
// none: hence the configuration must say who has issued what the proxy accepts.
func (p *parts) openLegacy(c Config) {
	f := c.Forwarded
	if f.Format != evidence.InsecureLegacyDN {
		if f.Family != "" || f.Reason != "" {
			p.problem("forwarded", fmt.Errorf("family and reason have a meaning only for format %q; remove them", evidence.InsecureLegacyDN))
		}
		return
	}
	if strings.TrimSpace(f.Reason) == "" {
		p.problem("forwarded.reason", fmt.Errorf("%q lets in whomever the proxy names, with no certificate to verify; say why in reason = \"…\", or use %q", f.Format, evidence.NginxEscapedPEM))
	}
	if len(c.Session.Sessionless) > 0 {
		// A request there leaves no record that nothing was verified.
		p.problem("session.sessionless", fmt.Errorf("is for verified certificates only, and format %q has none; remove the routes, or have the proxy send the certificate", f.Format))
	}
	table := p.trust.Issuers
	if table == nil { // and a problem with [trust] says why
		return
	}
	class, err := table.ClassOf(f.Family)
	switch {
	case f.Family == "":
		err = errors.New(`is not set; name the issuer family of all cards that the proxy accepts (its ssl_client_certificate), such as "dvv-citizen"`)
	case err != nil:
		err = fmt.Errorf("%w; use one of DVV's, such as \"dvv-citizen\", or of [[trust.issuer]]", err)
	case class == fineid.Unknown && len(c.Trust.Classes) == 0, len(c.Trust.Classes) > 0 && !slices.Contains(c.Trust.Classes, class):
		err = fmt.Errorf("holders of class %q are not among the classes in [trust]", class)
	}
	if err != nil {
		p.problem("forwarded.family", err)
		return
	}
	p.legacy = func(name []pkix.AttributeTypeAndValue) (door.Claim, error) {
		who, err := table.ParseSubject(f.Family, name)
		if err != nil {
			return door.Claim{}, err
		}
		profile, err := p.profile(who)
		if err != nil {
			return door.Claim{}, err
		}
		return door.Claim{Key: who.Family + "/" + who.SerialNumber, Profile: profile}, nil
	}
}
