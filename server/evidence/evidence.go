// Package evidence says which certificate came with a request, and from
// where: from a TLS handshake with this program, or in a header from a reverse
// proxy that the configuration trusts.
//
// Evidence is a claim, never an identity: nothing here looks into the
// certificate. Package verify turns Evidence into an Identity, or refuses.
// Nobody is trusted by default: an identity header from anyone who is not a
// configured proxy makes the request an error, not an anonymous visit, because
// silence would hide both attacks and broken set-ups.
//
//	reader, err := evidence.New(evidence.Config{
//		Format: evidence.NginxEscapedPEM,
//		From:   []string{"unix:uid=33"},
//	})
//	server := &http.Server{ConnContext: reader.ConnContext}
//	// in a handler:
//	ev, present, err := reader.Read(r) // err: answer 400
//	reader.Strip(r.Header)             // before the application sees it
//
// The nginx side of that is
//
//	proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
//	proxy_set_header X-Real-IP         $remote_addr;
package evidence

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Formats of certificate headers that Config.Format takes.
const (
	// Off trusts no proxy: certificates come from TLS only.
	Off = "off"
	// NginxEscapedPEM is nginx's $ssl_client_escaped_cert: one PEM
	// certificate, percent-encoded.
	NginxEscapedPEM = "nginx-escaped-pem"
	// RFC9440 is Client-Cert and Client-Cert-Chain, which HAProxy, Caddy, Apache
	// and nginx can write.
	RFC9440 = "rfc9440"
	// EnvoyXFCC is Envoy's X-Forwarded-Client-Cert with Cert.
	EnvoyXFCC = "envoy-xfcc"
	// Traefik is X-Forwarded-Tls-Client-Cert of Traefik's passTLSClientCert.
	Traefik = "traefik"
)

// DefaultHeader is the header that carries the certificate in NginxEscapedPEM
// where Config.Header does not name another one. The other formats have names of
// their own.
const DefaultHeader = "X-SSL-Client-Cert"

// AddressHeader is where a trusted proxy puts its client's IP address. Without
// it the client's address is not known: the proxy's own would make one client of
// all of them.
const AddressHeader = "X-Real-IP"

// SourceTLS is the Source of a certificate from a handshake with this program.
// From a header, Source is the format's name.
const SourceTLS = "tls"

const (
	// maxCertificate bounds a certificate, in bytes. Card certificates have
	// about 1,700.
	maxCertificate = 16 << 10
	// maxHeader bounds a header that carries certificates, in bytes.
	maxHeader = 64 << 10
	// maxHints bounds the certificates taken from behind the leaf.
	maxHints = 8
)

// Evidence is what came with one request. It proves nothing about who the
// holder is before verify has looked at it.
type Evidence struct {
	Leaf    []byte     // DER of the certificate whose key the client holds
	Chain   [][]byte   // DER of what the client sent behind it: hints, never trusted
	Source  string     // SourceTLS or a format's name
	Address netip.Addr // the client's address; invalid where unknown (a proxy without AddressHeader)
	// LegacyName is the subject's attributes, in the certificate's order, by
	// the word of the proxy alone, in place of Leaf: InsecureLegacyDN. Package
	// verify refuses such Evidence.
	LegacyName []pkix.AttributeTypeAndValue
}

// Config says which proxies may speak for their clients.
type Config struct {
	Format string   // Off (also ""), another of the formats, or InsecureLegacyDN
	Header string   // for NginxEscapedPEM; "" = DefaultHeader
	From   []string // "unix:uid=33", "mtls:<SHA-256 of the proxy's certificate>", "10.0.0.0/8"
}

// Reader reads Evidence from requests. It is safe for concurrent use.
type Reader struct {
	format  string
	kind    format
	header  string // canonical name
	trusted trusted
}

// New checks a configuration. Nothing that could weaken it passes in silence:
// an unknown format, a list of proxies that is empty or not understood, and a
// network that is the whole Internet are errors.
func New(c Config) (*Reader, error) {
	switch c.Format {
	case "", Off:
		if len(c.From) > 0 {
			return nil, errors.New("evidence: trusted proxies are listed but the header format is off; set a format or remove the list")
		}
		return &Reader{format: Off, header: http.CanonicalHeaderKey(DefaultHeader)}, nil
	}
	kind, ok := formats[c.Format]
	if c.Format == InsecureLegacyDN {
		kind, ok = legacyFormat, true
	}
	if !ok {
		return nil, fmt.Errorf("evidence: unknown header format %q; use %q or one of %s", c.Format, Off, strings.Join(slices.Sorted(maps.Keys(formats)), ", "))
	}
	header := kind.header
	switch {
	case c.Header == "":
	case kind.fixed && !strings.EqualFold(c.Header, kind.header):
		return nil, fmt.Errorf("evidence: format %q has the header %q and no other; remove header", c.Format, kind.header)
	case !validName(c.Header):
		return nil, fmt.Errorf("evidence: %q cannot carry a certificate; use a name of letters, digits and dashes such as %q", c.Header, DefaultHeader)
	default:
		header = c.Header
	}
	t, err := parseTrusted(c.From)
	if err != nil {
		return nil, err
	}
	if c.Format == InsecureLegacyDN {
		if len(t.networks) > 0 {
			return nil, fmt.Errorf("evidence: format %q is believed from a Unix socket (unix:uid=33) or a proxy with a certificate of its own (mtls:SHA256) only; remove the networks", c.Format)
		}
		t.warnings = append(t.warnings, fmt.Sprintf("format %q: NO CERTIFICATE IS VERIFIED. Whoever can write to the proxy's socket is let in as anybody, and so are holders of revoked cards. It is for the days of a migration: have the proxy send the certificate and set %q (docs/from-django-ssl-auth.md)", c.Format, NginxEscapedPEM))
	}
	return &Reader{format: c.Format, kind: kind, header: http.CanonicalHeaderKey(header), trusted: t}, nil
}

