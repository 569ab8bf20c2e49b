package door

import (
	"context"
	"errors"
	"net/http"

	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

// visit is what is known about who sends a request.
type visit struct {
	evidence  evidence.Evidence
	presented bool // a certificate came
	report    verify.Report
	identity  verify.Identity // believed only where its Verified says so
	claim     Claim           // in its place where a proxy's word is all there is
	known     bool            // user is set
	user      users.User
	created   bool // the account was made just now
	loggedIn  bool // session and token are set
	session   session.Session
	token     session.Token
	// code is "" when the person may pass, else the reason why not; ref is the
	// Record's that tells of it, if there is one.
	code, ref string
}

// key is the account's key of whoever has been identified; "" = nobody.
func (v visit) key() string {
	if v.identity.Verified() {
		return v.identity.Key
	}
	return v.claim.Key
}

// look finds out who sends a request. Sessions that cannot go on are ended here,
// once and for all. An error means that nothing could be found out.
func (d *Door) look(r *http.Request, v *visit) error {
	ctx := r.Context()
	sessionless := d.sessionless(r.URL.Path)
	if !sessionless {
		if err := d.findSession(r, v); err != nil {
			return err
		}
	}
	// A session is of use only together with its certificate, so without one
	// there is nothing more to find out. It goes on: a browser may open one
	// connection with a card and the next one without.
	if !v.presented {
		v.code = CodeNoCertificate
		return nil
	}
	if err := d.identify(ctx, v); err != nil {
		return err
	}
	switch {
	case v.code != "":
		_ = d.record(EventRequest, v.code, v)
	case !v.known:
		v.code = CodeUnknownUser
	case !v.user.Active:
		v.code = CodeInactive
	}
	if err := d.endIfOver(ctx, v); err != nil {
		return err
	}
	if v.code == "" && !sessionless && !v.loggedIn {
		v.code = CodeNoSession
	}
	if v.code == "" {
		return d.seen(ctx, *v)
	}
	return nil
}

// recordShown records that a person whose card was verified is shown a refusal.
// A certificate that was refused has its Record already.
func (d *Door) recordShown(v *visit) {
	if v.code == CodeUnknownUser || v.code == CodeInactive {
		_ = d.record(EventRequest, v.code, v)
	}
}

func (d *Door) findSession(r *http.Request, v *visit) error {
	token, ok := session.FromRequest(r)
	if !ok {
		return nil
	}
	s, err := d.Sessions.Get(r.Context(), token)
	if errors.Is(err, session.ErrNone) {
		return nil
	}
	v.token, v.session, v.loggedIn = token, s, err == nil
	return err
}

// identify verifies the certificate and finds its user.
func (d *Door) identify(ctx context.Context, v *visit) error {
	identified := d.verify
	if v.evidence.LegacyName != nil {
		identified = d.believe
	}
	if err := identified(ctx, v); err != nil || v.code != "" {
		return err
	}
	u, err := d.Users.ByKey(ctx, v.key())
	if errors.Is(err, users.ErrUnknown) {
		return nil
	}
	v.user, v.known = u, err == nil
	return err
}

func (d *Door) verify(ctx context.Context, v *visit) error {
	identity, report, err := d.Verifier.Verify(ctx, v.evidence)
	v.report = report
	if refusal, ok := errors.AsType[*verify.Refusal](err); ok {
		v.code = refusal.Code
		return nil
	}
	if err != nil {
		return err
	}
	if !identity.Verified() {
		return errors.New("the verifier gave neither an identity nor a refusal")
	}
	v.identity = identity
	return nil
}

// endIfOver ends a session that belongs to another certificate or user, to one
// who may no longer pass, or to a certificate that has been refused. An issuer
// that cannot be asked ends none: the session waits, and lets nobody in.
func (d *Door) endIfOver(ctx context.Context, v *visit) error {
	if !v.loggedIn {
		return nil
	}
	var code string
	var err error
	switch {
	case v.session.Certificate != v.evidence.Fingerprint(),
		v.key() != "" && (!v.known || v.user.ID != v.session.UserID):
		code = CodeOtherCertificate
		err = d.Sessions.End(ctx, v.token)
	case v.code == verify.CodeRevocationUnknown || v.code == "":
		return nil
	case v.known:
		code = v.code
		err = d.Sessions.EndUser(ctx, v.user.ID)
	default:
		code = v.code
		err = d.Sessions.EndCertificate(ctx, v.session.Certificate)
	}
	v.loggedIn = false
	_ = d.record(EventSessionEnded, code, v)
	return err
}

// seen notes that the user was here.
func (d *Door) seen(ctx context.Context, v visit) error {
	if v.loggedIn {
		if err := d.Sessions.Touch(ctx, v.token, v.session); err != nil {
			return err
		}
	}
	return d.Users.Seen(ctx, v.user)
}
