package evidence

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// InsecureLegacyDN is what django-ssl-auth read: X-SSL-Authenticated
// ($ssl_client_verify) and X-SSL-User-DN ($ssl_client_s_dn or
// $ssl_client_s_dn_legacy). No certificate comes, so there is nothing to verify:
// whoever writes to the socket is whoever he says. It is for the days of a
// migration, from proxies on a Unix socket or with a certificate of their own
// only, and its Evidence has a LegacyName where others have a Leaf.
const InsecureLegacyDN = "insecure-legacy-dn"

const (
	legacyFlag = "X-Ssl-Authenticated"
	legacyHint = "send $ssl_client_verify and $ssl_client_s_dn, or better the certificate itself: format " + NginxEscapedPEM
	// maxLegacyName bounds the name, in bytes. Real ones have about 120.
	maxLegacyName = 4096
)

// legacyFormat is not among formats: nobody is to find it in a list of choices.
var legacyFormat = format{header: "X-Ssl-User-Dn", fixed: true, flag: legacyFlag, hint: legacyHint}

// legacyTypes are the attributes of subjects as OpenSSL, and so nginx, names
// them. Others are refused, in other spellings too: a second name for one
// attribute would get past the search for duplicates.
var legacyTypes = map[string]asn1.ObjectIdentifier{
	"C": {2, 5, 4, 6}, "ST": {2, 5, 4, 8}, "L": {2, 5, 4, 7}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11},
	"serialNumber": {2, 5, 4, 5}, "GN": {2, 5, 4, 42}, "SN": {2, 5, 4, 4}, "CN": {2, 5, 4, 3},
	"title": {2, 5, 4, 12}, "pseudonym": {2, 5, 4, 65}, "organizationIdentifier": {2, 5, 4, 97},
	"emailAddress": {1, 2, 840, 113549, 1, 9, 1}, "DC": {0, 9, 2342, 19200300, 100, 1, 25},
}

// readLegacy reads the two headers, which checkHeaders has passed. Without a
// certificate nginx sends NONE and no name, of one that it refuses FAILED and why.
func (rd *Reader) readLegacy(h http.Header, ev Evidence) (Evidence, bool, error) {
	wrong := func(header, why string) (Evidence, bool, error) {
		return ev, false, &Error{Code: CodeBadValue, Header: header, detail: why + "; " + legacyHint}
	}
	text := h.Get(rd.header)
	switch flag := h.Get(legacyFlag); {
	case flag == "NONE" && text == "", flag == "" && text == "", strings.HasPrefix(flag, "FAILED"):
		return ev, false, nil
	case flag != "SUCCESS":
		return wrong(legacyFlag, "is not what nginx says of a certificate")
	case text == "":
		return wrong(rd.header, "does not say who has been authenticated")
	case len(text) > maxLegacyName:
		return ev, false, &Error{Code: CodeOversize, Header: rd.header, detail: fmt.Sprintf("has %d bytes, at most %d are read", len(text), maxLegacyName)}
	}
	name, why := parseLegacyName(text)
	if why != "" {
		return wrong(rd.header, why)
	}
	ev.LegacyName, ev.Source = name, rd.format
	return ev, true, nil
}

// parseLegacyName reads a distinguished name in one of OpenSSL's two forms,
// and returns its attributes in the certificate's order. why is "" if it is one.
func parseLegacyName(text string) (name []pkix.AttributeTypeAndValue, why string) {
	if strings.HasPrefix(text, "/") {
		return parseSlashName(text)
	}
	return parseRFC2253Name(text)
}

// parseSlashName reads what X509_NAME_oneline writes. Where a value ends is not
// to be known for sure: older versions escape nothing, so a common name of
// "B/serialNumber=99900335E" looks like two attributes. Hence the signs of such a
// thing are refused, and so is a serialNumber that stands behind anything but
// the country, as none on a citizen's card does.
func parseSlashName(text string) (name []pkix.AttributeTypeAndValue, why string) {
	for part := range strings.SplitSeq(text[1:], "/") {
		kind, value, _ := strings.Cut(part, "=")
		if strings.ContainsAny(value, "=+") {
			return nil, "a value holds a sign that may begin another attribute"
		}
		if kind == "serialNumber" && slices.ContainsFunc(name, func(a pkix.AttributeTypeAndValue) bool { return !a.Type.Equal(legacyTypes["C"]) }) {
			return nil, "its serialNumber stands behind other text, where it may be part of that; send $ssl_client_s_dn"
		}
		value, ok := unescapeSlash(value)
		if !ok {
			return nil, "a value holds a backslash"
		}
		if name, why = addLegacy(name, kind, value); why != "" {
			return nil, why
		}
	}
	return name, ""
}

// unescapeSlash decodes the one escape without which few Finns could log in: the
// bytes of letters beyond ASCII, as in \xC3\xA4. A certificate may hold that very
// text, so a name may be shown wrongly, but the letters of a serialNumber are
// ASCII.
func unescapeSlash(value string) (string, bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(value, `\`)
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		if len(after) < 3 || after[0] != 'x' {
			return "", false
		}
		char, err := hex.DecodeString(after[1:3])
		if err != nil || char[0] < utf8.RuneSelf {
			return "", false
		}
		b.WriteByte(char[0])
		value = after[3:]
	}
}

// rfc2253Special are the signs that must be escaped in RFC 2253 section 2.4.
const rfc2253Special = `,+"\<>;`

// parseRFC2253Name reads what X509_NAME_print_ex writes with XN_FLAG_RFC2253:
// one attribute to a part, the last of the certificate first, every special sign
// escaped. The other liberties of that RFC (quotes, several attributes to a
// part, hexadecimal values, spaces around a comma) are refused.
func parseRFC2253Name(text string) (name []pkix.AttributeTypeAndValue, why string) {
	for more := true; more; {
		kind, rest, _ := strings.Cut(text, "=")
		var b strings.Builder
		if strings.HasPrefix(rest, "#") || strings.HasPrefix(rest, " ") {
			return nil, "a value begins with a sign that is not escaped"
		}
		more = false
		for rest != "" && !more {
			switch c := rest[0]; {
			case c == ',':
				more = true
			case c == '\\' && len(rest) > 1 && strings.IndexByte(rfc2253Special+" #", rest[1]) >= 0:
				b.WriteByte(rest[1])
				rest = rest[1:]
			case c == '\\':
				if len(rest) < 3 {
					return nil, "a value ends in a backslash"
				}
				char, err := hex.DecodeString(rest[1:3])
				if err != nil {
					return nil, "a backslash stands before something that is not to be escaped"
				}
				b.Write(char)
				rest = rest[2:]
			case strings.IndexByte(rfc2253Special, c) >= 0:
				return nil, "a value holds a sign that is not escaped"
			default:
				b.WriteByte(c)
			}
			rest = rest[1:]
		}
		if name, why = addLegacy(name, kind, b.String()); why != "" {
			return nil, why
		}
		text = rest
	}
	slices.Reverse(name)
	return name, ""
}

func addLegacy(name []pkix.AttributeTypeAndValue, kind, value string) ([]pkix.AttributeTypeAndValue, string) {
	oid, known := legacyTypes[kind]
	switch {
	case !known:
		return nil, "it is not a distinguished name as nginx writes it, or has an attribute that is not known here"
	case value == "" || !utf8.ValidString(value):
		return nil, "a value is empty or not UTF-8"
	}
	return append(name, pkix.AttributeTypeAndValue{Type: oid, Value: value}), ""
}
