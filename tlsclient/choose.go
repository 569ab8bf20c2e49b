package tlsclient

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kortti-id/kortti/card"
)

// Explanation says what a host asked for and, for each identity, which rule
// kept or dropped it.
type Explanation struct {
	Host          string
	Asked         bool     // the host asked for a certificate
	AcceptableCAs []string // the names in its list; empty when it lists none
	Rows          []Row
	Chosen        *card.Fingerprint // what the rules choose alone; nil when nothing, or when a person must choose
}

// Row is the verdict on one identity.
type Row struct {
	Fingerprint card.Fingerprint
	Subject     string // its common name, for showing
	Kept        bool
	Rule        string // the rule that decided, for people
}

// ChoiceError says why no certificate was presented. Err is ErrNoCertificate
// or ErrAmbiguous.
type ChoiceError struct {
	Explanation Explanation
	Err         error
}

// Error names the host and the number of certificates looked at.
func (e *ChoiceError) Error() string {
	return fmt.Sprintf("choose a certificate for %s (%d present, %d names in its CA list): %v",
		e.Explanation.Host, len(e.Explanation.Rows), len(e.Explanation.AcceptableCAs), e.Err)
}

// Unwrap returns Err.
func (e *ChoiceError) Unwrap() error { return e.Err }

// demand is what a server says in its CertificateRequest.
type demand struct {
	cas     [][]byte // DER of the names that it accepts as issuers
	schemes []tls.SignatureScheme
	version uint16 // of the handshake that it was said in
}

func demandOf(cri *tls.CertificateRequestInfo) demand {
	return demand{cri.AcceptableCAs, cri.SignatureSchemes, cri.Version}
}

// choice is what the rules make of a demand.
type choice struct {
	why        Explanation
	candidates []Identity
	chosen     *Identity // set when the rules leave one and may select it by themselves
}

// choose applies the rules: issuing CA, fitness of the certificate and its key,
// the host's pin. An empty list of CAs accepts any issuer and for that reason
// selects nothing by itself: a host, or a page that frames one, could otherwise
// collect the identity of whoever comes by.
func choose(host string, d demand, identities []Identity, s HostSettings, now time.Time) choice {
	c := choice{why: Explanation{Host: host, Asked: true}}
	names := newNameSet(d.cas)
	c.why.AcceptableCAs = names.list
	for _, id := range identities {
		kept, rule := judge(id, d, names, s, now)
		c.why.Rows = append(c.why.Rows, Row{id.Fingerprint, subject(id), kept, rule})
		if kept {
			c.candidates = append(c.candidates, id)
		}
	}
	if len(c.candidates) == 1 && (len(d.cas) > 0 || s.Pin != nil) {
		c.chosen = &c.candidates[0]
		c.why.Chosen = &c.chosen.Fingerprint
	}
	return c
}

func subject(id Identity) string {
	if id.Leaf == nil {
		return ""
	}
	return id.Leaf.Subject.CommonName
}

// judge applies the rules to one identity and names the one that decided.
func judge(id Identity, d demand, names nameSet, s HostSettings, now time.Time) (bool, string) {
	switch {
	case id.Leaf == nil:
		return false, "not usable: " + id.WhyNot
	case len(d.cas) > 0 && !names.issued(id.Chain):
		return false, "no CA of its chain is in the host's list"
	case !id.Usable:
		return false, "not usable: " + id.WhyNot
	}
	if why := unfit(id.Leaf, now); why != "" {
		return false, why
	}
	if !overlap(id, d) {
		return false, "its key has no signature scheme in common with the host"
	}
	switch {
	case s.Pin != nil && *s.Pin != id.Fingerprint:
		return false, "another certificate is set for this host"
	case s.Pin != nil:
		return true, "set for this host"
	case len(d.cas) == 0:
		return true, "the host lists no CA: must be chosen"
	}
	return true, "a CA of its chain is in the host's list"
}

// unfit says why a certificate is no TLS client certificate now (RFC 5280
// sections 4.2.1.3 and 4.2.1.12), or "". FINeID authentication certificates
// have no extended key usage, which allows every purpose.
func unfit(leaf *x509.Certificate, now time.Time) string {
	switch {
	case now.After(leaf.NotAfter):
		return "expired"
	case now.Before(leaf.NotBefore):
		return "not yet valid"
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "its key usage has no digitalSignature"
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return ""
	}
	return "its extended key usage has no clientAuth"
}

// overlap reports whether the key can sign something that the host accepts.
// What a host lists in TLS 1.3 says nothing about a key that needs TLS 1.2: the
// next handshake, at that version, tells.
func overlap(id Identity, d demand) bool {
	if len(id.Schemes) == 0 || id.MaxVersion != 0 && d.version > id.MaxVersion {
		return true
	}
	return slices.ContainsFunc(id.Schemes, func(s tls.SignatureScheme) bool {
		return slices.Contains(d.schemes, s)
	})
}
