package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/token"
	"github.com/kortti-id/kortti/softhsm"
)

var slot = 0

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ca is an issuing CA under a root.
type ca struct {
	root, issuing *x509.Certificate
	key           *ecdsa.PrivateKey
}

func newCA(t *testing.T) *ca {
	t.Helper()
	rootKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	root := caCertificate(t, "Test root", &rootKey.PublicKey, nil, rootKey)
	return &ca{root: root, issuing: caCertificate(t, "Test issuing CA", &key.PublicKey, root, rootKey), key: key}
}

func caCertificate(t *testing.T, name string, public any, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	check(t, err)
	certificate, err := x509.ParseCertificate(der)
	check(t, err)
	return certificate
}

func (c *ca) issue(t *testing.T, name string, public any) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}, c.issuing, public, c.key)
	check(t, err)
	return der
}

func certify(t *testing.T, issuer *ca, card *softhsm.Card, id byte) {
	t.Helper()
	public, err := card.PublicKey([]byte{id})
	check(t, err)
	check(t, card.ImportCertificate([]byte{id}, "certificate", issuer.issue(t, card.Spec().Label, public)))
}

func create(t *testing.T, issuer *ca, spec softhsm.Spec) *softhsm.Card {
	t.Helper()
	card, err := softhsm.Create(t.TempDir(), spec)
	check(t, err)
	certify(t, issuer, card, softhsm.AuthenticationID)
	check(t, card.ResetCounts())
	return card
}

func config(issuer *ca, card *softhsm.Card) token.Config {
	return token.Config{Module: card.Module(), Label: card.Spec().Label, PIN: card.Spec().PIN, Chain: []*x509.Certificate{issuer.issuing}}
}

func open(t *testing.T, config token.Config) *token.Identity {
	t.Helper()
	identity, err := token.Open(config)
	check(t, err)
	t.Cleanup(func() { check(t, identity.Close()) })
	return identity
}

