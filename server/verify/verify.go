// Package verify decides whether a certificate that came with a request lets
// its holder in, and says why or why not.
//
// A Verifier runs once per request, after the TLS handshake: only then has the
// client proved that it holds the key, and only so are kept connections,
// resumed sessions and certificates from a reverse proxy all treated alike. It
// builds the chain itself, whatever the TLS stack or the proxy claims to have
// done. What cannot change (chain, key usage, identity) is remembered; validity
// and revocation are looked up every time.
//
// The package opens no database, directory or listener and writes no log. The
// result is an Identity, which only Verify can make, and a Report with one line
// for every check.
//
//	v, err := verify.New(verify.Config{Roots: roots, Issuing: issuing, Revocation: checker})
//	ev, present, err := reader.Read(r)
//	id, report, err := v.Verify(r.Context(), ev)
//	var refusal *verify.Refusal
//	if errors.As(err, &refusal) {
//		show(verify.Text(refusal.Code, "fi"))
//	}
package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/internal/lru"
)

// Config is what a Verifier trusts and demands. New copies it.
type Config struct {
	// Roots are the trust anchors. An issuing CA may stand here too; its
	// Report then says that the root's revocation list was not asked.
	Roots []*x509.Certificate
	// Issuing are intermediates that cards do not send. They are not trusted
	// by themselves.
	Issuing []*x509.Certificate
	// Pins makes those of Issuing that are published CAs of DVV, by
	// fineid.Pinned, anchors of their own: for when a root is not at hand.
	Pins bool
	// Purpose is what the certificate must be for. Only
	// fineid.Authentication, also meant by the zero value, is allowed: the
	// signature key is never for logging in.
	Purpose fineid.Purpose
	// Policies are the certificate policy OIDs of which the certificate must
	// have one; empty = any.
	Policies []string
	// Classes are the classes of holders that are let in; empty = all but
	// fineid.Unknown, which is that of systems and of issuers without a place
	// in the table: below a root there are often others than those of people.
	Classes []fineid.Class
	// Issuers places certificates by their issuing CA; nil = fineid.DVV().
	Issuers *fineid.Table
	// Revocation is asked on every request. It must be set.
	Revocation Checker
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// maxVerdicts bounds the remembered verdicts, one per certificate, of some 6 KB
// each.
const maxVerdicts = 8192

// maxDetail bounds the detail of a step, in bytes: reports are stored.
const maxDetail = 512

// Verifier verifies certificates. It is safe for concurrent use.
type Verifier struct {
	state atomic.Pointer[state]
}

// state is one configuration with the verdicts reached under it; a new
// configuration starts with none, so no verdict outlives the trust behind it.
type state struct {
	anchors
	policy
	table      *fineid.Table
	revocation Checker
	now        func() time.Time
	epoch      string
	// verdicts are kept by a hash that is quick and seeded, and compared whole: the
	// certificate's SHA-256 would be half of what a remembered verdict costs.
	verdicts *lru.Cache[uint64, *verdict]
	seed     maphash.Seed
}

// verdict is what holds for a certificate as long as the configuration and the
// validity of its chain do. There are verdicts for accepted certificates only:
// a refusal is cheap to reach again, and remembering it would let whoever has a
// copy of a person's certificate lock that person out.
type verdict struct {
	identity  Identity
	issuer    *x509.Certificate
	steps     []Step // up to, not including, revocation
	notBefore time.Time
	notAfter  time.Time
}

// New makes a Verifier. A configuration that trusts nobody, or that would let
// everybody in by mistake, is an error.
func New(c Config) (*Verifier, error) {
	s, err := newState(c)
	if err != nil {
		return nil, err
	}
	v := &Verifier{}
	v.state.Store(s)
	return v, nil
}

// Reload puts a new configuration into force for all requests that begin after
// it. On an error the old one stays.
func (v *Verifier) Reload(c Config) error {
	s, err := newState(c)
	if err != nil {
		return err
	}
	v.state.Store(s)
	return nil
}

func newState(c Config) (*state, error) {
	a, err := newAnchors(c.Roots, c.Issuing, pins(c.Pins))
	if err != nil {
		return nil, err
	}
	p, err := newPolicy(c)
	if err != nil {
		return nil, err
	}
	if c.Revocation == nil {
		return nil, errors.New("verify: no revocation checker; use package revoke, or say why none is needed with InsecureSkipRevocation")
	}
	s := &state{
		anchors: a, policy: p, table: c.Issuers, revocation: c.Revocation, now: c.Now,
		verdicts: lru.New[uint64, *verdict](maxVerdicts), seed: maphash.MakeSeed(),
	}
	if s.table == nil {
		s.table = fineid.DVV()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.epoch = hashOf(a.content, p.content)
	return s, nil
}

// Epoch names the anchors and the policy in force: a hash of their content, the
// same on every machine with the same configuration. TLS tickets that were
// given out under another epoch must not be taken any more.
func (v *Verifier) Epoch() string { return v.state.Load().epoch }

// Verify decides. On acceptance err is nil; otherwise it is a *Refusal, and the
// Identity is empty. The Report is complete either way: checks that were not
// reached are listed as not asked.
func (v *Verifier) Verify(ctx context.Context, ev evidence.Evidence) (Identity, Report, error) {
	s := v.state.Load()
	run := newRun(s)
	if len(ev.Leaf) == 0 {
		return run.refuse(CheckCertificate, CodeNoCertificate, "the client sent no certificate", nil)
	}
	key := maphash.Bytes(s.seed, ev.Leaf)
	found, ok := s.verdicts.Get(key)
	if !ok || !bytes.Equal(found.identity.Leaf.Raw, ev.Leaf) || run.now.Before(found.notBefore) || run.now.After(found.notAfter) {
		s.verdicts.Delete(key)
		var err error
		run.report.Fingerprint = sha256.Sum256(ev.Leaf)
		if found, err = run.judge(ev); err != nil {
			return run.refused(err)
		}
		s.verdicts.Put(key, found)
	}
	run.report.Fingerprint = found.identity.Fingerprint
	run.report.Steps = append(run.report.Steps[:0], found.steps...)
	return run.checkRevocation(ctx, found)
}

// run is one call of Verify.
type run struct {
	*state
	now    time.Time
	report Report
}

func newRun(s *state) *run {
	now := s.now()
	return &run{state: s, now: now, report: Report{Time: now, Epoch: s.epoch, Steps: make([]Step, 0, len(checks))}}
}

// judge makes a verdict from nothing but the certificates and the clock. Its
// steps are those of every later request, too.
func (r *run) judge(ev evidence.Evidence) (*verdict, error) {
	leaf, err := x509.ParseCertificate(ev.Leaf)
	if err != nil {
		return nil, r.fail(CheckCertificate, CodeBadCertificate, "it cannot be read", err)
	}
	leaf = fineid.Understood(leaf)
	r.pass(CheckCertificate, "serial "+hex.EncodeToString(leaf.SerialNumber.Bytes()))
	if err := r.checkValidity(leaf); err != nil {
		return nil, err
	}
	if err := r.checkUsage(leaf); err != nil {
		return nil, err
	}
	chain, err := r.checkChain(leaf, ev.Chain)
	if err != nil {
		return nil, err
	}
	if err := r.checkPolicy(leaf); err != nil {
		return nil, err
	}
	who, err := r.checkIdentity(leaf)
	if err != nil {
		return nil, err
	}
	v := &verdict{
		identity: Identity{
			Identity: who, Leaf: leaf, Fingerprint: r.report.Fingerprint, Chain: chain,
			Key: who.Family + "/" + who.SerialNumber, verified: true,
		},
		issuer: chain[1], notBefore: leaf.NotBefore, notAfter: leaf.NotAfter,
	}
	for _, c := range chain[1:] {
		v.notBefore = later(v.notBefore, c.NotBefore)
		v.notAfter = earlier(v.notAfter, c.NotAfter)
	}
	v.steps = append(v.steps, r.report.Steps...)
	return v, nil
}

// checkRevocation is the part that is done anew for every request.
func (r *run) checkRevocation(ctx context.Context, v *verdict) (Identity, Report, error) {
	answer, err := r.revocation.Check(ctx, v.identity.Leaf, v.issuer)
	switch {
	case err != nil:
		return r.refuse(CheckRevocation, CodeRevocationUnknown, "no answer that can be trusted", err)
	case answer.Status == Revoked:
		return r.refuse(CheckRevocation, CodeRevoked, answer.Detail, nil)
	case answer.Status == NotAsked:
		r.step(CheckRevocation, ResultNotAsked, answer.Detail)
	case answer.Status == Good:
		r.pass(CheckRevocation, answer.Detail)
	default:
		return r.refuse(CheckRevocation, CodeRevocationUnknown, "the checker gave no status", nil)
	}
	until, err := r.checkIssuers(ctx, v.identity.Chain)
	if err != nil {
		return r.refused(err)
	}
	if !until.IsZero() && (answer.Until.IsZero() || until.Before(answer.Until)) {
		answer.Until = until
	}
	r.report.Decision, r.report.RevocationUntil = Accepted, answer.Until
	return v.identity, r.report, nil
}

// checkIssuers asks about the CAs between the leaf and its anchor. An anchor is
// trusted by configuration and nobody is asked about it. until is zero where
// nobody was asked.
func (r *run) checkIssuers(ctx context.Context, chain []*x509.Certificate) (until time.Time, err error) {
	if len(chain) == 2 {
		detail := "the anchor itself issued the certificate"
		if !selfIssued(last(chain)) {
			detail = "the anchor is an issuing CA: its root's revocation list was not asked"
		}
		r.step(CheckIssuerRevocation, ResultNotAsked, detail)
		return until, nil
	}
	result, detail := ResultOK, ""
	for i, ca := range chain[1 : len(chain)-1] {
		answer, err := r.revocation.Check(ctx, ca, chain[i+2])
		switch {
		case err != nil:
			return until, r.fail(CheckIssuerRevocation, CodeRevocationUnknown, "no answer that can be trusted about an issuing CA", err)
		case answer.Status == Revoked:
			return until, r.fail(CheckIssuerRevocation, CodeRevoked, fmt.Sprintf("issuing CA %q: %s", ca.Subject.CommonName, answer.Detail), nil)
		case answer.Status == NotAsked:
			result = ResultNotAsked
		case answer.Status != Good:
			return until, r.fail(CheckIssuerRevocation, CodeRevocationUnknown, "the checker gave no status", nil)
		case until.IsZero() || answer.Until.Before(until):
			until = answer.Until
		}
		if detail != "" {
			detail += "; "
		}
		detail += answer.Detail
	}
	r.step(CheckIssuerRevocation, result, detail)
	return until, nil
}

func (r *run) step(check string, result Result, detail string) {
	if len(detail) > maxDetail { // may come from whoever made the certificate
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + "…"
	}
	r.report.Steps = append(r.report.Steps, Step{check, result, detail})
}

func (r *run) pass(check, detail string) { r.step(check, ResultOK, detail) }

// fail notes a failed check and makes the refusal of it.
func (r *run) fail(check, code, detail string, cause error) *Refusal {
	full := detail
	if cause != nil {
		full = fmt.Sprintf("%s: %v", detail, cause)
	}
	r.step(check, ResultFailed, full)
	return &Refusal{Code: code, Check: check, detail: detail, cause: cause}
}

func (r *run) refuse(check, code, detail string, cause error) (Identity, Report, error) {
	return r.refused(r.fail(check, code, detail, cause))
}

// refused ends the report: what was not reached is said to be so.
func (r *run) refused(err error) (Identity, Report, error) {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		r.report.Code = refusal.Code
	}
	r.report.Decision = Refused
	for _, check := range checks[len(r.report.Steps):] {
		r.step(check, ResultNotAsked, "refused before it came to this")
	}
	return Identity{}, r.report, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
