package proxy

import (
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestParseConnect(t *testing.T) {
	for in, want := range map[string]target{
		"card.test:443":          {"card.test", "443"},
		"Card.TEST.:443":         {"card.test", "443"},
		"a_b.example.fi:1":       {"a_b.example.fi", "1"},
		"127.0.0.1:65535":        {"127.0.0.1", "65535"},
		"[::1]:443":              {"::1", "443"},
		"[::FFFF:127.0.0.1]:443": {"127.0.0.1", "443"},
		"[0:0:0:0:0:0:0:1]:443":  {"::1", "443"},
	} {
		if got, err := parseConnect(in); err != nil || got != want {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", ":", ":443", "card.test", "card.test:", "card.test:0", "card.test:65536", "card.test:+1", "card.test:0443", "card.test:443:443",
		"::1:443", "[::1]", "[::1]443", "[::1", "::1]:443", "[fe80::1%lo]:443", "[127.0.0.1]:443", "[card.test]:443", "[]:443",
		"a..b:443", ".card.test:443", "card.test..:443", "user@card.test:443", "card.test/:443", "/card.test:443", "http://card.test:443",
		"card test:443", "card.test:443 ", "card\r\nx:443", "card\x00.test:443", "kä.test:443", "%63ard.test:443", "card.test:https", "*:443",
		"*.cards.test:443", strings.Repeat("a", 64) + ".test:443", strings.Repeat("a.", 130) + "test:443",
	} {
		if got, err := parseConnect(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// FuzzConnectTarget: what passes has one form, and is safe in a header, a URL
// and a log.
func FuzzConnectTarget(f *testing.F) {
	for _, s := range []string{"card.test:443", "[::1]:443", "127.0.0.1:80", "Card.Test.:443", "[::ffff:1.2.3.4]:1", "a\r\nb:1", "*.a:1", "a:b:1", "[a]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseConnect(s)
		if err != nil {
			return
		}
		if again, err := parseConnect(got.String()); err != nil || again != got {
			t.Errorf("%q gives %v, which gives %v %v", s, got, again, err)
		}
		if again, err := parseAuthority(got.authority("443"), "443"); err != nil || again != got {
			t.Errorf("%q gives %v, its authority gives %v %v", s, got, again, err)
		}
		if !httpguts.ValidHostHeader(got.String()) || strings.ContainsAny(got.host, "/@?#%\\\"'<> \r\n\t") || got.host != strings.ToLower(got.host) {
			t.Errorf("%q gives %q", s, got.host)
		}
		if _, err := http.NewRequest("GET", "https://"+got.authority("443")+"/", nil); err != nil {
			t.Errorf("%q gives %v: %v", s, got, err)
		}
	})
}
