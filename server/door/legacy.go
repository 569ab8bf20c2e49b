package door

import (
	"context"
	"errors"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/verify"
)

// Claim is who somebody is by the word of a proxy alone. It is never made into a
// verify.Identity, so nothing that asks for one can be given it.
type Claim struct {
	Key     string // of the account, that of the person's verified certificate too
	Profile fineid.Profile
}

// maxClaim bounds a session that stands on a Claim: when the certificate behind
// it ends is not known.
const maxClaim = 24 * time.Hour

// believe takes a proxy's word for who sends the request.
func (d *Door) believe(_ context.Context, v *visit) error {
	if d.Legacy == nil {
		return errors.New("a proxy says a name in place of a certificate, and nothing here reads it")
	}
	claim, err := d.Legacy(v.evidence.LegacyName)
	if err != nil {
		v.code = verify.CodeBadIdentity
		v.report.Steps = []verify.Step{{Check: verify.CheckIdentity, Result: verify.ResultFailed, Detail: err.Error()}}
		return nil
	}
	if claim.Key == "" {
		return errors.New("the reader of names from proxies gave no key")
	}
	v.claim = claim
	v.report.Steps = []verify.Step{{Check: verify.CheckCertificate, Result: verify.ResultNotAsked, Detail: "none came: the proxy says who this is"}}
	return nil
}
