package fineidtest_test

import (
	"crypto/x509"
	"testing"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// newServed makes a PKI whose services run until the test ends.
func newServed(t *testing.T) *fineidtest.PKI {
	t.Helper()
	return served(t, fineidtest.Options{})
}

// newECOnly is the same without RSA, and quick.
func newECOnly(t *testing.T) *fineidtest.PKI {
	t.Helper()
	return served(t, fineidtest.Options{ECOnly: true})
}

func served(t *testing.T, options fineidtest.Options) *fineidtest.PKI {
	t.Helper()
	pki, err := fineidtest.New(options)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := pki.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return pki
}

func issue(t *testing.T, pki *fineidtest.PKI, ca *fineidtest.CA, leaf fineidtest.Leaf) *fineidtest.Issued {
	t.Helper()
	issued, err := pki.Issue(ca, leaf)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func pool(t *testing.T, pem []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatal("no certificates in PEM")
	}
	return p
}

func TestChainsVerify(t *testing.T) {
	pki := newServed(t)
	roots, issuing := pool(t, pki.RootsPEM()), pool(t, pki.IssuingPEM())
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.CitizenRSA, pki.OrganisationEC} {
		for _, purpose := range []fineid.Purpose{fineid.Authentication, fineid.Signature} {
			leaf := issue(t, pki, ca, fineidtest.Leaf{Purpose: purpose})
			chains, err := leaf.Certificate.Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: issuing, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			})
			if err != nil {
				t.Errorf("%s, %s: %v", ca.Name, purpose, err)
				continue
			}
			if len(chains[0]) != 3 {
				t.Errorf("%s, %s: chain of %d certificates, want 3", ca.Name, purpose, len(chains[0]))
			}
			id, err := fineid.DVV().With(pki.Issuers()...).Parse(leaf.Certificate)
			if err != nil {
				t.Errorf("%s, %s: %v", ca.Name, purpose, err)
			}
			if id.Purpose != purpose {
				t.Errorf("%s: purpose %s, want %s", ca.Name, id.Purpose, purpose)
			}
		}
	}
}
