// Package fineidtest is a public key infrastructure in the shapes of FINeID,
// for tests and demonstrations without a card: roots, issuing CAs with RSA and
// P-384 keys, holders' certificates, an OCSP responder, a CRL server and a CA
// for web servers.
//
// Its keys protect nothing and its people are invented (SATUs in the 999
// range). It never imitates the names of the real CAs, so that none of its
// certificates can be taken for a real one.
//
// A second PKI from New has the same CA names and other keys: it serves as the
// foreign CA with the right names.
package fineidtest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kortti-id/kortti/fineid"
)

// Options are the settings of New.
type Options struct {
	// BaseURL is where Handler will be reached, such as
	// "http://127.0.0.1:8888", and goes into the certificates. When empty,
	// they name no addresses until Serve gives one.
	BaseURL string
	// ECOnly leaves RootRSA and CitizenRSA out (nil). Making RSA keys takes
	// most of New's time, a second under the race detector on a busy machine.
	ECOnly bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// PKI is the whole infrastructure. After New, Load or Serve its fields are
// read-only and its methods safe for concurrent use.
type PKI struct {
	// Root and RootRSA are the trust anchors, P-384 and RSA.
	Root, RootRSA *CA
	// CitizenEC and OrganisationEC are issuing CAs below Root, CitizenRSA is
	// one below RootRSA.
	CitizenRSA, CitizenEC, OrganisationEC *CA
	// Web issues the certificates of web servers; it is an anchor of its own.
	Web *CA
	// OCSP and CRL hold the faults of the two services, for tests.
	OCSP OCSP
	CRL  CRL

	baseURL  string
	now      func() time.Time
	ledger   ledger
	requests requestCounters

	// mu guards ordinary.
	mu sync.Mutex
	// ordinary holds, by CA, a holder's certificate that signs OCSP answers
	// for OCSP.WrongSigner.
	ordinary map[*CA]*Issued
}

// New makes a PKI with fresh keys: P-384, and RSA-2048 where the real ones
// have RSA-4096, to keep tests quick.
func New(options Options) (*PKI, error) {
	p := newPKI(options)
	for _, ca := range p.authorities() {
		if err := ca.makeKeys(); err != nil {
			return nil, fmt.Errorf("make keys of test CA %s: %w", ca.Name, err)
		}
	}
	if err := p.certify(); err != nil {
		return nil, err
	}
	return p, nil
}

func newPKI(options Options) *PKI {
	p := &PKI{
		baseURL:  strings.TrimSuffix(options.BaseURL, "/"),
		now:      options.Now,
		ordinary: make(map[*CA]*Issued),
	}
	if p.now == nil {
		p.now = time.Now
	}
	p.Root = &CA{Name: "root-ec", profile: rootEC}
	p.CitizenEC = &CA{Name: "citizen-ec", profile: citizenEC, Parent: p.Root}
	if !options.ECOnly {
		p.RootRSA = &CA{Name: "root-rsa", profile: rootRSA}
		p.CitizenRSA = &CA{Name: "citizen-rsa", profile: citizenRSA, Parent: p.RootRSA}
	}
	p.OrganisationEC = &CA{Name: "organisation-ec", profile: organisationEC, Parent: p.Root}
	p.Web = &CA{Name: "web", profile: webEC}
	return p
}

// authorities lists all CAs, each after its parent.
func (p *PKI) authorities() []*CA {
	return slices.Concat(p.roots(), p.issuing(), []*CA{p.Web})
}

func (p *PKI) roots() []*CA { return present(p.Root, p.RootRSA) }

func (p *PKI) issuing() []*CA { return present(p.CitizenEC, p.CitizenRSA, p.OrganisationEC) }

// present leaves out what Options.ECOnly left out.
func present(authorities ...*CA) []*CA {
	return slices.DeleteFunc(authorities, func(ca *CA) bool { return ca == nil })
}

// certify makes the certificates of all CAs and OCSP responders anew from
// their keys.
func (p *PKI) certify() error {
	for _, ca := range p.authorities() {
		if err := p.certifyCA(ca); err != nil {
			return fmt.Errorf("make certificate of test CA %s: %w", ca.Name, err)
		}
	}
	return nil
}

// BaseURL is where the HTTP services are reached, or "" when there is none.
func (p *PKI) BaseURL() string { return p.baseURL }

// Serve answers OCSP, CRL and CA requests at the base URL or, where there is
// none, on a free loopback port. In the latter case it makes the CA
// certificates anew with that address in them: call it before anything else.
// The returned stop ends the service and waits for it.
func (p *PKI) Serve() (stop func() error, err error) {
	address := "127.0.0.1:0"
	if p.baseURL != "" {
		base, err := url.Parse(p.baseURL)
		if err != nil {
			return nil, fmt.Errorf("serve test PKI: base URL: %w", err)
		}
		address = base.Host
	} else if p.ledger.dir != "" {
		return nil, errors.New("serve test PKI: it was saved without a base URL: make it anew with one")
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve test PKI: %w", err)
	}
	if p.baseURL == "" {
		p.baseURL = "http://" + listener.Addr().String()
		if err := p.certify(); err != nil {
			_ = listener.Close()
			return nil, err
		}
	}
	serving, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return serving },
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return func() error {
		cancel() // answers that OCSP.Delay holds back
		patience, enough := context.WithTimeout(context.Background(), time.Second)
		defer enough()
		err := server.Shutdown(patience)
		if errors.Is(err, context.DeadlineExceeded) { // a client keeps a connection without a request
			err = server.Close()
		}
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

// RootsPEM gives the roots.
func (p *PKI) RootsPEM() []byte { return certificatesPEM(p.roots()...) }

// IssuingPEM gives the issuing CAs of holders' certificates.
func (p *PKI) IssuingPEM() []byte { return certificatesPEM(p.issuing()...) }

// WebRootsPEM gives the anchor of the certificates of ServerCert.
func (p *PKI) WebRootsPEM() []byte { return certificatesPEM(p.Web) }

// Issuers gives the rows for fineid's Table.With.
func (p *PKI) Issuers() []fineid.Issuer {
	var rows []fineid.Issuer
	for _, ca := range p.issuing() {
		rows = append(rows, fineid.Issuer{
			CN: ca.profile.cn, Org: organization, Class: ca.profile.class, Family: ca.profile.family,
		})
	}
	return rows
}

// Revoke lists a certificate of this PKI (a holder's or an issuing CA's) as
// revoked since at, with a reason of RFC 5280 5.3.1.
func (p *PKI) Revoke(cert *x509.Certificate, at time.Time, reason int) error {
	for _, ca := range p.authorities() {
		if bytes.Equal(ca.Certificate.RawSubject, cert.RawIssuer) &&
			bytes.Equal(ca.Certificate.SubjectKeyId, cert.AuthorityKeyId) {
			return p.ledger.add(entry{CA: ca.Name, Serial: cert.SerialNumber.Text(16), Revoked: at.UTC(), Reason: reason})
		}
	}
	return errors.New("revoke certificate: no CA of this test PKI issued it")
}

func certificatesPEM(authorities ...*CA) []byte {
	var out bytes.Buffer
	for _, ca := range authorities {
		out.Write(certificatePEM(ca.Certificate))
	}
	return out.Bytes()
}

func certificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}