// serve starts a TLS server that asks for certificates of the root and answers
// with the client's name.
func serve(t *testing.T, issuer *ca, version uint16) *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	roots := x509.NewCertPool()
	roots.AddCert(issuer.root)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, MinVersion: tls.VersionTLS12, MaxVersion: version}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, server *httptest.Server, identity *token.Identity) (string, error) {
	t.Helper()
	transport := server.Client().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig.Certificates = []tls.Certificate{identity.TLSCertificate()}
	transport.TLSClientConfig.MaxVersion = identity.MaxVersion()
	response, err := (&http.Client{Transport: transport}).Get(server.URL)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func TestMutualTLS(t *testing.T) {
	issuer := newCA(t)
	for _, test := range []struct {
		name    string
		spec    softhsm.Spec
		schemes []tls.SignatureScheme
		limit   uint16
	}{
		{"RSA", softhsm.Spec{Key: softhsm.RSA2048}, []tls.SignatureScheme{tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
			tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}, tls.VersionTLS13},
		{"RSA without PSS", softhsm.Spec{Key: softhsm.RSA2048, NoPSS: true}, []tls.SignatureScheme{
			tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}, tls.VersionTLS12},
		{"P-384", softhsm.Spec{Key: softhsm.P384}, []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}, tls.VersionTLS13},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := create(t, issuer, test.spec)
			identity := open(t, config(issuer, card))
			if got := identity.TLSCertificate().SupportedSignatureAlgorithms; !slices.Equal(got, test.schemes) {
				t.Errorf("schemes %v, want %v", got, test.schemes)
			}
			if got := identity.MaxVersion(); got != test.limit {
				t.Errorf("newest version %#x, want %#x", got, test.limit)
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				name, err := get(t, serve(t, issuer, version), identity)
				if err != nil || name != card.Spec().Label {
					t.Errorf("%s: the server saw %q (%v)", tls.VersionName(version), name, err)
				}
			}
			counts, err := card.Counts()
			if err != nil || counts["signatures"] != 3 || counts["C_Login"] != 1 {
				t.Errorf("%d signatures and %d logins (%v), want one proof, two handshakes, one login", counts["signatures"], counts["C_Login"], err)
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	issuer := newCA(t)
	card := create(t, issuer, softhsm.Spec{})
	settings := config(issuer, card)
	settings.MaxSessions = 4
	identity, server := open(t, settings), serve(t, issuer, tls.VersionTLS13)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := get(t, server, identity); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if counts, err := card.Counts(); err != nil || counts["C_OpenSession"] > 4 || counts["C_Login"] != 1 {
		t.Errorf("%d sessions and %d logins (%v), want at most 4 and 1", counts["C_OpenSession"], counts["C_Login"], err)
	}
}

func TestChoosingTheToken(t *testing.T) {
	issuer := newCA(t)
	card := create(t, issuer, softhsm.Spec{})
	settings := config(issuer, card)
	settings.Label, settings.Slot = "", &slot
	open(t, settings)
	settings.Label = "kortti test card"
	if _, err := token.Open(settings); err == nil {
		t.Error("two ways to name the token were accepted")
	}
}

func TestChoosingTheCertificate(t *testing.T) {
	issuer := newCA(t)
	card := create(t, issuer, softhsm.Spec{})
	second, err := card.AddKey(softhsm.RSA2048, []byte{7}, "second")
	check(t, err)
	check(t, card.ImportCertificate([]byte{7}, "second", issuer.issue(t, "second", second)))

	settings := config(issuer, card)
	if _, err := token.Open(settings); !errors.Is(err, token.ErrNoIdentity) || !strings.Contains(err.Error(), "CertificateID") {
		t.Errorf("two pairs and no choice: %v", err)
	}
	settings.CertificateID = []byte{8}
	if _, err := token.Open(settings); !errors.Is(err, token.ErrNoIdentity) {
		t.Errorf("a missing id: %v", err)
	}
	settings.CertificateID = []byte{7}
	if name := open(t, settings).TLSCertificate().Leaf.Subject.CommonName; name != "second" {
		t.Errorf("opened %q", name)
	}
}

func TestRefusals(t *testing.T) {
	issuer := newCA(t)
	card := create(t, issuer, softhsm.Spec{})
	settings := config(issuer, card)

	wrong := settings
	wrong.PIN = "9999"
	if _, err := token.Open(wrong); !errors.Is(err, token.ErrPINRefused) {
		t.Errorf("wrong PIN: %v", err)
	}
	if counts, err := card.Counts(); err != nil || counts["C_Login"] != 1 {
		t.Errorf("a wrong PIN made %d logins (%v), want 1", counts["C_Login"], err)
	}

	wrong = settings
	wrong.Chain = []*x509.Certificate{issuer.root}
	if _, err := token.Open(wrong); err == nil || !strings.Contains(err.Error(), "has not issued") {
		t.Errorf("a chain that does not fit: %v", err)
	}

	wrong = settings
	wrong.Module = "/nonexistent.so"
	if _, err := token.Open(wrong); err == nil || !strings.Contains(err.Error(), wrong.Module) {
		t.Errorf("a missing module: %v", err)
	}

	empty, err := softhsm.Create(t.TempDir(), softhsm.Spec{})
	check(t, err)
	if _, err := token.Open(config(issuer, empty)); !errors.Is(err, token.ErrNoIdentity) {
		t.Errorf("a token without a certificate: %v", err)
	}
	other := create(t, issuer, softhsm.Spec{})
	public, err := other.PublicKey([]byte{softhsm.AuthenticationID})
	check(t, err)
	check(t, empty.ImportCertificate([]byte{softhsm.AuthenticationID}, "of another key", issuer.issue(t, "other", public)))
	if _, err := token.Open(config(issuer, empty)); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("a certificate of another key: %v", err)
	}
}

func TestPulledTokenNeedsOpening(t *testing.T) {
	issuer := newCA(t)
	card := create(t, issuer, softhsm.Spec{})
	server := serve(t, issuer, tls.VersionTLS13)
	identity := open(t, config(issuer, card))
	check(t, card.Pull())
	if _, err := get(t, server, identity); err == nil {
		t.Error("a pulled token signed")
	}
	check(t, card.Insert())
	if _, err := get(t, server, identity); err == nil {
		t.Error("the identity of before came back to life: say so in the documentation")
	}
	check(t, identity.Close())
	check(t, identity.Close()) // a second Close does nothing
	if name, err := get(t, server, open(t, config(issuer, card))); err != nil || name != "kortti test card" {
		t.Errorf("opened anew: %q, %v", name, err)
	}
}
