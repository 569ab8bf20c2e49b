package door

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

func newPages(t *testing.T) *Door {
	t.Helper()
	d, err := New(Config{LoginURL: "/login", RedirectURL: "/account", InactiveURL: "/inactive", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// An Identity that does not come from a Verifier admits nobody, whatever it says.
func TestIdentityMustBeVerified(t *testing.T) {
	d := newPages(t)
	made := visit{presented: true, identity: verify.Identity{Key: "dvv-citizen/99912345V"}}
	for method, serve := range map[string]func(http.ResponseWriter, *http.Request, visit){"GET": d.loginPage, "POST": d.login} {
		w := httptest.NewRecorder()
		serve(w, httptest.NewRequest(method, "https://kortti.example/login", nil), made)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s /login: %d", method, w.Code)
		}
	}
}

// Every page in every language: strict headers, no script, texts in place.
func TestPages(t *testing.T) {
	d := newPages(t)
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	for _, lang := range languages {
		r := httptest.NewRequest("GET", "/login?next=/x&lang="+string(lang), nil)
		hostile := `<script>alert(1)</script>"`
		p := d.newPage(r, "login.title")
		for name, data := range map[string]any{
			"login": struct {
				page
				Name, Username, Issuer, Next string
				New                          bool
			}{p, hostile, hostile, hostile, "/x", true},
			"inactive": struct {
				page
				Name, Username, Ref string
			}{p, hostile, hostile, hostile},
			"account": struct {
				page
				User        users.User
				Certificate *WhoamiCertificate
				Session     *WhoamiSession
			}{p, users.User{FirstName: hostile, Email: hostile, Roles: []string{hostile}}, &WhoamiCertificate{Subject: hostile, NotAfter: time.Now()}, nil},
			"refused": struct {
				page
				Text, Code, Ref, Again string
			}{p, hostile, hostile, hostile, "/login"},
		} {
			w := httptest.NewRecorder()
			d.show(w, 200, name, data)
			body := w.Body.String()
			if w.Code != 200 || !strings.Contains(body, `<html lang="`+string(lang)+`">`) || !strings.HasSuffix(body, "</html>\n") {
				t.Fatalf("%s in %s: %d\n%s", name, lang, w.Code, body)
			}
			if strings.Contains(body, "<script") || strings.Contains(body, "style=") {
				t.Errorf("%s holds a script or a style:\n%s", name, body)
			}
			sum := sha256.Sum256([]byte(style.FindStringSubmatch(body)[1]))
			csp := w.Header().Get("Content-Security-Policy")
			want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
			if csp != want {
				t.Errorf("policy %q, want %q", csp, want)
			}
			for header, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
				"Content-Type": "text/html; charset=utf-8",
			} {
				if got := w.Header().Get(header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
		}
	}
}

// Every text that a template or a handler names is there, in every language.
func TestTexts(t *testing.T) {
	used := regexp.MustCompile(`T "([a-z.]+)"|newPage\(r, "([a-z.]+)"\)|p\.T\("([a-z.]+)"\)`)
	source, err := files.ReadFile("pages/pages.html")
	if err != nil {
		t.Fatal(err)
	}
	matches := used.FindAllSubmatch(source, -1)
	if len(matches) < 15 {
		t.Fatalf("only %d texts found", len(matches))
	}
	for _, m := range matches {
		if _, ok := texts[string(bytes.Join(m[1:], nil))]; !ok {
			t.Errorf("no text %s", m[0])
		}
	}
	for key, text := range texts {
		if text.fi == "" || text.sv == "" || text.en == "" || text.fi == text.en {
			t.Errorf("%s is not in every language", key)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, code := range []string{
		CodeNoCertificate, CodeUnknownUser, CodeInactive, CodeNoSession, CodeCrossOrigin, CodeBadEvidence, CodeInternal,
		verify.CodeRevoked, verify.CodeExpired, verify.CodeWeakKey,
	} {
		for _, lang := range languages {
			if got := explain(lang, code); got == "" || got == verify.Text("no such code", string(lang)) {
				t.Errorf("%s is not explained in %s", code, lang)
			}
		}
	}
}

func TestChooseLang(t *testing.T) {
	for _, test := range []struct {
		asked, accept string
		want          Lang
	}{
		{"", "", "en"},
		{"fi", "sv", "fi"},
		{"xx", "sv", "sv"},
		{"", "fi-FI,fi;q=0.9,en;q=0.8", "fi"},
		{"", "de, sv-FI;q=0.5, fi;q=0.7", "fi"},
		{"", "de,fr;q=0.5", "en"},
		{"", "en;q=0.1, sv;q=0.2", "sv"},
		{"", "fi;q=0, *", "en"},
		{"", "fi;q=x,sv;q=0.1", "sv"},
		{"", "FI", "fi"},
	} {
		if got := chooseLang(test.asked, test.accept); got != test.want {
			t.Errorf("%q, %q: %q, want %q", test.asked, test.accept, got, test.want)
		}
	}
}

func FuzzChooseLang(f *testing.F) {
	f.Add("fi", "sv;q=0.5,en")
	f.Add("", ";;q=,;")
	f.Fuzz(func(t *testing.T, asked, accept string) {
		switch chooseLang(asked, accept) {
		case "fi", "sv", "en":
		default:
			t.Error("not one of our languages")
		}
	})
}
