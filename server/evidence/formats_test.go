package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// vector is a header as a proxy writes it, or as none should.
type vector struct {
	name, format, leaf, chain string
	code                      string // "" = read
	behind                    int    // certificates behind the leaf
}

// vectors are made of a person's certificate and its issuer's.
func vectors(leaf, issuer []byte) []vector {
	b64 := base64.StdEncoding.EncodeToString
	field := func(der []byte) string { return ":" + b64(der) + ":" }
	escaped := func(ders ...[]byte) string {
		text := ""
		for _, der := range ders {
			text += pemOf(der)
		}
		return url.PathEscape(text)
	}
	sum := func(der []byte) string {
		s := sha256.Sum256(der)
		return hex.EncodeToString(s[:])
	}
	good := `Hash=` + sum(leaf) + `;Cert="` + escaped(leaf) + `"`
	return []vector{
		{"one", RFC9440, field(leaf), "", "", 0},
		{"with its issuer", RFC9440, field(leaf), field(issuer), "", 1},
		{"with a list", RFC9440, field(leaf), field(issuer) + ", " + field(issuer) + "\t,\t" + field(issuer), "", 3},
		{"the leaf again", RFC9440, field(leaf), field(leaf) + ", " + field(issuer), "", 1},
		{"more than is kept", RFC9440, field(leaf), strings.TrimSuffix(strings.Repeat(field(issuer)+",", 20), ","), "", maxHints},
		{"no colons", RFC9440, b64(leaf), "", CodeBadValue, 0},
		{"one colon", RFC9440, ":", "", CodeBadValue, 0},
		{"empty", RFC9440, "::", "", CodeBadValue, 0},
		{"two leaves", RFC9440, field(leaf) + ", " + field(issuer), "", CodeBadValue, 0},
		{"a parameter", RFC9440, field(leaf) + ";a=b", "", CodeBadValue, 0},
		{"base64 for URLs", RFC9440, ":" + base64.URLEncoding.EncodeToString([]byte{0xfb, 0xff, 0xfe}) + ":", "", CodeBadValue, 0},
		{"without padding", RFC9440, ":" + strings.TrimRight(b64([]byte{1}), "=") + ":", "", CodeBadValue, 0},
		{"another spelling of the last sign", RFC9440, ":AB==:", "", CodeBadValue, 0},
		{"PEM", RFC9440, escaped(leaf), "", CodeBadValue, 0},
		{"Caddy's placeholder", RFC9440, ":{http.request.tls.client.certificate_der_base64}:", "", CodeBadValue, 0},
		{"HAProxy without a certificate", RFC9440, "::", "", CodeBadValue, 0},
		{"a chain alone", RFC9440, "", field(issuer), CodeBadValue, 0},
		{"a chain that ends in a comma", RFC9440, field(leaf), field(issuer) + ",", CodeBadValue, 0},
		{"a chain of DERs run together", RFC9440, field(leaf), b64(append(bytes.Clone(issuer), issuer...)), CodeBadValue, 0},
		{"too long", RFC9440, ":" + strings.Repeat("AAAA", maxHeader/4) + ":", "", CodeOversize, 0},
		{"a certificate that is too long", RFC9440, ":" + b64(make([]byte, maxCertificate+1)) + ":", "", CodeOversize, 0},
		{"nothing", RFC9440, "", "", "", 0},

		{"SANITIZE_SET", EnvoyXFCC, good, "", "", 0},
		{"with names", EnvoyXFCC, `By=spiffe://a/b;` + good + `;Subject="CN=A\\, B;O=\"C\",E=F";URI=;DNS=a.fi;DNS=b.fi`, "", "", 0},
		{"with a chain", EnvoyXFCC, good + `;Chain="` + escaped(leaf, issuer) + `"`, "", "", 1},
		{"behind the client's own", EnvoyXFCC, `Hash=` + sum(issuer) + `;Cert="` + escaped(issuer) + `",` + good, "", "", 0},
		{"keys in capitals", EnvoyXFCC, strings.Replace(good, "Hash=", "HASH=", 1), "", "", 0},
		{"without quotes", EnvoyXFCC, "Cert=" + escaped(leaf), "", "", 0},
		{"the client's own alone has a certificate", EnvoyXFCC, good + `,Hash=` + sum(leaf), "", CodeBadValue, 0},
		{"another's hash", EnvoyXFCC, `Hash=` + sum(issuer) + `;Cert="` + escaped(leaf) + `"`, "", CodeBadValue, 0},
		{"no certificate", EnvoyXFCC, `Hash=` + sum(leaf) + `;Subject="CN=x"`, "", CodeBadValue, 0},
		{"two certificates", EnvoyXFCC, good + `;Cert="` + escaped(issuer) + `"`, "", CodeBadValue, 0},
		{"a name that ends its quotes", EnvoyXFCC, `Subject="CN=x"` + `"Cert=y"` + ";" + good, "", CodeBadValue, 0},
		{"a name with a comma and a certificate", EnvoyXFCC, `Subject="CN=x,Cert=` + escaped(issuer) + `";` + good, "", "", 0},
		{"no end", EnvoyXFCC, good + `;Subject="CN=x`, "", CodeBadValue, 0},
		{"a backslash at the end", EnvoyXFCC, `Subject="CN=x\`, "", CodeBadValue, 0},
		{"no pairs", EnvoyXFCC, b64(leaf), "", CodeBadValue, 0},
		{"an empty element", EnvoyXFCC, good + ",", "", CodeBadValue, 0},
		{"two leaves in Cert", EnvoyXFCC, `Cert="` + escaped(leaf, issuer) + `"`, "", CodeBadValue, 0},

		{"pem: true", Traefik, b64(leaf), "", "", 0},
		{"with what the client sent", Traefik, b64(leaf) + "," + b64(issuer), "", "", 1},
		{"percent-encoded", Traefik, url.QueryEscape(b64(leaf) + "," + b64(issuer)), "", "", 1},
		{"PEM", Traefik, escaped(leaf), "", CodeBadValue, 0},
		{"an empty part", Traefik, b64(leaf) + ",", "", CodeBadValue, 0},
		{"broken encoding", Traefik, "%zz", "", CodeBadValue, 0},
		{"its info header's text", Traefik, url.QueryEscape(`Subject="SN=99912345V";Cert="x"`), "", CodeBadValue, 0},
	}
}

// TestFormats reads what the proxies write, and refuses what only looks like it:
// the leaf is always the person's, whoever else stands in the header.
func TestFormats(t *testing.T) {
	leaf, issuer := newCertificate(t, "person").Certificate[0], newCertificate(t, "issuer").Certificate[0]
	for _, v := range vectors(leaf, issuer) {
		t.Run(v.format+"/"+v.name, func(t *testing.T) {
			rd, err := New(Config{Format: v.format, From: []string{"10.0.0.0/8"}})
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{rd.Header(): {v.leaf}}
			if v.chain != "" {
				header[formats[v.format].chain] = []string{v.chain}
			}
			ev, present, err := rd.Read(proxied(t, rd, "10.1.2.3:4000", header))
			if codeOf(err) != v.code || present != (v.code == "" && v.leaf != "") {
				t.Fatalf("present %v, error %v; want %q", present, err, v.code)
			}
			if present && (!bytes.Equal(ev.Leaf, leaf) || len(ev.Chain) != v.behind || ev.Source != v.format) {
				t.Errorf("another leaf, or %d behind it, want %d; %s", len(ev.Chain), v.behind, ev.Source)
			}
			if err != nil && len(v.leaf) > 60 && strings.Contains(err.Error(), v.leaf[10:50]) {
				t.Errorf("the error holds the value: %v", err)
			}
			if _, present, err := rd.Read(proxied(t, rd, "192.0.2.1:4000", header)); present || codeOf(err) != CodeUntrustedPeer {
				t.Errorf("from a stranger: present %v, error %v", present, err)
			}
			twice := http.Header{rd.Header(): {v.leaf, v.leaf}}
			if _, present, err := rd.Read(proxied(t, rd, "10.1.2.3:4000", twice)); present || codeOf(err) != CodeDuplicate {
				t.Errorf("twice: present %v, error %v", present, err)
			}
			alias := http.Header{strings.ReplaceAll(rd.Header(), "-", "_"): {v.leaf}}
			if _, present, err := rd.Read(proxied(t, rd, "10.1.2.3:4000", alias)); present || codeOf(err) != CodeAlias {
				t.Errorf("with underscores: present %v, error %v", present, err)
			}
		})
	}
}

// TestChainHasOneSpelling: the chain's header is checked as the leaf's is.
func TestChainHasOneSpelling(t *testing.T) {
	leaf := ":" + base64.StdEncoding.EncodeToString(newCertificate(t, "person").Certificate[0]) + ":"
	rd, err := New(Config{Format: RFC9440, From: []string{"10.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	for code, header := range map[string]http.Header{
		CodeDuplicate:    {"Client-Cert": {leaf}, "Client-Cert-Chain": {leaf, leaf}},
		CodeAlias:        {"Client-Cert": {leaf}, "Client_cert_chain": {leaf}},
		CodeSecondFormat: {"Client-Cert": {leaf}, "X-Forwarded-Client-Cert": {leaf}},
		CodeHopByHop:     {"Client-Cert": {leaf}, "Connection": {"client-cert-chain"}},
	} {
		if _, present, err := rd.Read(proxied(t, rd, "10.1.2.3:4000", header)); present || codeOf(err) != code {
			t.Errorf("%v: present %v, error %v", header, present, err)
		}
	}
}
