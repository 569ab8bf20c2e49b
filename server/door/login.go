package door

import (
	"errors"
	"net/http"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

func (d *Door) loginPage(w http.ResponseWriter, r *http.Request, v visit) {
	next := d.nextOf(field(r, "next"))
	switch {
	case v.code == "" && v.loggedIn:
		d.redirect(w, next)
	case v.code == CodeInactive:
		d.redirect(w, withLang(d.InactiveURL, field(r, "lang")))
	case v.key() == "", !v.known && d.Create == users.CreateOff:
		d.recordShown(&v)
		d.refused(w, r, http.StatusForbidden, v.code, v.ref)
	default:
		profile, code, err := d.profile(&v)
		if err != nil {
			d.broken(w, r, err)
			return
		}
		if code != "" {
			_ = d.record(EventRequest, code, &v)
			d.refused(w, r, http.StatusForbidden, code, v.ref)
			return
		}
		name := users.User{Username: profile.Username, FirstName: profile.FirstName, LastName: profile.LastName}.Name()
		d.show(w, http.StatusOK, "login", struct {
			page
			Name, Username, Issuer, Next string
			New                          bool
		}{d.newPage(r, "login.title"), name, profile.Username, v.identity.Issuer, next, !v.known && d.Create == users.CreateInactive})
	}
}

// login logs in whoever the certificate of this very request belongs to.
func (d *Door) login(w http.ResponseWriter, r *http.Request, v visit) {
	readForm(w, r)
	next := d.nextOf(field(r, "next"))
	if v.key() == "" {
		d.refused(w, r, http.StatusForbidden, v.code, v.ref)
		return
	}
	if d.Logins != nil && !d.Logins.Take(v.key()) {
		d.putOff(w, r, v)
		return
	}
	code, err := d.admit(r, &v)
	if err != nil {
		d.broken(w, r, err)
		return
	}
	if err := d.record(EventLogin, code, &v); err != nil && code == CodeOK {
		// Whoever gets in must be on record.
		d.broken(w, r, errors.Join(err, d.Sessions.End(r.Context(), v.token)))
		return
	}
	switch code {
	case CodeOK:
		session.SetCookie(w, v.token)
		d.redirect(w, d.keepLang(next, field(r, "lang")))
	case CodeInactive:
		session.ClearCookie(w)
		d.redirect(w, withLang(d.InactiveURL, field(r, "lang")))
	default:
		session.ClearCookie(w)
		d.refused(w, r, http.StatusForbidden, code, v.ref)
	}
}

// keepLang keeps the chosen language only where the page is one of ours.
func (d *Door) keepLang(address, lang string) string {
	if _, own := d.doors[address]; own {
		return withLang(address, lang)
	}
	return address
}

// profile makes the account's names of whoever has been identified. A code says
// why that person is turned away all the same.
func (d *Door) profile(v *visit) (profile fineid.Profile, code string, err error) {
	if !v.identity.Verified() {
		return v.claim.Profile, "", nil
	}
	profile, err = d.MapUser(v.identity)
	if refusal, ok := errors.AsType[*verify.Refusal](err); ok {
		v.report.Steps = append(v.report.Steps, verify.Step{Check: refusal.Check, Result: verify.ResultFailed, Detail: err.Error()})
		return fineid.Profile{}, refusal.Code, nil
	}
	return profile, "", err
}

// admit finds or makes the account and starts a session if it is active. A
// session that the browser had before ends in every case.
func (d *Door) admit(r *http.Request, v *visit) (code string, err error) {
	ctx := r.Context()
	if old, ok := session.FromRequest(r); ok {
		if err := d.Sessions.End(ctx, old); err != nil {
			return "", err
		}
	}
	profile, code, err := d.profile(v)
	if err != nil || code != "" {
		return code, err
	}
	v.user, v.created, err = d.Users.Ensure(ctx, v.key(), profile, d.Create)
	if errors.Is(err, users.ErrUnknown) {
		return CodeUnknownUser, nil
	}
	if err != nil {
		return "", err
	}
	end := d.Now().Add(maxClaim)
	if v.identity.Verified() {
		leaf := v.identity.Leaf
		end = leaf.NotAfter
		if err := d.Users.CertificateSeen(ctx, v.user.ID, users.Certificate{
			SHA256: v.identity.Fingerprint, Issuer: fineid.DistinguishedName(leaf.Issuer),
			Serial: leaf.SerialNumber.Text(16), NotAfter: leaf.NotAfter,
		}); err != nil {
			return "", err
		}
	}
	if !v.user.Active {
		return CodeInactive, nil
	}
	v.token, v.session, err = d.Sessions.Create(ctx, v.user.ID, v.evidence.Fingerprint(), end)
	if err != nil {
		return "", err
	}
	return CodeOK, nil
}

func (d *Door) logout(w http.ResponseWriter, r *http.Request, v visit) {
	readForm(w, r)
	if token, ok := session.FromRequest(r); ok {
		if err := d.Sessions.End(r.Context(), token); err != nil {
			d.broken(w, r, err)
			return
		}
		_ = d.record(EventLogout, CodeOK, &v)
	}
	session.ClearCookie(w)
	d.redirect(w, withLang(d.LoginURL+"?bye=1", field(r, "lang")))
}

func (d *Door) inactivePage(w http.ResponseWriter, r *http.Request, v visit) {
	if v.code != CodeInactive {
		d.redirect(w, withLang(d.LoginURL, field(r, "lang")))
		return
	}
	d.recordShown(&v)
	p := d.newPage(r, "inactive.title")
	p.Stop = true
	d.show(w, http.StatusForbidden, "inactive", struct {
		page
		Name, Username, Ref string
	}{p, v.user.Name(), v.user.Username, v.ref})
}

func (d *Door) accountPage(w http.ResponseWriter, r *http.Request, v visit) {
	if v.code != "" {
		d.turnAway(w, r, v)
		return
	}
	data := struct {
		page
		User        users.User
		Certificate *WhoamiCertificate
		Session     *session.Session
	}{page: d.newPage(r, "account.title"), User: v.user, Certificate: v.certificate()}
	if v.loggedIn {
		data.Session = &v.session
	}
	d.show(w, http.StatusOK, "account", data)
}
