// Package door is the way in: HTTP handlers that admit people by certificate.
// Handler stands in front of an application. It looks at every request anew
// (evidence, verifier, account, session), serves the pages for logging in and
// out, and lets nobody through to the application who is not an active user.
//
// Logging in is always a POST; GET changes nothing. With sessions, a request
// must come with the session's own certificate as well: a stolen cookie alone
// opens nothing. On routes without sessions (Config.Sessionless) the certificate
// alone decides. Requests from other web sites are refused on every route,
// because a certificate is sent along as blindly as a cookie.
package door

import (
	"context"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/limit"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

// Paths of doors that are always the same.
const (
	LogoutPath  = "/logout"
	AccountPath = "/account"
	WhoamiPath  = "/whoami"
	HealthPath  = "/healthz"
	ReadyPath   = "/readyz"
)

// Config says how a Door decides. All fields without "optional" are needed.
type Config struct {
	Evidence *evidence.Reader
	Verifier *verify.Verifier
	Users    *users.Store
	Sessions *session.Store
	// MapUser makes the account's names from a verified identity; optional,
	// the default is that of FINeID. An error that wraps a *verify.Refusal turns
	// the person away for its reason.
	MapUser func(verify.Identity) (fineid.Profile, error)
	Create  users.Create
	// Legacy reads the name that a proxy says in place of a certificate
	// (evidence.InsecureLegacyDN); nil = nobody is believed so.
	Legacy func(name []pkix.AttributeTypeAndValue) (Claim, error)

	LoginURL    string // path of the login page
	RedirectURL string // path to go to after the login, unless the person came from elsewhere
	InactiveURL string // path of the page for those who wait for approval
	// Sessionless are routes on which the certificate alone decides: a path,
	// or a tree of paths when it ends in a slash.
	Sessionless []string

	// Refusals are counted for each network that clients come from; where they
	// are spent, only certificates of active users are looked at. Optional.
	Refusals *limit.Limiter[netip.Prefix]
	// Logins are counted for each account, by its key. Optional.
	Logins *limit.Limiter[string]

	// Decided is told of every decision; optional. A login that it returns an
	// error for is not carried out.
	Decided func(Record) error
	Ready   func(context.Context) error // asked by /readyz
	Now     func() time.Time
	Log     *slog.Logger
}

// Record is one decision, for audits and counters. It names the person by the
// account's number and the certificate's hash only.
type Record struct {
	Time        time.Time     `json:"time"`
	Event       Event         `json:"event"`
	Code        string        `json:"code"` // "ok" or a reason
	Created     bool          `json:"created,omitempty"`
	User        int64         `json:"user,omitempty"`
	Certificate string        `json:"certificate,omitempty"` // SHA-256
	Source      string        `json:"source,omitempty"`
	Address     string        `json:"address,omitempty"`
	Report      []verify.Step `json:"report,omitempty"`
	// Ref is what the person was shown beside the reason, so that whoever is
	// asked for help finds this Record.
	Ref string `json:"ref,omitempty"`
}

// Event is what a Record is about.
type Event string

// The events of a Record.
const (
	EventLogin        Event = "login"         // somebody pressed the button
	EventLogout       Event = "logout"        // a session ended by its user's wish
	EventSessionEnded Event = "session-ended" // a session ended for the reason in Code
	EventRequest      Event = "request"       // a certificate that gets nobody in
	EventEvidence     Event = "evidence"      // headers that cannot be believed
	EventCrossOrigin  Event = "cross-origin"  // a request from another web site
	EventLimit        Event = "limit"         // a request that was not looked at: too many before it
)

// CodeOK is the Code of a Record that let somebody in or out.
const CodeOK = "ok"

// Reasons of the door itself, beside those of package verify.
const (
	CodeNoCertificate    = "no-certificate"
	CodeUnknownUser      = "unknown-user"
	CodeInactive         = "inactive"
	CodeNoSession        = "no-session"
	CodeOtherCertificate = "other-certificate" // in a Record only
	CodeCrossOrigin      = "cross-origin"
	CodeBadEvidence      = "bad-evidence"
	CodeInternal         = "internal"
	CodeTooMany          = "too-many-requests"
)

// Door admits people. It is safe for concurrent use.
type Door struct {
	Config
	crossOrigin *http.CrossOriginProtection
	doors       map[string]*http.ServeMux // by path
	pages       *template.Template
	style       template.CSS
	policy      string // Content-Security-Policy of the pages
}

// New checks a configuration.
func New(c Config) (*Door, error) {
	d := &Door{Config: c, crossOrigin: http.NewCrossOriginProtection()}
	if d.MapUser == nil {
		d.MapUser = func(id verify.Identity) (fineid.Profile, error) { return id.Profile(), nil }
	}
	if err := d.mount(); err != nil {
		return nil, err
	}
	for _, route := range c.Sessionless {
		if !strings.HasPrefix(route, "/") || !isClean(route) {
			return nil, fmt.Errorf("sessionless route %q is not a plain path that begins with a slash", route)
		}
	}
	return d, d.parsePages()
}

// mount lays the doors on their paths.
func (d *Door) mount() error {
	d.doors = make(map[string]*http.ServeMux)
	for _, door := range []struct {
		what, method, path string
		serve              func(http.ResponseWriter, *http.Request, visit)
	}{
		{"login url", "GET", d.LoginURL, d.loginPage},
		{"login url", "POST", d.LoginURL, d.login},
		{"inactive url", "GET", d.InactiveURL, d.inactivePage},
		{"account", "GET", AccountPath, d.accountPage},
		{"logout", "POST", LogoutPath, d.logout},
		{"whoami", "GET", WhoamiPath, d.whoami},
	} {
		if !strings.HasPrefix(door.path, "/") || door.path == "/" || !isClean(door.path) || strings.ContainsAny(door.path, "{}") {
			return fmt.Errorf("%s %q is not a plain path that begins with a slash", door.what, door.path)
		}
		mux, taken := d.doors[door.path]
		if !taken {
			mux = http.NewServeMux()
			d.doors[door.path] = mux
		} else if door.method == "GET" || door.path != d.LoginURL {
			return fmt.Errorf("%s %q is the path of another page", door.what, door.path)
		}
		mux.HandleFunc(door.method+" "+door.path, func(w http.ResponseWriter, r *http.Request) {
			door.serve(w, r, r.Context().Value(visitKey{}).(visit))
		})
	}
	if LocalURL(d.RedirectURL) == "" || d.RedirectURL == d.LoginURL {
		return fmt.Errorf("redirect url %q is not a path on this host, or is the login page", d.RedirectURL)
	}
	return nil
}

type (
	visitKey struct{}
	userKey  struct{}
)

// UserFrom returns the user whom Handler has admitted.
func UserFrom(ctx context.Context) (users.User, bool) {
	u, ok := ctx.Value(userKey{}).(users.User)
	return u, ok
}

// Handler serves the doors on their paths and admits active users, and nobody
// else, to next on all other ones. Identity headers are gone from the requests
// that next sees, and RemoteAddr is the client's where a trusted proxy told it.
func (d *Door) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.health(w, r) {
			return
		}
		ev, presented, err := d.Evidence.Read(r)
		v := visit{evidence: ev, presented: presented}
		if limited, limitErr := d.limited(r.Context(), v, err); limitErr != nil {
			d.broken(w, r, limitErr)
			return
		} else if limited {
			d.putOff(w, r, v)
			return
		}
		if err != nil {
			d.badEvidence(w, r, v, err)
			return
		}
		if err := d.sameOrigin(r); err != nil {
			_ = d.record(EventCrossOrigin, CodeCrossOrigin, &v)
			d.answer(w, r, http.StatusForbidden, CodeCrossOrigin, v.ref)
			return
		}
		if err := d.look(r, &v); err != nil {
			d.broken(w, r, err)
			return
		}
		r = d.forward(r, v)
		if mux, own := d.doors[r.URL.Path]; own {
			mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, v)))
			return
		}
		if v.code != "" {
			d.turnAway(w, r, v)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, v.user)))
	})
}