// Warnings are things in the configuration that work but that its owner should
// know, one sentence each.
func (rd *Reader) Warnings() []string { return rd.trusted.warnings }

// Header is the canonical name of the header that carries the certificate.
func (rd *Reader) Header() string { return rd.header }

// Error is why a request's headers cannot be believed. The answer is 400 and a
// line in the audit log. Its text holds header names but no values.
type Error struct {
	Code   string // one of the Code constants, stable
	Header string // the offending header as it was sent, "" for none
	detail string
}

// Codes of Error.
const (
	CodeUntrustedPeer = "untrusted-peer"     // an identity header from someone who is no trusted proxy
	CodeDuplicate     = "duplicate-header"   // one header twice
	CodeAlias         = "header-alias"       // the right name in another spelling (underscores)
	CodeSecondFormat  = "second-format"      // an identity header of another kind beside ours
	CodeHopByHop      = "hop-by-hop"         // Connection: asks proxies to drop an identity header
	CodeBadValue      = "bad-header-value"   // not exactly one certificate, or not an address
	CodeOversize      = "certificate-size"   // longer than any certificate of a person
	CodeHandshake     = "handshake-not-done" // the TLS handshake has not ended
)

func (e *Error) Error() string {
	if e.Header == "" {
		return "evidence: " + e.detail
	}
	return fmt.Sprintf("evidence: header %q: %s", e.Header, e.detail)
}

// Read returns the request's Evidence; present tells whether a certificate
// came at all. Evidence.Address is set either way. An error is always an
// *Error and means that the request must be answered with 400.
//
// A connection is either a proxy's or a person's: the certificate that a
// trusted proxy shows in its own handshake is never taken for a user's.
func (rd *Reader) Read(r *http.Request) (ev Evidence, present bool, err error) {
	p := peerOf(r)
	proxy := rd.trusted.has(p)
	ev.Address = p.address
	if err := rd.checkHeaders(r, proxy); err != nil {
		return ev, false, err
	}
	if !proxy {
		return readTLS(r, ev)
	}
	ev.Address = netip.Addr{}
	if err := readAddress(r, &ev); err != nil {
		return ev, false, err
	}
	if rd.format == InsecureLegacyDN {
		return rd.readLegacy(r.Header, ev)
	}
	leaf, chain, present, err := rd.read(r.Header)
	if !present {
		return ev, false, err
	}
	ev.Leaf, ev.Chain, ev.Source = leaf, chain, rd.format
	return ev, true, nil
}

// readTLS takes the certificate of a native handshake. Go has checked the
// CertificateVerify message, so the client holds the leaf's key; of what
// follows the leaf it has checked nothing.
func readTLS(r *http.Request, ev Evidence) (Evidence, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ev, false, nil
	}
	if !r.TLS.HandshakeComplete {
		return ev, false, &Error{Code: CodeHandshake, detail: "the TLS handshake has not been completed, so no key has been proved"}
	}
	leaf := r.TLS.PeerCertificates[0].Raw
	if len(leaf) > maxCertificate {
		return ev, false, &Error{Code: CodeOversize, detail: fmt.Sprintf("the client certificate has %d bytes, at most %d are read", len(leaf), maxCertificate)}
	}
	ev.Leaf, ev.Source = leaf, SourceTLS
	var behind [][]byte
	for _, c := range r.TLS.PeerCertificates[1:] {
		behind = append(behind, c.Raw)
	}
	ev.Chain = hints(leaf, behind)
	return ev, true, nil
}

// readAddress takes the client's address from a trusted proxy.
func readAddress(r *http.Request, ev *Evidence) error {
	value := r.Header.Get(AddressHeader)
	if value == "" {
		return nil
	}
	address, err := netip.ParseAddr(value)
	if err != nil {
		return &Error{Code: CodeBadValue, Header: AddressHeader, detail: "is not an IP address; set it to the client's address alone"}
	}
	ev.Address = address.Unmap()
	return nil
}

// Fingerprint is the SHA-256 of the leaf, as logs and audits name it. That of a
// LegacyName is a hash of the name, and no certificate's.
func (ev Evidence) Fingerprint() [32]byte {
	if ev.LegacyName == nil {
		return sha256.Sum256(ev.Leaf)
	}
	name := []byte(InsecureLegacyDN) // no DER of a certificate begins so
	for _, a := range ev.LegacyName {
		name = fmt.Appendf(name, " %v=%q", a.Type, a.Value)
	}
	return sha256.Sum256(name)
}

// validName keeps the configured header within what every proxy passes on: no
// underscores (many drop them), nothing that needs quoting, and not the name of
// a header with another meaning.
func validName(name string) bool {
	for _, r := range name {
		if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	switch strings.ToLower(name) {
	case "connection", "cookie", "authorization", "host", "forwarded", "x-forwarded-for", "x-real-ip":
		return false
	}
	return len(name) <= 64
}
