package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kortti-id/kortti/fineid"
)

// Identity is a verified holder. Only Verify makes one that Verified confirms;
// whatever admits people must ask that first.
type Identity struct {
	fineid.Identity
	Leaf        *x509.Certificate   // shared: must not be changed
	Fingerprint [32]byte            // SHA-256 of the leaf's DER
	Chain       []*x509.Certificate // leaf first, anchor last; shared: must not be changed
	Key         string              // issuer family "/" serialNumber: the holder's stable key

	verified bool
}

// Verified tells whether this Identity comes from Verify.
func (id Identity) Verified() bool { return id.verified }

// Report is why a certificate was accepted or refused, check by check. It holds
// no names and no personal identifier, so it can be logged and stored.
type Report struct {
	Time        time.Time `json:"time"`
	Fingerprint [32]byte  `json:"-"` // SHA-256 of the leaf; zero if there was none
	Epoch       string    `json:"epoch"`
	Steps       []Step    `json:"steps"`
	Decision    Decision  `json:"decision"`
	Code        string    `json:"code,omitempty"` // why refused, "" if accepted
	// RevocationUntil is when the answer about revocation ends; a session may
	// live on, but is asked about again after it. Zero if nobody was asked.
	RevocationUntil time.Time `json:"revocation_until,omitzero"`
}

// Step is the outcome of one check.
type Step struct {
	Check  string `json:"check"` // one of the Check constants
	Result Result `json:"result"`
	Detail string `json:"detail"` // for administrators, English
}

// Result of a check.
type Result string

// The results.
const (
	ResultOK       Result = "ok"
	ResultFailed   Result = "failed"
	ResultNotAsked Result = "not asked"
)

// Decision of a Report.
type Decision string

// The decisions.
const (
	Accepted Decision = "accepted"
	Refused  Decision = "refused"
)

// The checks, in the order in which they are made.
const (
	CheckCertificate      = "certificate"
	CheckValidity         = "validity"
	CheckKeyUsage         = "key usage"
	CheckExtendedKeyUsage = "extended key usage"
	CheckChain            = "chain"
	CheckStrength         = "key strength"
	CheckPolicy           = "policy"
	CheckIdentity         = "identity"
	CheckRevocation       = "revocation"
	CheckIssuerRevocation = "issuing CA revocation"
)

var checks = [...]string{
	CheckCertificate, CheckValidity, CheckKeyUsage, CheckExtendedKeyUsage, CheckChain,
	CheckStrength, CheckPolicy, CheckIdentity, CheckRevocation, CheckIssuerRevocation,
}

// Codes of refusals. They are stable: interfaces and logs may rely on them.
const (
	CodeNoCertificate     = "no-certificate"
	CodeBadCertificate    = "bad-certificate"
	CodeNotYetValid       = "not-yet-valid"
	CodeExpired           = "expired"
	CodeWrongPurpose      = "wrong-purpose"
	CodeUntrustedIssuer   = "untrusted-issuer"
	CodeWeakKey           = "weak-key"
	CodePolicy            = "policy"
	CodeBadIdentity       = "bad-identity"
	CodeRevoked           = "revoked"
	CodeRevocationUnknown = "revocation-unknown"
)

// Refusal is the error of Verify. Its text is for administrators; what the
// person should read is Text(Code, language).
type Refusal struct {
	Code   string // one of the Code constants
	Check  string // the check that failed
	detail string
	cause  error
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("certificate refused (%s): %s: %s", r.Code, r.Check, r.detail)
	if r.cause != nil {
		text += ": " + r.cause.Error()
	}
	return text
}

// Unwrap gives the error behind the refusal, if there is one.
func (r *Refusal) Unwrap() error { return r.cause }

// Checker finds out whether a certificate has been revoked. Verify calls it for
// the leaf of a chain that it has built and for each CA below the anchor; issuer
// is the next of that chain, so URLs in the leaf come from a trusted issuer. An error means that
// there is no answer to rely on: the request is refused. Checkers are called
// on every request and concurrently, so they remember their answers.
type Checker interface {
	Check(ctx context.Context, leaf, issuer *x509.Certificate) (Answer, error)
}

// Status of an Answer. The zero value is none of them and refuses.
type Status int

// The statuses.
const (
	// Good: the issuer says that the certificate is not revoked.
	Good Status = iota + 1
	// Revoked: the issuer has withdrawn it.
	Revoked
	// NotAsked: the configuration lets certificates in without an answer.
	NotAsked
)

// Answer is what a Checker found out.
type Answer struct {
	Status    Status
	Until     time.Time // when the answer ends; zero for NotAsked
	RevokedAt time.Time // for Revoked
	Reason    int       // CRLReason of RFC 5280 section 5.3.1, for Revoked
	Detail    string    // for the Report: who answered what, and when
}

// InsecureSkipRevocation is a Checker that lets every certificate in without
// asking: lost and stolen cards too. It is for closed test set-ups.
func InsecureSkipRevocation(reason string) (Checker, error) {
	if reason == "" {
		return nil, errors.New("verify: revocation can be skipped only with a reason")
	}
	return skip{"switched off by configuration: " + reason}, nil
}

type skip struct{ detail string }

func (s skip) Check(context.Context, *x509.Certificate, *x509.Certificate) (Answer, error) {
	return Answer{Status: NotAsked, Detail: s.detail}, nil
}
