package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// format is one way in which proxies write certificates into headers.
type format struct {
	header string // that carries the leaf, unless the configuration names another
	fixed  bool   // the configuration may not name another
	chain  string // that carries what is behind the leaf; "" where header does, or nothing does
	flag   string // that tells what the proxy thinks of the certificate; "" = there is none
	hint   string // what to send, for error texts
	// parse reads the leaf's header, which is not empty, and the chain's. Its
	// errors are made by bad.
	parse func(leaf, chain string) ([]byte, [][]byte, error)
}

// formats are those of Config.Format.
var formats = map[string]format{
	NginxEscapedPEM: {
		header: DefaultHeader, hint: "send nginx's $ssl_client_escaped_cert and nothing else",
		parse: func(leaf, _ string) ([]byte, [][]byte, error) {
			der, err := parseEscapedPEM(leaf)
			return der, nil, err
		},
	},
	RFC9440: {
		header: "Client-Cert", fixed: true, chain: "Client-Cert-Chain",
		hint: "send the certificate as :BASE64: (RFC 9440), and nothing at all where the client has none", parse: parseRFC9440,
	},
	EnvoyXFCC: {
		header: "X-Forwarded-Client-Cert", fixed: true,
		hint: "set forward_client_cert_details: SANITIZE_SET with cert: true, and chain: true if cards send their issuer", parse: parseXFCC,
	},
	Traefik: {
		header: "X-Forwarded-Tls-Client-Cert", fixed: true,
		hint: "set passTLSClientCert with pem: true, and nothing else", parse: parseTraefik,
	},
}

// bad is the error of a value; read puts in the header's name.
func bad(why string) *Error { return &Error{Code: CodeBadValue, detail: why} }

// read takes leaf and hints out of the headers, which checkHeaders has passed.
// present is false where the proxy's client had no certificate.
func (rd *Reader) read(h http.Header) (leaf []byte, chain [][]byte, present bool, err error) {
	behind := ""
	if rd.kind.chain != "" {
		behind = h.Get(rd.kind.chain)
	}
	value := h.Get(rd.header)
	if value == "" {
		if behind != "" {
			return nil, nil, false, &Error{Code: CodeBadValue, Header: rd.kind.chain, detail: "came without " + rd.header}
		}
		return nil, nil, false, nil
	}
	for name, v := range map[string]string{rd.header: value, rd.kind.chain: behind} {
		if len(v) > maxHeader {
			return nil, nil, false, &Error{Code: CodeOversize, Header: name, detail: fmt.Sprintf("has %d bytes, at most %d are read", len(v), maxHeader)}
		}
	}
	leaf, chain, err = rd.kind.parse(value, behind)
	if e, ok := err.(*Error); ok {
		e.Header = rd.header
		if e.Code == CodeBadValue {
			e.detail += "; " + rd.kind.hint
		}
		return nil, nil, false, e
	}
	if len(leaf) > maxCertificate {
		return nil, nil, false, &Error{Code: CodeOversize, Header: rd.header, detail: fmt.Sprintf("the certificate has %d bytes, at most %d are read", len(leaf), maxCertificate)}
	}
	return leaf, hints(leaf, chain), true, nil
}

// hints keeps of a chain what can be of use.
func hints(leaf []byte, chain [][]byte) (kept [][]byte) {
	for _, der := range chain {
		if len(kept) < maxHints && len(der) <= maxCertificate && !bytes.Equal(der, leaf) {
			kept = append(kept, der)
		}
	}
	return kept
}

const pemBegin = "-----BEGIN CERTIFICATE-----\n"

// parseEscapedPEM reads nginx's $ssl_client_escaped_cert: exactly one
// CERTIFICATE block, no PEM headers, nothing before or behind. Unescaping is
// that of paths: in base64 a plus sign is a plus sign, and nginx escapes it but
// other writers of this form do not.
func parseEscapedPEM(value string) ([]byte, error) {
	all, err := parseEscapedPEMs(value)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, bad("it is not exactly one PEM certificate")
	}
	return all[0], nil
}

// parseEscapedPEMs reads any number of such certificates, one at least.
func parseEscapedPEMs(value string) (all [][]byte, err error) {
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, bad("its percent-encoding is broken")
	}
	for rest := text; rest != ""; {
		if !strings.HasPrefix(rest, pemBegin) {
			return nil, bad("it is not PEM certificates alone")
		}
		block, after := pem.Decode([]byte(rest))
		switch {
		case block == nil || block.Type != "CERTIFICATE" || strings.Count(rest[:len(rest)-len(after)], "-----BEGIN") != 1:
			return nil, bad("it is not exactly one PEM certificate after the other")
		case len(block.Headers) > 0:
			return nil, bad("its PEM block has headers")
		case len(block.Bytes) == 0:
			return nil, bad("its PEM block is empty")
		}
		all = append(all, block.Bytes)
		rest = strings.TrimLeft(string(after), "\n")
	}
	if len(all) == 0 {
		return nil, bad("it is empty")
	}
	return all, nil
}

