package revoke

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errUnknown is a believed answer that says: this CA never issued that
// certificate. No policy lets such a one in.
var errUnknown = errors.New("the responder does not know the certificate")

func isUnknown(err error) bool { return errors.Is(err, errUnknown) }

// maxSkew is how far a responder's clock may be ahead of ours.
const maxSkew = 2 * time.Minute

var oidNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}

// signatureAlgorithms are those that an answer may be signed with: no SHA-1,
// and no PSS, whose parameters x509 does not let us hand over.
var signatureAlgorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
	"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
	"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
	"1.3.101.112":           x509.PureEd25519,
}

// terms are what a rule demands of an answer.
type terms struct {
	now     time.Time
	maxAge  time.Duration
	noNonce bool
}

// believed is an answer that has passed every check.
type believed struct {
	single
	by    string    // who signed it
	until time.Time // how long it may be used
}

// readAnswer gives the answer to a question if it can be believed. All of RFC
// 6960 section 3.2 is checked here.
func readAnswer(der []byte, q question, issuer *x509.Certificate, t terms) (believed, error) {
	r, err := parseResponse(der)
	if err != nil {
		return believed{}, err
	}
	by, err := r.checkSignature(issuer, t.now)
	if err != nil {
		return believed{}, err
	}
	if err := r.checkNonce(q.nonce, t.noNonce); err != nil {
		return believed{}, err
	}
	s, err := r.find(q.id)
	if err != nil {
		return believed{}, err
	}
	until, err := r.checkTimes(s, t)
	if err != nil {
		return believed{}, err
	}
	if s.status == statusUnknown {
		return believed{}, errUnknown
	}
	return believed{s, by, until}, nil
}

// checkSignature finds out who signed. Only the issuing CA itself and those
// whom it has appointed speak for it: each of its card holders has a
// certificate of it as well.
func (r *response) checkSignature(issuer *x509.Certificate, now time.Time) (string, error) {
	algorithm, ok := signatureAlgorithms[r.algorithm.String()]
	if !ok {
		return "", fmt.Errorf("signed with algorithm %v, which is not accepted", r.algorithm)
	}
	if r.responder.is(issuer) {
		if err := issuer.CheckSignature(algorithm, r.signed, r.signature); err != nil {
			return "", errors.New("the signature is not the issuing CA's")
		}
		return "the issuing CA", nil
	}
	for _, der := range r.certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil || !r.responder.is(c) {
			continue
		}
		note, err := appointed(c, issuer, now)
		if err != nil {
			return "", fmt.Errorf("its signer is no responder of the issuing CA: %w", err)
		}
		if err := c.CheckSignature(algorithm, r.signed, r.signature); err != nil {
			return "", errors.New("the signature is not the responder's")
		}
		return note, nil
	}
	return "", errors.New("its signer is neither the issuing CA nor a responder whose certificate came along")
}

// is tells whether a certificate is the one that the responder names.
func (id responderID) is(c *x509.Certificate) bool {
	if id.name != nil {
		return bytes.Equal(id.name, c.RawSubject)
	}
	hash, err := keyHashOf(c)
	return err == nil && len(id.keyHash) == sha1.Size && bytes.Equal(id.keyHash, hash)
}

// appointed checks a delegated responder's certificate (RFC 6960 section
// 4.2.2.2): issued by the very CA that is asked about, for OCSP signing,
// valid now.
func appointed(c, issuer *x509.Certificate, now time.Time) (string, error) {
	switch {
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return "", errors.New("another CA issued its certificate")
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return "", errors.New("its certificate is not for OCSP signing")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "", errors.New("its key is not for signatures")
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return "", errors.New("its certificate is not valid now")
	case len(c.UnhandledCriticalExtensions) > 0:
		return "", errors.New("its certificate has an unknown critical extension")
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return "", errors.New("its certificate is not signed by the issuing CA")
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(oidNoCheck) {
			return "a responder of the issuing CA", nil
		}
	}
	return "a responder of the issuing CA (whose own revocation was not asked)", nil
}

// checkNonce compares the nonce (RFC 8954 section 2.1). One that is there must
// be ours, also where none is demanded.
func (r *response) checkNonce(want []byte, noNonce bool) error {
	switch {
	case r.nonce == nil && noNonce:
		return nil
	case r.nonce == nil:
		return errors.New("it does not repeat our nonce; if this responder cannot, set nonce = false for its issuer")
	case subtle.ConstantTimeCompare(r.nonce, want) != 1:
		return errors.New("its nonce is not ours: the answer is an old or a foreign one")
	}
	return nil
}

// find takes the one answer that is about the certificate asked for.
func (r *response) find(id certID) (single, error) {
	var found []single
	for _, s := range r.singles {
		if s.sha1 && s.id.equal(id) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return single{}, errors.New("it is about another certificate")
	case 1:
		return found[0], nil
	}
	return single{}, errors.New("it holds more than one answer about the certificate")
}

// checkTimes gives the time until which the answer may be used. Without our
// nonce, or without an end of its own, its age counts from its making.
func (r *response) checkTimes(s single, t terms) (time.Time, error) {
	until := t.now.Add(t.maxAge)
	if s.nextUpdate.IsZero() || r.nonce == nil {
		until = s.thisUpdate.Add(t.maxAge)
	}
	if !s.nextUpdate.IsZero() && s.nextUpdate.Before(until) {
		until = s.nextUpdate
	}
	latest := t.now.Add(maxSkew)
	switch {
	case s.thisUpdate.After(latest) || r.producedAt.After(latest):
		return until, errors.New("it is dated in the future; compare the clocks")
	case !until.After(t.now):
		return until, fmt.Errorf("it is stale: it could be used until %s", until.UTC().Format(time.RFC3339))
	}
	return until, nil
}
