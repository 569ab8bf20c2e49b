package evidence

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

func legacyReader(t testing.TB) *Reader {
	t.Helper()
	rd, err := New(Config{Format: InsecureLegacyDN, From: []string{"unix:uid=33"}})
	if err != nil {
		t.Fatal(err)
	}
	return rd
}

// fromUnix is a request from a Unix socket's peer.
func fromUnix(uid uint32, header http.Header) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header
	return r.WithContext(context.WithValue(r.Context(), peerKey{}, peer{uid: uid, hasUID: true, recorded: true}))
}

// attributes writes a LegacyName for tests to compare.
func attributes(ev Evidence) string {
	var all []string
	for _, a := range ev.LegacyName {
		for kind, oid := range legacyTypes {
			if oid.Equal(a.Type) {
				all = append(all, fmt.Sprintf("%s=%v", kind, a.Value))
			}
		}
	}
	return strings.Join(all, "|")
}

const maija = "C=FI|serialNumber=99912345V|GN=MAIJA|SN=MÄKELÄ|CN=MÄKELÄ MAIJA 99912345V"

func TestLegacyName(t *testing.T) {
	rd := legacyReader(t)
	for _, test := range []struct{ name, dn, want string }{
		{"nginx legacy", `/C=FI/serialNumber=99912345V/GN=MAIJA/SN=M\xC3\x84KEL\xC3\x84/CN=M\xC3\x84KEL\xC3\x84 MAIJA 99912345V`, maija},
		{"nginx", `CN=M\C3\84KEL\C3\84 MAIJA 99912345V,SN=M\C3\84KEL\C3\84,GN=MAIJA,serialNumber=99912345V,C=FI`, maija},
		{"UTF-8 as it is", `CN=MÄKELÄ MAIJA 99912345V,SN=MÄKELÄ,GN=MAIJA,serialNumber=99912345V,C=FI`, maija},
		{"escaped signs", `CN=A\, B\+C\"D\\E\; \#F=G\ ,serialNumber=1,C=FI`, `C=FI|serialNumber=1|CN=A, B+C"D\E; #F=G `},
		{"a slash in RFC 2253", `CN=B/serialNumber=99900335E,serialNumber=99999999D,C=FI`, `C=FI|serialNumber=99999999D|CN=B/serialNumber=99900335E`},
		{"organisation card", `CN=X,serialNumber=12345678901,title=DR,OU=B,OU=A,O=Kortti Oy,C=FI`, "C=FI|O=Kortti Oy|OU=A|OU=B|title=DR|serialNumber=12345678901|CN=X"},
		{"duplicates, for fineid to refuse", `serialNumber=2,serialNumber=1,C=FI`, "C=FI|serialNumber=1|serialNumber=2"},
		{"duplicates with slashes", `/C=FI/serialNumber=1/serialNumber=2`, ""},

		// What django-ssl-auth took for 99900335E: measured with nginx and OpenSSL
		// 3, and as older versions write it.
		{"injection", `/C=FI/serialNumber=99999999D/SN=A/GN=B/CN=B\/serialNumber=99900335E`, ""},
		{"injection without escapes", `/C=FI/serialNumber=99999999D/SN=A/GN=B/CN=B/serialNumber=99900335E`, ""},
		{"injection without a number of one's own", `/C=FI/CN=B/serialNumber=99900335E`, ""},
		{"injection by organisation", `/C=FI/O=B/serialNumber=99900335E/CN=x`, ""},
		{"injection of a part", `/C=FI/serialNumber=1/CN=B+serialNumber=99900335E`, ""},
		{"equals sign", `/C=FI/serialNumber=1/CN=a=b`, ""},
		{"plus sign", `/C=FI/serialNumber=1/CN=a+b`, ""},
		{"backslash", `/C=FI/serialNumber=1/CN=a\b`, ""},
		{"backslash at the end", `/C=FI/serialNumber=1/CN=a\`, ""},
		{"cut escape", `/C=FI/serialNumber=1/CN=a\xC`, ""},
		{"escape of ASCII", `/C=FI/serialNumber=\x31/CN=a`, ""},
		{"no digits", `/C=FI/serialNumber=1/CN=a\xZZ`, ""},
		{"Latin-1", `/C=FI/serialNumber=1/CN=\xC4`, ""},
		{"slash alone", `/`, ""},
		{"slash at the end", `/C=FI/serialNumber=1/`, ""},
		{"two slashes", `/C=FI//serialNumber=1`, ""},
		{"empty value", `/C=FI/serialNumber=`, ""},
		{"other spelling", `/C=FI/serialnumber=1`, ""},
		{"by number", `CN=a,2.5.4.5=99900335E,serialNumber=1,C=FI`, ""},
		{"unknown", `CN=a,foo=b,serialNumber=1,C=FI`, ""},
		{"comma at the end", `serialNumber=1,C=FI,`, ""},
		{"space behind a comma", `serialNumber=1, C=FI`, ""},
		{"hexadecimal value", `serialNumber=#130131,C=FI`, ""},
		{"space in front", `serialNumber= 1,C=FI`, ""},
		{"quotes", `CN="a,serialNumber=2",serialNumber=1,C=FI`, ""},
		{"two attributes in a part", `CN=a+serialNumber=2,C=FI`, ""},
		{"semicolon", `CN=a;serialNumber=2,C=FI`, ""},
		{"backslash before a letter", `CN=\g1,C=FI`, ""},
		{"backslash before the end", `C=FI,CN=a\`, ""},
		{"half a byte", `C=FI,CN=a\4`, ""},
		{"not UTF-8", `CN=\C4,C=FI`, ""},
		{"no name", "(null)", ""},
		{"a certificate", "-----BEGIN%20CERTIFICATE-----", ""},
		{"too long", "CN=" + strings.Repeat("a", maxLegacyName), ""},
	} {
		header := http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {test.dn}}
		ev, present, err := rd.Read(fromUnix(33, header))
		if attributes(ev) != test.want || present != (test.want != "") || present == (err != nil) || ev.Leaf != nil {
			t.Errorf("%s: %q, %v; want %q", test.name, attributes(ev), err, test.want)
		}
		if err != nil && codeOf(err) != CodeBadValue && codeOf(err) != CodeOversize {
			t.Errorf("%s: %v", test.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "99900335E") {
			t.Errorf("%s: the error names somebody: %v", test.name, err)
		}
	}
}

func TestLegacyHeaders(t *testing.T) {
	rd := legacyReader(t)
	const dn = "/C=FI/serialNumber=99912345V"
	for _, test := range []struct {
		name    string
		uid     uint32
		header  http.Header
		present bool
		code    string
	}{
		{"nginx", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn}}, true, ""},
		{"no card", 33, http.Header{"X-Ssl-Authenticated": {"NONE"}}, false, ""},
		{"no headers", 33, http.Header{}, false, ""},
		{"refused by nginx", 33, http.Header{"X-Ssl-Authenticated": {"FAILED:certificate has expired"}, "X-Ssl-User-Dn": {dn}}, false, ""},
		{"refused by an old nginx", 33, http.Header{"X-Ssl-Authenticated": {"FAILED"}, "X-Ssl-User-Dn": {dn}}, false, ""},
		{"a stranger", 34, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn}}, false, CodeUntrustedPeer},
		{"a stranger's flag", 34, http.Header{"X-Ssl-Authenticated": {"NONE"}}, false, CodeUntrustedPeer},
		{"a name alone", 33, http.Header{"X-Ssl-User-Dn": {dn}}, false, CodeBadValue},
		{"a name of nobody", 33, http.Header{"X-Ssl-Authenticated": {"NONE"}, "X-Ssl-User-Dn": {dn}}, false, CodeBadValue},
		{"success alone", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}}, false, CodeBadValue},
		{"another flag", 33, http.Header{"X-Ssl-Authenticated": {"success"}, "X-Ssl-User-Dn": {dn}}, false, CodeBadValue},
		{"HAProxy's flag", 33, http.Header{"X-Ssl-Authenticated": {"0"}, "X-Ssl-User-Dn": {dn}}, false, CodeBadValue},
		{"two names", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn, dn}}, false, CodeDuplicate},
		{"two flags", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS", "NONE"}, "X-Ssl-User-Dn": {dn}}, false, CodeDuplicate},
		{"underscores", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X_ssl_user_dn": {dn}}, false, CodeAlias},
		{"an underscore in the flag", 33, http.Header{"X-Ssl_authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn}}, false, CodeAlias},
		{"a certificate beside it", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn}, "X-Ssl-Client-Cert": {"x"}}, false, CodeSecondFormat},
		{"dropped on the way", 33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn}, "Connection": {"x-ssl-user-dn"}}, false, CodeHopByHop},
	} {
		ev, present, err := rd.Read(fromUnix(test.uid, test.header))
		if present != test.present || codeOf(err) != test.code || present != (ev.LegacyName != nil) || present != (ev.Source == InsecureLegacyDN) {
			t.Errorf("%s: present %v, source %q, error %v; want %v, %q", test.name, present, ev.Source, err, test.present, test.code)
		}
	}
}

// Both forms of one name are one fingerprint, and another name is another.
func TestLegacyFingerprint(t *testing.T) {
	rd := legacyReader(t)
	seen := map[[32]byte]string{(Evidence{}).Fingerprint(): "an empty certificate"}
	for want, dns := range map[string][]string{
		"Maija":     {`/C=FI/serialNumber=99912345V/GN=MAIJA`, `GN=MAIJA,serialNumber=99912345V,C=FI`},
		"Matti":     {`/C=FI/serialNumber=99912346W/GN=MAIJA`},
		"Maija, GN": {`/C=FI/serialNumber=99912345V GN/SN=MAIJA`},
		"another":   {`/C=FI/serialNumber=99912345V/SN=MAIJA`},
	} {
		for _, dn := range dns {
			ev, _, err := rd.Read(fromUnix(33, http.Header{"X-Ssl-Authenticated": {"SUCCESS"}, "X-Ssl-User-Dn": {dn}}))
			if err != nil {
				t.Fatal(err)
			}
			if other := seen[ev.Fingerprint()]; other != "" && other != want {
				t.Errorf("%s has the fingerprint of %s", want, other)
			}
			seen[ev.Fingerprint()] = want
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d fingerprints of 5 names", len(seen))
	}
}

func TestLegacyConfig(t *testing.T) {
	pin := "mtls:" + strings.Repeat("ab", 32)
	for _, from := range [][]string{{"10.0.0.0/8"}, {"unix:uid=33", "127.0.0.1/32"}, {}} {
		if _, err := New(Config{Format: InsecureLegacyDN, From: from}); err == nil {
			t.Errorf("%q is believed", from)
		}
	}
	if _, err := New(Config{Format: InsecureLegacyDN, Header: "X-SSL-Other", From: []string{pin}}); err == nil {
		t.Error("another header is believed")
	}
	rd, err := New(Config{Format: InsecureLegacyDN, From: []string{pin}})
	if err != nil || len(rd.Warnings()) != 1 || !strings.Contains(rd.Warnings()[0], "NO CERTIFICATE IS VERIFIED") {
		t.Errorf("%v, warnings %q", err, rd.Warnings())
	}
	if _, err := New(Config{Format: "nginx", From: []string{pin}}); err == nil || strings.Contains(err.Error(), InsecureLegacyDN) {
		t.Errorf("the list of formats offers this one: %v", err)
	}
}

// FuzzLegacyName: what is read are known attributes with values that say
// something, and written anew in OpenSSL's other form they are read as the same.
func FuzzLegacyName(f *testing.F) {
	for _, seed := range []string{
		`/C=FI/serialNumber=99912345V/GN=MAIJA/SN=M\xC3\x84KEL\xC3\x84`, `CN=A\, B\+C\"D\\E\; \#F=G\ ,serialNumber=1,C=FI`,
		`CN=M\C3\84KEL\C3\84,serialNumber=99912345V,C=FI`, `/`, `/C=FI//`, `CN=a+SN=b`, `CN=#1301`, "", `CN=\`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, why := parseLegacyName(text)
		if (why == "") != (len(name) > 0) {
			t.Fatalf("%d attributes and %q", len(name), why)
		}
		var again []string
		for i := len(name) - 1; i >= 0; i-- {
			value, _ := name[i].Value.(string)
			if value == "" || !utf8.ValidString(value) {
				t.Errorf("value %q", value)
			}
			for kind, oid := range legacyTypes {
				if oid.Equal(name[i].Type) {
					again = append(again, kind+"="+rfc2253(value))
				}
			}
		}
		if len(name) == 0 {
			return
		}
		read, why := parseLegacyName(strings.Join(again, ","))
		if why != "" || attributes(Evidence{LegacyName: read}) != attributes(Evidence{LegacyName: name}) {
			t.Errorf("%q is read as %q, %s", again, attributes(Evidence{LegacyName: read}), why)
		}
	})
}

// FuzzLegacyInjection: whatever stands in a person's names and however old the
// OpenSSL is that writes them, the serialNumber is the person's own, or nobody's.
func FuzzLegacyInjection(f *testing.F) {
	for _, seed := range []string{"MAIJA", "B/serialNumber=99900335E", "B,serialNumber=99900335E", "B+serialNumber=99900335E", `\`, `\xC3\x84`, `B\,serialNumber=2`, "Ä", "#", " ", "\x00/"} {
		f.Add(seed, seed, true)
		f.Add(seed, "X", false)
	}
	f.Fuzz(func(t *testing.T, given, common string, numbered bool) {
		own := ""
		attrs := [][2]string{{"C", "FI"}, {"GN", given}, {"CN", common}}
		if numbered {
			own = "99912345V"
			attrs = [][2]string{{"C", "FI"}, {"serialNumber", own}, {"GN", given}, {"CN", common}}
		}
		var slash3, slash1 string
		var parts []string
		for _, a := range attrs {
			slash1 += "/" + a[0] + "=" + oneline(a[1], false)
			slash3 += "/" + a[0] + "=" + oneline(a[1], true)
			parts = append([]string{a[0] + "=" + rfc2253(a[1])}, parts...)
		}
		for _, text := range []string{slash1, slash3, strings.Join(parts, ",")} {
			name, _ := parseLegacyName(text)
			var numbers []string
			for _, a := range name {
				if a.Type.Equal(legacyTypes["serialNumber"]) {
					numbers = append(numbers, a.Value.(string))
				}
			}
			// Two numbers are refused by whoever reads the subject (fineid).
			if len(numbers) == 1 && numbers[0] != own {
				t.Errorf("%q is %q", text, numbers)
			}
		}
	})
}

// oneline writes a value as X509_NAME_oneline does, from OpenSSL 3 on with
// escapes.
func oneline(value string, escapes bool) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		switch {
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02X`, c)
		case escapes && (c == '/' || c == '+'):
			b.WriteString(`\` + string(c))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// rfc2253 writes a value as X509_NAME_print_ex does.
func rfc2253(value string) string {
	var b strings.Builder
	for i, c := range []byte(value) {
		switch {
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%02X`, c)
		case strings.IndexByte(rfc2253Special, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteString(`\` + string(c))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