// parseRFC9440 reads Client-Cert, an Item, and Client-Cert-Chain, a List, of
// byte sequences (RFC 9440 section 2, RFC 8941 section 3.3.5) without
// parameters, which have no meaning there. The chain is without the leaf.
func parseRFC9440(leaf, chain string) ([]byte, [][]byte, error) {
	der, err := byteSequence(leaf)
	if err != nil {
		return nil, nil, err
	}
	if chain == "" {
		return der, nil, nil
	}
	var behind [][]byte
	for item := range strings.SplitSeq(chain, ",") {
		c, err := byteSequence(strings.Trim(item, " \t"))
		if err != nil {
			return nil, nil, bad("the chain beside it is not what RFC 9440 says")
		}
		behind = append(behind, c)
	}
	return der, behind, nil
}

func byteSequence(text string) ([]byte, error) {
	inner, ok := strings.CutPrefix(text, ":")
	inner, ok2 := strings.CutSuffix(inner, ":")
	if !ok || !ok2 {
		return nil, bad("it is not one certificate between colons")
	}
	return base64DER(inner)
}

// base64DER reads strict base64 with padding, one spelling for each value.
func base64DER(text string) ([]byte, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(der) == 0 || strings.ContainsAny(text, "\r\n") {
		return nil, bad("it is not base64")
	}
	return der, nil
}

// parseXFCC reads the last element of Envoy's X-Forwarded-Client-Cert, which is
// the proxy's own; those before it may be whatever its client has sent. Of its
// keys Cert, Chain and Hash count: names in it are not believed.
func parseXFCC(value, _ string) ([]byte, [][]byte, error) {
	elements, err := splitXFCC(value)
	if err != nil {
		return nil, nil, err
	}
	last := elements[len(elements)-1]
	if last["cert"] == "" {
		return nil, nil, bad("its last element has no Cert")
	}
	leaf, err := parseEscapedPEM(last["cert"])
	if err != nil {
		return nil, nil, err
	}
	if sum := sha256.Sum256(leaf); last["hash"] != "" && !strings.EqualFold(last["hash"], hex.EncodeToString(sum[:])) {
		return nil, nil, bad("its Hash is another certificate's than its Cert")
	}
	if last["chain"] == "" {
		return leaf, nil, nil
	}
	chain, err := parseEscapedPEMs(last["chain"])
	if err != nil {
		return nil, nil, err
	}
	return leaf, chain, nil
}

// splitXFCC takes the header apart: elements with commas between them, pairs
// with semicolons, values in double quotes where they hold one of these, with a
// backslash before quotes. A key may come once only, but for those that may be
// repeated and do not count here.
func splitXFCC(value string) (elements []map[string]string, err error) {
	element := map[string]string{}
	for rest := value; ; {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || key == "" || strings.ContainsAny(key, "\",; ") {
			return nil, bad("it is not pairs of a key and a value")
		}
		text, rest2, err := xfccValue(after)
		if err != nil {
			return nil, err
		}
		key = strings.ToLower(key)
		if _, twice := element[key]; twice && (key == "cert" || key == "chain" || key == "hash") {
			return nil, bad("an element names a certificate twice")
		}
		element[key] = text
		if rest2 == "" {
			return append(elements, element), nil
		}
		if rest2[0] == ',' {
			elements, element = append(elements, element), map[string]string{}
		}
		rest = strings.TrimLeft(rest2[1:], " ")
	}
}

// xfccValue takes a value off the front; what is left begins with its separator,
// or is empty.
func xfccValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, `,;"`)
		switch {
		case end < 0:
			return text, "", nil
		case text[end] == '"':
			return "", "", bad("a quote stands inside a value")
		}
		return text[:end], text[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i == len(text) {
				return "", "", bad("a value does not end")
			}
			b.WriteByte(text[i])
		case '"':
			if rest = text[i+1:]; rest != "" && rest[0] != ',' && rest[0] != ';' {
				return "", "", bad("something follows a value's end")
			}
			return b.String(), rest, nil
		default:
			b.WriteByte(text[i])
		}
	}
	return "", "", bad("a value does not end")
}

// parseTraefik reads what passTLSClientCert's pem option sends: the base64 of
// PEM without its frame and its line ends, the leaf first and, with commas
// between them, all that the client has sent behind it. Older versions
// percent-encode it.
func parseTraefik(value, _ string) ([]byte, [][]byte, error) {
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, nil, bad("its percent-encoding is broken")
	}
	var all [][]byte
	for part := range strings.SplitSeq(text, ",") {
		der, err := base64DER(part)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, der)
	}
	return all[0], all[1:], nil
}
