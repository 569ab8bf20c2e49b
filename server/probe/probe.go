package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/kortti-id/kortti/server/verify"
)

// Result of a check.
type Result string

// The results, from good to bad.
const (
	OK       Result = "ok"
	NotTried Result = "not tried" // nothing was given to try it with
	// Failed: no answer that says anything, neither good nor bad.
	Failed Result = "failed"
	// Weak: the server holds, and the proxy does not do its part.
	Weak Result = "weak"
	// Hole: somebody can get in, or keep others out, who should not.
	Hole Result = "HOLE"
)

// Finding is what came of one check.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Detail string `json:"detail,omitempty"`
	Mend   string `json:"mend,omitempty"` // the line to write, for each proxy
}

// Report is what came of all.
type Report struct {
	Requests int       `json:"requests"` // that were begun
	Findings []Finding `json:"findings"`
}

// Count is how many findings have this result.
func (r Report) Count(result Result) (n int) {
	for _, f := range r.Findings {
		if f.Result == result {
			n++
		}
	}
	return n
}

// Config says what to attack, and with what.
type Config struct {
	URL    string // https://host[:port] of the site, through its proxy
	Secret Secret
	Roots  *x509.CertPool // of the site's own certificate; nil = the system's
	// Dial connects in place of DNS; optional.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Backend is the address of the server behind the proxy, which should not be
	// reachable from here; "" = not tried.
	Backend string
	// Refused are certificates that the server must refuse; for staging, where it
	// trusts a test CA.
	Refused []Bad
	// Found, where set, is called with each finding as it is made.
	Found func(Finding)
}

// Bad is a certificate that must not be let in.
type Bad struct {
	Name        string // "revoked"
	Code        string // of package verify: why it is expected to be refused
	Certificate tls.Certificate
}

// ErrNotYours says that the target has not proved to know the secret. Nothing but
// one harmless question was sent.
var ErrNotYours = errors.New("the target does not answer as your own server would; set [probe] secret to the same file there, reload it, and see that the proxy hands " + Path + " on")

// run is one run of the probe.
type run struct {
	Config
	site *url.URL
	// shown is the certificate of one's own that the probe shows, claimed is
	// somebody else's that it only speaks of. Nobody has issued either.
	shown, claimed tls.Certificate
	report         Report
}

// Run attacks. An error means that nothing can be said; what was found is in the
// report.
func Run(ctx context.Context, c Config) (Report, error) {
	site, err := url.Parse(c.URL)
	if err != nil || site.Scheme != "https" || site.Host == "" {
		return Report{}, fmt.Errorf("%q is not the https URL of a site", c.URL)
	}
	r := &run{Config: c, site: site}
	if r.Dial == nil {
		r.Dial = new(net.Dialer).DialContext
	}
	if r.shown, err = forge("99900000"); err != nil {
		return Report{}, err
	}
	if r.claimed, err = forge("99900001"); err != nil {
		return Report{}, err
	}
	if _, err := r.ask(ctx, nil, nil); err != nil {
		if _, answered := errors.AsType[errTurnedAway](err); !answered {
			return Report{}, fmt.Errorf("nothing was tried, because %s cannot be asked: %w", c.URL, err)
		}
		return Report{}, fmt.Errorf("%w (it %v)", ErrNotYours, err)
	}
	for _, check := range []func(context.Context){
		r.headers, r.trailers, r.connection, r.address, r.smuggling,
		r.oldTLS, r.resumption, r.otherName, r.otherHost,
		r.foreign, r.refused, r.plain, r.metrics, r.backend,
	} {
		check(ctx)
	}
	return r.report, ctx.Err()
}

func (r *run) found(f Finding) {
	r.report.Findings = append(r.report.Findings, f)
	if r.Found != nil {
		r.Found(f)
	}
}

// forge makes a certificate that nobody has issued.
func forge(serial string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Kortti probe", SerialNumber: serial},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// sum is how answers name a certificate.
func sum(c tls.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Certificate[0])) }

// worst keeps the worst of several findings of one check.
func worst(a, b Finding) Finding {
	rank := map[Result]int{OK: 0, NotTried: 1, Failed: 2, Weak: 3, Hole: 4}
	if rank[b.Result] > rank[a.Result] {
		return b
	}
	return a
}

// Codes are the codes that certificates for staging are expected to be refused
// with, by their names.
func Codes() map[string]string {
	return map[string]string{"revoked": verify.CodeRevoked, "expired": verify.CodeExpired, "signature": verify.CodeWrongPurpose}
}
