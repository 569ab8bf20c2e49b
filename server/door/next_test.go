package door_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/server/door"
)

func TestLocalURL(t *testing.T) {
	for next, want := range map[string]string{
		"/":                               "/",
		"/docs/?a=1&b=/x":                 "/docs/?a=1&b=/x",
		"/docs#part":                      "/docs",
		"/ä":                              "/%C3%A4",
		"/a//b":                           "/a//b",
		"":                                "",
		"docs":                            "",
		"//evil.example":                  "",
		"///evil.example":                 "",
		`/\evil.example`:                  "",
		`\/evil.example`:                  "",
		"/\t/evil.example":                "",
		"/\n/evil.example":                "",
		"https://evil.example/":           "",
		"https:evil.example":              "",
		"javascript:alert(1)":             "",
		"?next=/":                         "",
		"/%zz":                            "",
		"/" + strings.Repeat("x", 2048):   "",
		"@evil.example":                   "",
		"/@evil.example":                  "/@evil.example",
		"/%2F/evil.example":               "/%2F/evil.example",
		"/.//evil.example":                "/.//evil.example",
		"\u2028//evil.example":            "",
		"/docs?next=https://evil.example": "/docs?next=https://evil.example",
	} {
		if got := door.LocalURL(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
}

// Wherever a login is asked to lead, it leads to this host, and not in circles.
func TestLoginLeadsNowhereElse(t *testing.T) {
	r := newRig(t, nil)
	r.login()
	for _, next := range []string{"//evil.example", "https://evil.example", "/login", "/login?next=/login", "/logout", "/inactive", ""} {
		expect(t, r.post("/login", url.Values{"next": {next}}), http.StatusSeeOther, "/account")
		expect(t, r.do("GET", "/login?next="+url.QueryEscape(next)), http.StatusSeeOther, "/account")
	}
}

func FuzzLocalURL(f *testing.F) {
	for _, seed := range []string{"/", "//x", `/\x`, "/a?b#c", "/\x00", "http://x", "/%2f%2fx"} {
		f.Add(seed)
	}
	base := &url.URL{Scheme: "https", Host: "kortti.example", Path: "/login"}
	f.Fuzz(func(t *testing.T, next string) {
		local := door.LocalURL(next)
		if local == "" {
			return
		}
		u, err := base.Parse(local)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme {
			t.Fatalf("%q leads to %v, %v", next, u, err)
		}
		if strings.HasPrefix(local, "//") || strings.ContainsAny(local, "\\\r\n\t") {
			t.Fatalf("%q becomes %q, which browsers may read otherwise", next, local)
		}
		if again := door.LocalURL(local); again != local && len(local) <= 2048 {
			t.Fatalf("%q becomes %q and then %q", next, local, again)
		}
	})
}
