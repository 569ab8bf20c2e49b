package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// navigation is a request as browsers make it for a tab.
func navigation(t *testing.T, method, url, languages string) *http.Request {
	t.Helper()
	req := request(t, method, url, nil)
	for name, value := range map[string]string{
		"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document",
		"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language": languages,
	} {
		req.Header.Set(name, value)
	}
	return req
}

// A navigation that waits gets a page that asks again and can do nothing else.
func TestHoldingPage(t *testing.T) {
	var asked []Asked
	r := newRig(t, never(t), func(c *Config) {
		c.Admit = func(ctx context.Context, a Asked) (context.Context, error) {
			asked = append(asked, a)
			return ctx, &Hold{For: WaitPIN, Err: errWaiting}
		}
	})
	resp, body := fetch(t, r.client(true), navigation(t, "GET", "https://card.test/secret?q=1", "fi-FI,fi;q=0.9,en;q=0.5"))
	if resp.StatusCode != 503 || resp.Header.Get(errorHeader) != "waiting" || resp.Header.Get("Retry-After") == "" {
		t.Error(resp.Status, resp.Header)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Content-Language": "fi", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Set-Cookie": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, want := range []string{`<meta http-equiv="refresh" content="2">`, `<html lang="fi">`, "Anna tunnusluku", "card.test"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	for _, bad := range []string{"<script", "secret", "<form", "<a ", "src="} {
		if strings.Contains(body, bad) {
			t.Errorf("%q in %s", bad, body)
		}
	}
	_, style, _ := strings.Cut(body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	want := "default-src 'none'; style-src 'sha256-" + sum(style) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := resp.Header.Get("Content-Security-Policy"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if a := asked[0]; !a.Navigation || !a.Repeats || !a.Browser || a.CrossSite || a.ByHand || a.Host != "card.test" {
		t.Errorf("%+v", a)
	}
}

// What has failed is told on a page that stays, in the browser's language;
// programs get what they always got.
func TestErrorPage(t *testing.T) {
	r := newRig(t, never(t), func(c *Config) {
		c.Explain = func(error) (int, string, string, string) {
			return 502, "upstream-certificate", "<b>not to be</b> trusted", "Set tls_roots."
		}
		c.Transport = roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("x") })
	})
	for lang, want := range map[string]string{"sv": "Försök igen", "en-GB": "Try again", "de, fi;q=0": "Try again", "fi": "Yritä uudelleen"} {
		resp, body := fetch(t, r.client(true), navigation(t, "GET", "https://card.test/", lang))
		if resp.StatusCode != 502 || !strings.Contains(body, `<a href="">`+want+"</a>") || !strings.Contains(body, "&lt;b&gt;not to be&lt;/b&gt; trusted") || strings.Contains(body, "http-equiv") {
			t.Errorf("%s: %s %s", lang, resp.Status, body)
		}
	}
	_, body := fetch(t, r.client(true), navigation(t, "POST", "https://card.test/", "en"))
	if strings.Contains(body, "<a ") || !strings.Contains(body, english.sendAgain) {
		t.Error("a form cannot be sent again by a link: ", body)
	}
	_, body = fetch(t, r.client(true), request(t, "GET", "https://card.test/", nil))
	if !strings.HasPrefix(body, "kortti: ") {
		t.Error(body)
	}
}

func TestAsked(t *testing.T) {
	for _, c := range []struct {
		method, headers, want string
	}{
		{"GET", "", "program"},
		{"GET", "Origin: https://card.test", "program"},
		{"GET", "Origin: https://evil.test", "browser cross-site"},
		{"GET", "Origin: null", "browser cross-site"},
		{"GET", "Sec-Fetch-Site: none, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: document, Sec-Fetch-User: ?1", "browser navigation repeats by-hand"},
		{"GET", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: document", "browser navigation repeats"},
		{"POST", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: document", "browser navigation"},
		{"GET", "Sec-Fetch-Mode: cors", "program"}, // Node's fetch
		{"GET", "Sec-Fetch-Site: none, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: document, Sec-Purpose: prefetch;prerender", "browser cross-site"},
		{"GET", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: iframe", "browser cross-site"},
		{"GET", "Sec-Fetch-Site: same-origin, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: iframe", "browser"},
		{"GET", "Sec-Fetch-Site: same-origin, Sec-Fetch-Mode: no-cors, Sec-Fetch-Dest: image", "browser"},
		{"GET", "Sec-Fetch-Site: same-site, Sec-Fetch-Mode: cors, Sec-Fetch-Dest: empty", "browser cross-site"},
		{"GET", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: no-cors, Sec-Fetch-Dest: script", "browser cross-site"},
	} {
		req := httptest.NewRequest(c.method, "https://card.test/", nil)
		for h := range strings.SplitSeq(c.headers, ", ") {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		a, got := asked(req, target{"card.test", "443"}), []string{}
		for _, is := range []struct {
			is   bool
			name string
		}{{!a.Browser, "program"}, {a.Browser, "browser"}, {a.Navigation, "navigation"}, {a.Repeats, "repeats"}, {a.ByHand, "by-hand"}, {a.CrossSite, "cross-site"}} {
			if is.is {
				got = append(got, is.name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: %v, want %s", c.method, c.headers, got, c.want)
		}
	}
}

// Each language says all that the others say.
func TestLanguagesAreWhole(t *testing.T) {
	for lang, w := range languages {
		if w.from == "" || w.again == "" || w.sendAgain == "" || w.other.Title == "" {
			t.Errorf("%s lacks words: %+v", lang, w)
		}
		if got, want := slices.Sorted(maps.Keys(w.codes)), slices.Sorted(maps.Keys(english.codes)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", lang, got, want)
		}
		for _, wait := range []Wait{WaitPIN, WaitConsent, WaitCertificate, WaitCard} {
			if w.waiting(wait, "waiting").Title == "" {
				t.Errorf("%s says nothing of %s", lang, wait)
			}
		}
		for code, t2 := range w.codes {
			if t2.Title == "" || len(t2.Advice) == 0 {
				t.Errorf("%s says too little of %s", lang, code)
			}
		}
	}
	for code, other := range sameAs {
		if _, ok := english.codes[other]; !ok {
			t.Errorf("%s is shown as %s, which has no text", code, other)
		}
	}
}

// FuzzLanguage feeds the choice of a language with odd headers.
func FuzzLanguage(f *testing.F) {
	for _, s := range []string{"", "fi", "sv-SE,sv;q=0.9", "en;q=x,fi;q=NaN", ";;,,=;q", "fi;q=1e999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if _, ok := languages[language([]string{header})]; !ok {
			t.Fatalf("%q is none of ours", fmt.Sprint(language([]string{header})))
		}
	})
}
