package probe

import (
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/html"
)

// page is what a page says of the way on.
type page struct {
	location *url.URL // of a redirect, a Refresh header or a refreshing page
	script   bool     // it goes on by itself, by script
	form     bool     // it has a form
}

// readPage reads an answer: the redirects of HTTP (RFC 9110, section 15.4) and,
// where it is HTML, what its elements say.
func readPage(resp *http.Response, body []byte) page {
	var p page
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if to := resp.Header.Get("Location"); to != "" {
			p.location = link(to)
		}
		return p
	}
	p.location = refresh(resp.Header.Get("Refresh"))
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); p.location == nil && (kind == "text/html" || kind == "application/xhtml+xml") {
		p.readHTML(string(body))
	}
	return p
}

// goingOn is script that leaves the page or sends its form: what the pages of
// SAML and OpenID Connect do.
var goingOn = regexp.MustCompile(`\.submit\s*\(|location\s*(\.href)?\s*=|location\.(replace|assign)\s*\(`)

// readHTML looks at the elements of a page, of which a part may be missing.
func (p *page) readHTML(text string) {
	inScript := false
	for z := html.NewTokenizer(strings.NewReader(text)); ; {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			return
		case html.TextToken:
			p.script = p.script || inScript && goingOn.Match(z.Text())
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			inScript = t.Data == "script" && kind == html.StartTagToken
			p.readTag(t)
		case html.EndTagToken:
			inScript = false
		}
	}
}

func (p *page) readTag(t html.Token) {
	attributes := map[string]string{}
	for _, a := range t.Attr {
		attributes[a.Key] = a.Val
	}
	switch t.Data {
	case "form":
		p.form = true
	case "body":
		p.script = p.script || goingOn.MatchString(attributes["onload"])
	case "meta":
		if strings.EqualFold(attributes["http-equiv"], "refresh") && p.location == nil {
			p.location = refresh(attributes["content"])
		}
	}
}

// refresh reads the value of a Refresh header or of its meta element, such as
// "0; url=/login". One without a URL loads the page again and leads nowhere.
func refresh(value string) *url.URL {
	_, to, ok := strings.Cut(value, ";")
	if !ok {
		return nil
	}
	to = strings.TrimSpace(to)
	if len(to) >= 4 && strings.EqualFold(to[:3], "url") {
		to, ok = strings.CutPrefix(strings.TrimSpace(to[3:]), "=")
		if !ok {
			return nil
		}
	}
	return link(strings.Trim(strings.TrimSpace(to), `'"`))
}

// link is a URL reference; what is none is nil.
func link(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || text == "" {
		return nil
	}
	return u
}
