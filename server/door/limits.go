package door

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/kortti-id/kortti/server/limit"
	"github.com/kortti-id/kortti/server/verify"
)

// retryAfter is what a client that is put off is told to wait.
const retryAfter = 10 * time.Second

// limited tells whether a request is put off because its network has had too
// many refused. A whole hospital may come from one address, so it is only about
// certificates that no active user has logged in with, and headers that cannot
// be believed (readErr).
func (d *Door) limited(ctx context.Context, v visit, readErr error) (bool, error) {
	network := limit.Network(v.evidence.Address)
	if d.Refusals == nil || !network.IsValid() || !v.presented && readErr == nil || !d.Refusals.Spent(network) {
		return false, nil
	}
	if readErr != nil {
		return true, nil
	}
	active, err := d.Users.ActiveCertificate(ctx, v.evidence.Fingerprint())
	return !active, err
}

// countRefusal counts what only a certificate or a request that is itself bad
// can cause. An issuer that cannot be asked is nobody's fault, and somebody
// whose card has been verified and who waits for an account is no attacker.
func (d *Door) countRefusal(code string, v visit) {
	network := limit.Network(v.evidence.Address)
	if d.Refusals == nil || !network.IsValid() || v.key() != "" || code == verify.CodeRevocationUnknown {
		return
	}
	d.Refusals.Take(network)
}

// putOff answers without having looked. Nothing of it comes into the audit log,
// which a flood would fill; the refusals before it are there.
func (d *Door) putOff(w http.ResponseWriter, r *http.Request, v visit) {
	if d.Decided != nil {
		_ = d.Decided(Record{Time: d.Now().UTC(), Event: EventLimit, Code: CodeTooMany, Source: v.evidence.Source})
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	d.answer(w, r, http.StatusTooManyRequests, CodeTooMany, "")
}