// health answers the two paths that look at nobody.
func (d *Door) health(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	var err error
	switch r.URL.Path {
	case HealthPath:
	case ReadyPath:
		err = d.Ready(r.Context())
	default:
		return false
	}
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		d.Log.Error("not ready", "error", err)
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return true
	}
	fmt.Fprintln(w, "ok")
	return true
}

// sameOrigin refuses what another web site makes a browser send. A WebSocket is
// opened by a GET, which the standard check lets pass, but it can change things;
// so can any other protocol that takes over from a GET.
func (d *Door) sameOrigin(r *http.Request) error {
	if len(r.Header.Values("Upgrade")) > 0 {
		r = r.Clone(r.Context())
		r.Method = http.MethodPost
	}
	return d.crossOrigin.Check(r)
}

// forward makes the request that handlers see.
func (d *Door) forward(r *http.Request, v visit) *http.Request {
	r = r.Clone(r.Context())
	d.Evidence.Strip(r.Header)
	if address := v.evidence.Address; address.IsValid() && v.evidence.Source != evidence.SourceTLS {
		if host, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || host != address.String() {
			r.RemoteAddr = net.JoinHostPort(address.String(), "0")
		}
	}
	return r
}

// sessionless says whether the certificate alone decides on a path. Paths that
// an application may read in two ways always need a session.
func (d *Door) sessionless(p string) bool {
	if !isClean(p) {
		return false
	}
	for _, route := range d.Sessionless {
		if p == route || strings.HasSuffix(route, "/") && strings.HasPrefix(p, route) {
			return true
		}
	}
	return false
}

