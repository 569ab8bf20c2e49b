package probe

import (
	"net/http"
	"strings"
	"testing"
)

func TestRefresh(t *testing.T) {
	for value, want := range map[string]string{
		"0; url=/login": "/login", `3;URL="https://a.example.fi/x"`: "https://a.example.fi/x", "0;/next": "/next",
		"5": "", "": "", "0; url": "url", "0; url x": "", "0;url=": "", "0; url = next": "next", "0;": "",
	} {
		got := ""
		if u := refresh(value); u != nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("%q leads to %q, want %q", value, got, want)
		}
	}
}

// FuzzPage reads what a host may send; only HTML has forms and scripts.
func FuzzPage(f *testing.F) {
	f.Add("text/html", "0; url=/x", "<meta http-equiv=refresh content='0;url=/y'><form><script>x.submit()</script>")
	f.Add("application/xhtml+xml", "", "<html><body onload='a.submit()'/>")
	f.Add("text/plain", ";", "<!--")
	f.Fuzz(func(t *testing.T, kind, value, body string) {
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}, "Refresh": {value}}}
		p := readPage(resp, []byte(body))
		if (p.form || p.script) && !strings.Contains(strings.ToLower(kind), "html") {
			t.Errorf("%q is read as HTML", kind)
		}
	})
}

// FuzzNames reads the names of a CertificateRequest.
func FuzzNames(f *testing.F) {
	f.Add([]byte{0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x04, 't', 'e', 's', 't'})
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte("not DER"))
	f.Fuzz(func(t *testing.T, der []byte) {
		if all := names([][]byte{der}); len(all) > 1 {
			t.Errorf("one name became %q", all)
		}
	})
}
