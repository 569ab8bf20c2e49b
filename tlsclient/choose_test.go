package tlsclient_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// The rules, one certificate each, against a host that lists the root "people".
func TestRules(t *testing.T) {
	root := newCA(t, "people", nil)
	issuing := newCA(t, "issuing", root)
	strangers := newCA(t, "strangers", nil)
	const digital = x509.KeyUsageDigitalSignature
	cases := []struct {
		name     string
		issuer   *ca
		template x509.Certificate
		chain    bool // the card holds its issuing CA
		schemes  []tls.SignatureScheme
		kept     bool
		rule     string
	}{
		{"direct", root, x509.Certificate{KeyUsage: digital}, false, nil, true, "is in the host's list"},
		{"through an issuing CA on the card", issuing, x509.Certificate{KeyUsage: digital}, true, nil, true, "is in the host's list"},
		{"issuing CA unknown", issuing, x509.Certificate{KeyUsage: digital}, false, nil, false, "no CA of its chain"},
		{"other issuer", strangers, x509.Certificate{KeyUsage: digital}, false, nil, false, "no CA of its chain"},
		{"no key usage at all", root, x509.Certificate{}, false, nil, true, "is in the host's list"},
		{"signature certificate", root, x509.Certificate{KeyUsage: x509.KeyUsageContentCommitment}, false, nil, false, "digitalSignature"},
		{"expired", root, x509.Certificate{KeyUsage: digital, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, false, nil, false, "expired"},
		{"not yet valid", root, x509.Certificate{KeyUsage: digital, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}, false, nil, false, "not yet valid"},
		{"for clients", root, x509.Certificate{KeyUsage: digital, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, false, nil, true, "is in the host's list"},
		{"for servers only", root, x509.Certificate{KeyUsage: digital, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, false, nil, false, "clientAuth"},
		{"no scheme in common", root, x509.Certificate{KeyUsage: digital}, false, []tls.SignatureScheme{0xfefe}, false, "signature scheme"},
	}
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{root}, ok)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.template.Subject = pkix.Name{CommonName: "meri"}
			cert, key := newCardWith(t, c.issuer, &c.template)
			cert.SupportedSignatureAlgorithms = c.schemes
			if c.chain {
				cert.Certificate = append(cert.Certificate, c.issuer.cert.Raw)
			}
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			why, err := tr.Why(t.Context(), host)
			if err != nil {
				t.Fatal(err)
			}
			if !why.Asked || len(why.AcceptableCAs) != 1 || why.AcceptableCAs[0] != "CN=people,C=FI" {
				t.Errorf("the host's demand: %+v", why)
			}
			row := why.Rows[0]
			if row.Kept != c.kept || !strings.Contains(row.Rule, c.rule) || row.Subject != "meri" || (why.Chosen != nil) != c.kept {
				t.Errorf("got %+v, chosen %v", row, why.Chosen)
			}
			if key.signatures.Load() != 0 {
				t.Error("the explanation cost a signature")
			}
			_, err = get(t.Context(), tr, "https://card.test/")
			var choice *tlsclient.ChoiceError
			if c.kept != (err == nil) || !c.kept && (!errors.As(err, &choice) || len(choice.Explanation.Rows) != 1) {
				t.Errorf("the request got %v", err)
			}
		})
	}
}

// Config.Issuers stands in for the CA certificates that cards do not hold.
func TestIssuersCompleteTheChain(t *testing.T) {
	root := newCA(t, "people", nil)
	issuing := newCA(t, "issuing", root)
	unrelated := newCA(t, "issuing", nil) // same name, another key
	cert, _ := newCard(t, issuing, "meri")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{root}, ok)
	tr := client(t, s, tlsclient.Config{
		Source:  tlsclient.Static(cert),
		Issuers: []*x509.Certificate{unrelated.cert, issuing.cert},
	})
	if got := mustGet(t, tr, "https://card.test/"); got != "meri HTTP/2.0" {
		t.Errorf("got %q", got)
	}
}

// A pin leaves one certificate of several, and none where it fits no rule.
func TestPin(t *testing.T) {
	root, strangers := newCA(t, "people", nil), newCA(t, "strangers", nil)
	meri, _ := newCard(t, root, "meri")
	onni, _ := newCard(t, root, "onni")
	stranger, _ := newCard(t, strangers, "stranger")
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{root}, ok)
	try := func(pin card.Fingerprint) (string, error) {
		settings := s.settings()
		settings.Pin = &pin
		tr := client(t, s, tlsclient.Config{
			Source:       tlsclient.Static(meri, onni, stranger),
			HostSettings: func(string, string) tlsclient.HostSettings { return settings },
		})
		return get(t.Context(), tr, "https://card.test/")
	}
	if got, err := try(fingerprint(onni)); got != "onni HTTP/2.0" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := try(fingerprint(stranger)); !errors.Is(err, tlsclient.ErrNoCertificate) {
		t.Errorf("a pinned certificate that the host does not accept: %v", err)
	}
}

func TestWhyWithoutDemand(t *testing.T) {
	noLeaks(t)
	s := newServer(t, kind{tls.VersionTLS13, true, true}, nil, ok)
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static()})
	why, err := tr.Why(t.Context(), "card.test:443")
	if err != nil || why.Asked || why.Host != host {
		t.Errorf("got %+v, %v", why, err)
	}
}

// A key that can only PKCS#1 v1.5, which TLS 1.3 forbids, gets TLS 1.2 with a
// host that speaks both.
func TestPKCS1Only(t *testing.T) {
	noLeaks(t)
	people := newCA(t, "people", nil)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := &smartcard{Signer: rsaKey}
	leaf := sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "meri"}, KeyUsage: x509.KeyUsageDigitalSignature}, people, key.Public())
	cert := tls.Certificate{
		Certificate:                  [][]byte{leaf.Raw},
		PrivateKey:                   key,
		SupportedSignatureAlgorithms: []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384},
	}
	s := newServer(t, kind{tls.VersionTLS13, true, true}, []*ca{people}, ok, func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 })
	tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
	for _, err := range burst(t.Context(), tr, 10, "https://card.test/") {
		if err != nil {
			t.Fatal(err)
		}
	}
	if key.signatures.Load() != 1 {
		t.Errorf("%d signatures, want 1", key.signatures.Load())
	}
}

func TestStaticRefusesWhatCannotSign(t *testing.T) {
	people := newCA(t, "people", nil)
	cert, _ := newCard(t, people, "meri")
	cert.PrivateKey = nil
	ids := tlsclient.Static(cert, tls.Certificate{Certificate: [][]byte{{1}}}).Identities()
	if len(ids) != 1 || ids[0].Usable || ids[0].WhyNot == "" {
		t.Errorf("got %+v", ids)
	}
}
