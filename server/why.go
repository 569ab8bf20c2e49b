package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/verify"
)

// Why verifies a certificate (PEM or DER; in PEM others may follow as hints for
// the chain) by a configuration's trust, asking its issuer about revocation. The
// Report says why it is accepted or refused; an error means that there is none.
//
// A time at that is not zero stands in for the present one. What was believed
// and known on that day is not kept: the anchors and the policy are those of the
// configuration, and of today's answer about revocation counts what had happened
// by then.
func Why(ctx context.Context, c Config, certificate []byte, at time.Time) (verify.Report, error) {
	p := &parts{now: time.Now}
	p.openTrust(c.withDefaults().Trust)
	defer p.close()
	if err := p.wrong(); err != nil {
		return verify.Report{}, err
	}
	verifier := p.verifier
	if !at.IsZero() {
		p.trust.Now = func() time.Time { return at }
		p.trust.Revocation = asOf{p.trust.Revocation, at}
		var err error
		if verifier, err = verify.New(p.trust); err != nil {
			return verify.Report{}, err
		}
	}
	list, err := ParseCertificates(certificate)
	if err != nil {
		return verify.Report{}, err
	}
	ev := evidence.Evidence{Leaf: list[0].Raw}
	for _, hint := range list[1:] {
		ev.Chain = append(ev.Chain, hint.Raw)
	}
	_, report, _ := verifier.Verify(ctx, ev) // a refusal is in the report, too
	return report, nil
}

// asOf takes back what its Checker has learned of times after at.
type asOf struct {
	verify.Checker
	at time.Time
}

func (a asOf) Check(ctx context.Context, leaf, issuer *x509.Certificate) (verify.Answer, error) {
	answer, err := a.Checker.Check(ctx, leaf, issuer)
	if err == nil && answer.Status == verify.Revoked && answer.RevokedAt.After(a.at) {
		answer.Status = verify.Good
		answer.Detail = fmt.Sprintf("not revoked on %s, but since: %s", a.at.UTC().Format(time.RFC3339), answer.Detail)
	}
	return answer, err
}
