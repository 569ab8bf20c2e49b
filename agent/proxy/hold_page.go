package proxy

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// refreshTime is how often a holding page asks again, in seconds.
const refreshTime = 2

var (
	//go:embed hold.html
	pageHTML string
	//go:embed hold.css
	pageCSS string

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
	// pagePolicy lets a page of ours do nothing, in the origin of the host that
	// it stands in for, but look as it is meant to.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + sum(pageCSS) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(h[:])
}

// page is what hold.html shows.
type page struct {
	answer
	Title                   string
	Advice                  []string
	Lang, Host, Again, From string
	Refresh                 int // seconds; 0 for a page that stays
	Style                   template.CSS
}

// wantsPage tells whether a person will look at the answer in a browser.
func wantsPage(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Mode") == "navigate" }

// pageOf makes the page for an answer; wait is what a navigation waits for, ""
// where nothing will go on by itself.
func pageOf(a answer, r *http.Request, wait Wait) page {
	lang := language(r.Header.Values("Accept-Language"))
	t := languages[lang]
	p := page{answer: a, Lang: lang, Host: r.Host, From: t.from, Style: template.CSS(pageCSS)}
	if wait != "" {
		say := t.waiting(wait, a.Code)
		p.Title, p.Advice, p.Refresh = say.Title, say.Advice, refreshTime
		p.Message = "" // all is said
		return p
	}
	say := t.of(a.Code)
	p.Title, p.Advice = say.Title, say.Advice
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		p.Advice = append(slices.Clone(p.Advice), t.sendAgain)
	default:
		p.Again = t.again
	}
	return p
}

// writePage sends a page with its status. Nothing is to be kept of it, and it
// gives nothing of the address away.
func writePage(w http.ResponseWriter, p page) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil { // only if the template is wrong
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Lang)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(p.Status)
	w.Write(b.Bytes()) // the browser may be gone
}

// language picks one of ours by Accept-Language (RFC 9110, section 12.5.4),
// English where there is none.
func language(accept []string) string {
	best, weight := "en", 0.0
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		tag, parameters, _ := strings.Cut(item, ";")
		primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		if _, ours := languages[primary]; !ours {
			continue
		}
		q := 1.0
		if value, ok := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(value, 64); err != nil {
				continue
			}
		}
		if q > weight {
			best, weight = primary, q
		}
	}
	return best
}
