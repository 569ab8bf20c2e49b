package evidence

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzEscapedPEM: what is accepted is one certificate block and nothing else.
func FuzzEscapedPEM(f *testing.F) {
	text := pemOf(newCertificate(f, "person").Certificate[0])
	for _, seed := range []string{nginxEscape(text), text, nginxEscape(text + text), "%", "(null)", nginxEscape("-----BEGIN CERTIFICATE-----\nA: b\n\nAAAA\n-----END CERTIFICATE-----\n")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		der, err := parseEscapedPEM(value)
		if err != nil {
			if codeOf(err) != CodeBadValue && codeOf(err) != CodeOversize {
				t.Errorf("error %v", err)
			}
			return
		}
		if len(der) == 0 || len(der) > maxCertificate {
			t.Errorf("%d bytes", len(der))
		}
		if again, err := parseEscapedPEM(nginxEscape(pemOf(der))); err != nil || string(again) != string(der) {
			t.Errorf("written anew it is not the same: %v", err)
		}
	})
}

// FuzzFormats: whatever a trusted proxy writes, there is no certificate with an
// error, none that is empty or too long, and no panic; the leaf alone in each
// format's own words gives the leaf.
func FuzzFormats(f *testing.F) {
	der := newCertificate(f, "person").Certificate[0]
	for name := range formats {
		for _, v := range vectors(der, newCertificate(f, "issuer").Certificate[0]) {
			if v.format == name {
				f.Add(name, v.leaf, v.chain)
			}
		}
	}
	f.Fuzz(func(t *testing.T, name, leaf, chain string) {
		if _, ok := formats[name]; !ok {
			return
		}
		rd, err := New(Config{Format: name, From: []string{"10.0.0.0/8"}})
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{rd.Header(): {leaf}}
		if c := formats[name].chain; c != "" {
			header[c] = []string{chain}
		}
		ev, present, err := rd.Read(proxied(t, rd, "10.1.2.3:1", header))
		if err != nil && (present || ev.Leaf != nil || ev.Chain != nil || codeOf(err) != CodeBadValue && codeOf(err) != CodeOversize) {
			t.Fatalf("%v with a certificate of %d bytes", err, len(ev.Leaf))
		}
		if err == nil && present != (leaf != "") || present && (len(ev.Leaf) == 0 || len(ev.Leaf) > maxCertificate) || len(ev.Chain) > maxHints {
			t.Fatalf("present %v, %d bytes, %d behind", present, len(ev.Leaf), len(ev.Chain))
		}
	})
}

// FuzzHeaders: no header of a stranger makes a certificate appear or moves his
// address, and after Strip nothing is left that any spelling would read.
func FuzzHeaders(f *testing.F) {
	rd := newReader(f, "10.0.0.0/8")
	good := nginxEscape(pemOf(newCertificate(f, "person").Certificate[0]))
	for _, name := range []string{"X-Ssl-Client-Cert", "X_ssl_client_cert", "X-SSL-CLIENT.CERT", "Client-Cert", "Remote_User", "X-Real-IP", "Connection", "X-Forwarded-For"} {
		f.Add(name, good)
	}
	f.Add("Connection", "close, x-ssl-client-cert")
	f.Fuzz(func(t *testing.T, name, value string) {
		header := http.Header{name: {value}}
		ev, present, err := rd.Read(proxied(t, rd, "192.0.2.1:1", header))
		if present || ev.Leaf != nil || ev.Address.String() != "192.0.2.1" {
			t.Errorf("a stranger got %q past with %q", value, name)
		}
		folded := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
		if folded == "x-ssl-client-cert" && err == nil {
			t.Errorf("%q was passed over", name)
		}
		rd.Strip(header)
		for left := range header {
			if plain(left) == plain(DefaultHeader) {
				t.Errorf("%q is left", left)
			}
		}
	})
}
