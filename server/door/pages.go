package door

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:embed pages
var files embed.FS

// maxForm is the largest form that is read, in bytes.
const maxForm = 16 << 10

// formTimeout is how long a client may take to send one: whoever drips it would
// hold a connection for nothing.
const formTimeout = 10 * time.Second

// parsePages reads the templates. The style is inlined and allowed by its hash,
// so that no path is taken from the application for it; scripts are not allowed
// at all.
func (d *Door) parsePages() error {
	pages, err := template.ParseFS(files, "pages/pages.html")
	if err != nil {
		return fmt.Errorf("read the pages: %w", err)
	}
	style, err := files.ReadFile("pages/style.css")
	if err != nil {
		return fmt.Errorf("read the pages: %w", err)
	}
	sum := sha256.Sum256(style)
	d.pages = pages
	d.style = template.CSS(style)
	d.policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
	return nil
}

// readForm reads the form of our own pages, all fields of which are optional.
func readForm(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	// An error means that this kind of connection has no deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(formTimeout))
	if err := r.ParseForm(); err != nil {
		r.Form = r.URL.Query()
	}
}

// field is a value of the form that readForm has read, else of the query: the
// body of any other request belongs to the application.
func field(r *http.Request, name string) string {
	if r.Form != nil {
		return r.Form.Get(name)
	}
	return r.URL.Query().Get(name)
}

// page is what every template needs.
type page struct {
	Lang      Lang
	Title     string
	Stop      bool // a refusal
	Style     template.CSS
	Languages []languageLink
	Login     string // address of the login page, in the same language
	Notice    string // one sentence about what has just happened
}

type languageLink struct {
	Code, Name, URL string
	Current         bool
}

// T is a text in the page's language.
func (p page) T(key string) string { return texts[key].in(p.Lang) }

// Moment is a time in the form of the page's language.
func (p page) Moment(t time.Time) string { return moment(p.Lang, t) }

func (d *Door) newPage(r *http.Request, title string) page {
	lang := chooseLang(field(r, "lang"), r.Header.Get("Accept-Language"))
	p := page{Lang: lang, Title: texts[title].in(lang), Style: d.style, Login: withLang(d.LoginURL, field(r, "lang"))}
	if field(r, "bye") != "" {
		p.Notice = p.T("login.goodbye")
	}
	for _, l := range []struct {
		code Lang
		name string
	}{{"fi", "Suomi"}, {"sv", "Svenska"}, {"en", "English"}} {
		q := r.URL.Query()
		q.Set("lang", string(l.code))
		p.Languages = append(p.Languages, languageLink{string(l.code), l.name, "?" + q.Encode(), l.code == lang})
	}
	return p
}

// withLang keeps a language that the person has chosen by hand on the way to
// another page of ours.
func withLang(path, lang string) string {
	if lang == "" {
		return path
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return path + separator + "lang=" + string(chooseLang(lang, ""))
}

func (d *Door) show(w http.ResponseWriter, status int, name string, data any) {
	var body bytes.Buffer
	if err := d.pages.ExecuteTemplate(&body, name, data); err != nil {
		d.Log.Error("could not make a page", "page", name, "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	d.secure(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body.Bytes()) // fails only when the client is gone
}

func (d *Door) secure(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", d.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	// Nothing leaves this host. "no-referrer" would do so too, but makes
	// browsers send "Origin: null" with our own forms, which those without
	// Sec-Fetch-Site would then be refused for.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// redirect answers a POST, or a GET that belongs elsewhere. The address is one
// that this package has made or checked.
func (d *Door) redirect(w http.ResponseWriter, address string) {
	d.secure(w)
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}

// turnAway answers those who may not pass: people are led to the page that
// helps them, programs get a status and a code.
func (d *Door) turnAway(w http.ResponseWriter, r *http.Request, v visit) {
	status := http.StatusForbidden
	if v.code == CodeNoCertificate || v.code == CodeNoSession {
		status = http.StatusUnauthorized
	}
	switch {
	case !isNavigation(r) || d.sessionless(r.URL.Path):
		d.recordShown(&v)
		d.answer(w, r, status, v.code, v.ref)
	case v.code == CodeInactive:
		d.redirect(w, d.InactiveURL)
	default:
		d.redirect(w, d.LoginURL+"?next="+url.QueryEscape(r.URL.RequestURI()))
	}
}

// answer gives a reason to a person as a page, to a program as JSON. ref is that
// of the Record, "" where there is none.
func (d *Door) answer(w http.ResponseWriter, r *http.Request, status int, code, ref string) {
	if isNavigation(r) || strings.Contains(r.Header.Get("Accept"), "text/html") {
		d.refused(w, r, status, code, ref)
		return
	}
	if status == http.StatusUnauthorized {
		// RFC 9110 section 11.6.1 wants a challenge; this one has no scheme
		// that browsers would answer with a password prompt.
		w.Header().Set("WWW-Authenticate", "Certificate")
	}
	reason := map[string]string{"code": code, "message": explain("en", code)}
	if ref != "" {
		reason["ref"] = ref
	}
	writeJSON(w, status, map[string]any{"error": reason})
}

// refused shows the page with a reason.
func (d *Door) refused(w http.ResponseWriter, r *http.Request, status int, code, ref string) {
	p := d.newPage(r, "refused.title")
	p.Stop = true
	again := ""
	if r.Method == http.MethodGet || r.URL.Path == d.LoginURL {
		again = p.Login
		if next := LocalURL(field(r, "next")); next != "" {
			again = withNext(again, next)
		}
	}
	d.show(w, status, "refused", struct {
		page
		Text, Code, Ref, Again string
	}{p, explain(p.Lang, code), code, ref, again})
}

func withNext(address, next string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	return address + separator + "next=" + url.QueryEscape(next)
}

// isNavigation says whether a browser wants to show the answer as a page
// (Fetch Metadata; older browsers tell by Accept).
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}