// isClean says whether a path is the shortest form of itself for every program
// that may read it: some take a backslash for a slash, some cut segments off at a
// semicolon, so that "/api/..;/x" is "/x" to them.
func isClean(p string) bool {
	if strings.ContainsAny(p, `\;`) {
		return false
	}
	clean := path.Clean(p)
	return p == clean || p == clean+"/"
}

func (d *Door) badEvidence(w http.ResponseWriter, r *http.Request, v visit, err error) {
	code := CodeBadEvidence
	if e, ok := errors.AsType[*evidence.Error](err); ok {
		code = e.Code
	}
	d.Log.Warn("refused a request", "code", code, "error", err)
	_ = d.record(EventEvidence, code, &v)
	d.answer(w, r, http.StatusBadRequest, CodeBadEvidence, v.ref)
}

func (d *Door) broken(w http.ResponseWriter, r *http.Request, err error) {
	ref := newRef()
	if r.Context().Err() == nil {
		d.Log.Error("could not decide about a request", "error", err, "ref", ref)
	}
	d.answer(w, r, http.StatusInternalServerError, CodeInternal, ref)
}

// record tells of a decision; that it could not be put on record matters to logins
// alone, for what is refused stays so. The refusal of a request gets the reference that
// the person is shown; the end of a session, which follows it, has the same.
func (d *Door) record(event Event, code string, v *visit) error {
	if code != CodeOK && v.ref == "" {
		v.ref = newRef()
		d.countRefusal(code, *v)
	}
	if d.Decided == nil {
		return nil
	}
	record := Record{
		Time: d.Now().UTC(), Event: event, Code: code, Created: v.created, User: v.user.ID,
		Source: v.evidence.Source, Report: v.report.Steps, Ref: v.ref,
	}
	if v.presented && v.evidence.LegacyName == nil {
		record.Certificate = fmt.Sprintf("%x", v.evidence.Fingerprint())
	}
	if v.evidence.Address.IsValid() {
		record.Address = v.evidence.Address.String()
	}
	return d.Decided(record)
}

// newRef makes a reference that can be read out over the telephone.
func newRef() string {
	text := rand.Text() // letters and the digits 2 to 7, 5 bits each
	return text[:4] + "-" + text[4:8]
}
