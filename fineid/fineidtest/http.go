package fineidtest

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Requests counts what the HTTP services were asked, whatever they answered.
type Requests struct {
	OCSP, CRL, CA uint64
}

type requestCounters struct {
	ocsp, crl, ca atomic.Uint64
}

// Requests gives the counts since the PKI was made or loaded.
func (p *PKI) Requests() Requests {
	return Requests{OCSP: p.requests.ocsp.Load(), CRL: p.requests.crl.Load(), CA: p.requests.ca.Load()}
}

// CRL holds the faults of the CRL server; set them at any time.
type CRL struct {
	// Stale lists end yesterday.
	Stale atomic.Bool
	// Down answers HTTP 500.
	Down atomic.Bool
}

// Handler answers /ocsp/<ca>, /crl/<ca>.crl and /ca/<ca>.crt.
func (p *PKI) Handler() http.Handler {
	// No ServeMux: it would redirect OCSP requests by GET whose base64 has
	// two slashes in a row.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		service, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		name, query, _ := strings.Cut(rest, "/")
		switch service {
		case "ocsp":
			p.requests.ocsp.Add(1)
			if ca, ok := p.authority(name); ok {
				p.serveOCSP(w, r, ca, query)
				return
			}
		case "crl":
			p.requests.crl.Add(1)
			if ca, ok := p.authority(strings.TrimSuffix(name, ".crl")); ok {
				p.serveCRL(w, ca)
				return
			}
		case "ca":
			p.requests.ca.Add(1)
			if ca, ok := p.authority(strings.TrimSuffix(name, ".crt")); ok {
				write(w, "application/pkix-cert", ca.Certificate.Raw)
				return
			}
		}
		http.NotFound(w, r)
	})
}

func (p *PKI) authority(name string) (*CA, bool) {
	i := slices.IndexFunc(p.authorities(), func(ca *CA) bool { return ca.Name == name })
	if i < 0 {
		return nil, false
	}
	return p.authorities()[i], true
}

func (p *PKI) serveCRL(w http.ResponseWriter, ca *CA) {
	if p.CRL.Down.Load() {
		http.Error(w, "the CRL server is down", http.StatusInternalServerError)
		return
	}
	der, err := p.revocationList(ca)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, "application/pkix-crl", der)
}

// revocationList makes a full list, valid for a day. Its number is the time in
// nanoseconds, which grows over restarts too.
func (p *PKI) revocationList(ca *CA) ([]byte, error) {
	entries, err := p.ledger.of(ca.Name)
	if err != nil {
		return nil, err
	}
	list := &x509.RevocationList{
		Number:     big.NewInt(time.Now().UnixNano()),
		ThisUpdate: p.now().Add(-time.Minute),
		NextUpdate: p.now().Add(day),
	}
	if p.CRL.Stale.Load() {
		list.ThisUpdate, list.NextUpdate = p.now().Add(-2*day), p.now().Add(-day)
	}
	listed := make(map[string]bool)
	for _, e := range slices.Backward(entries) {
		if e.Revoked.IsZero() || listed[e.Serial] {
			continue
		}
		listed[e.Serial] = true
		serial, ok := new(big.Int).SetString(e.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("make CRL: serial number %q in the ledger is not hexadecimal", e.Serial)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: e.Revoked, ReasonCode: e.Reason})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Certificate, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("make CRL: %w", err)
	}
	return der, nil
}

func write(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	// A client that went away has no use for the error.
	_, _ = w.Write(body)
}
