package evidence

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// identityNames are headers that some proxy or framework takes for proof of
// who the client is, in plain form (see plain).
var identityNames = map[string]bool{
	"client-cert":       true, // RFC 9440
	"client-cert-chain": true, // RFC 9440
	"remote-user":       true,
	"x-remote-user":     true,
	"x-forwarded-user":  true,
	"x-webauth-user":    true,
	"x-auth-user":       true,
	"ssl-cert":          true, // Keycloak's default for nginx
	"x-arr-clientcert":  true, // Azure

	// oauth2-proxy
	"x-forwarded-email":              true,
	"x-forwarded-groups":             true,
	"x-forwarded-preferred-username": true,
}

// identityPrefixes are families of such headers.
var identityPrefixes = []string{
	"x-ssl-", // nginx and Apache recipes
	"ssl-client-",
	"x-client-cert",
	"x-client-verify",
	"x-client-dn",
	"x-tls-client-",
	"x-auth-request-",         // oauth2-proxy
	"x-amzn-mtls-",            // AWS
	"cf-client-cert-",         // Cloudflare
	"x-forwarded-client-cert", // Envoy
	"x-forwarded-tls-client",  // Traefik
	"x-kortti-",               // our own forward-auth answers
}

// IdentityHeaders are headers that speak about who a client is: those that the
// formats use and one of each other kind, for tests of proxies, which must drop
// them.
func IdentityHeaders() []string {
	return []string{
		DefaultHeader, "Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert",
		"X-SSL-User-DN", "X-SSL-Authenticated", "SSL-Client-Cert", "X-Client-Cert", "Remote-User", "X-Kortti-User",
	}
}

// plain folds the spellings of a name that one program or another takes for
// the same header. Go's server keeps underscores, and CGI, WSGI and Rack turn
// every other sign into one (CVE-2025-64484 and its many relatives).
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name)
}

// identity tells whether a header, in any spelling, speaks about who the
// client is.
func (rd *Reader) identity(name string) bool {
	p := plain(name)
	if identityNames[p] || p == plain(rd.header) {
		return true
	}
	for _, prefix := range identityPrefixes {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}

// Strip removes every identity header, in every spelling, so that nothing
// behind this program can take one for our word.
func (rd *Reader) Strip(h http.Header) {
	for name := range h {
		if rd.identity(name) {
			delete(h, name)
		}
	}
}

// checkHeaders refuses what must not be there: from strangers every identity
// header, from proxies all but the one configured, once, in its right spelling.
func (rd *Reader) checkHeaders(r *http.Request, proxy bool) error {
	for name := range r.Trailer {
		if rd.identity(name) {
			return &Error{Code: CodeSecondFormat, Header: name, detail: "an identity header may not be a trailer"}
		}
	}
	for name, values := range r.Header {
		switch {
		case plain(name) == "connection":
			if err := rd.checkConnection(values); err != nil {
				return err
			}
		case rd.identity(name):
			if err := rd.checkIdentity(name, values, proxy); err != nil {
				return err
			}
		case proxy && plain(name) == plain(AddressHeader):
			if err := once(name, values, textproto.CanonicalMIMEHeaderKey(AddressHeader)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (rd *Reader) checkIdentity(name string, values []string, proxy bool) error {
	if !proxy {
		return &Error{Code: CodeUntrustedPeer, Header: name, detail: "only a trusted proxy may send it, and this peer is none; list the proxy in [forwarded] from, or make it drop the header"}
	}
	for _, want := range []string{rd.header, rd.kind.chain, rd.kind.flag} {
		if want != "" && plain(name) == plain(want) {
			return once(name, values, want)
		}
	}
	return &Error{Code: CodeSecondFormat, Header: name, detail: fmt.Sprintf("the proxy may speak about its client in %q only; make it drop this one", rd.header)}
}

// once checks that a header has its one right spelling and one value.
func once(name string, values []string, want string) error {
	if name != want {
		return &Error{Code: CodeAlias, Header: name, detail: fmt.Sprintf("is another spelling of %q; make the proxy drop it", want)}
	}
	if len(values) != 1 {
		return &Error{Code: CodeDuplicate, Header: name, detail: fmt.Sprintf("came %d times; make the proxy replace what its client sent", len(values))}
	}
	return nil
}

// checkConnection refuses a Connection header that names an identity header: a
// proxy on the way would drop it and make the client look anonymous, or let an
// older value stand (CVE-2021-32813).
func (rd *Reader) checkConnection(values []string) error {
	for _, value := range values {
		for token := range strings.SplitSeq(value, ",") {
			token = strings.TrimSpace(token)
			if rd.identity(token) || plain(token) == plain(AddressHeader) {
				return &Error{Code: CodeHopByHop, Header: "Connection", detail: "names an identity header"}
			}
		}
	}
	return nil
}
