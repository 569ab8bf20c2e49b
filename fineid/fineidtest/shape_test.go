package fineidtest_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"crypto/ecdsa"
	"crypto/rand"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// ecdsaWithNull is the AlgorithmIdentifier of DVV's P-384 cards.
var ecdsaWithNull = []byte{0x30, 12, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3, 5, 0}

func TestECDSALeafHasNullParameter(t *testing.T) {
	pki := newECOnly(t)
	leaf := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	if count := bytes.Count(leaf.Raw, ecdsaWithNull); count != 2 {
		t.Errorf("the identifier with NULL stands %d times in the leaf, want 2 (inside and outside)", count)
	}
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.Root} {
		if bytes.Contains(ca.Certificate.Raw, ecdsaWithNull) {
			t.Errorf("%s: NULL in a CA certificate", ca.Name)
		}
	}
}

func TestAuthorities(t *testing.T) {
	pki := newServed(t)
	for _, root := range []*fineidtest.CA{pki.Root, pki.RootRSA} {
		if got := root.Certificate.Subject.OrganizationalUnit; len(got) != 2 {
			t.Errorf("%s: OUs %q, want two", root.Name, got)
		}
		if err := root.Certificate.CheckSignatureFrom(root.Certificate); err != nil {
			t.Errorf("%s: %v", root.Name, err)
		}
	}
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.CitizenRSA, pki.OrganisationEC} {
		cert := ca.Certificate
		if !cert.IsCA || !cert.MaxPathLenZero || cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
			t.Errorf("%s: CA %t, pathlen zero %t, keyUsage %b", ca.Name, cert.IsCA, cert.MaxPathLenZero, cert.KeyUsage)
		}
		if want := pki.BaseURL() + "/ocsp/" + ca.Parent.Name; !slices.Equal(cert.OCSPServer, []string{want}) {
			t.Errorf("%s: OCSP %q, want %q", ca.Name, cert.OCSPServer, want)
		}
	}
	if len(pki.Issuers()) != 3 {
		t.Errorf("%d issuers, want 3", len(pki.Issuers()))
	}
}

// describe gives what should be the same in a real certificate and in ours:
// subject attributes with their string types, keyUsage and the order and
// criticality of the extensions.
func describe(t *testing.T, cert *x509.Certificate) string {
	t.Helper()
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawSubject, &rdns); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, rdn := range rdns {
		var a struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if _, err := asn1.Unmarshal(rdn.Bytes, &a); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%v type %d\n", a.Type, a.Value.Tag)
	}
	fmt.Fprintf(&out, "%s, serial number of %d bytes\n", cert.SignatureAlgorithm, (cert.SerialNumber.BitLen()+7)/8)
	fmt.Fprintf(&out, "NULL with ECDSA: %d\n", bytes.Count(cert.Raw, ecdsaWithNull))
	for _, e := range cert.Extensions {
		fmt.Fprintf(&out, "%v %t", e.Id, e.Critical)
		if e.Id.String() == "2.5.29.15" || e.Id.String() == "2.5.29.19" || e.Id.String() == "1.3.6.1.5.5.7.1.3" {
			fmt.Fprintf(&out, " %x", e.Value)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func TestShapesAreThoseOfRealCards(t *testing.T) {
	dir := os.Getenv("KORTTI_CERTS")
	if dir == "" {
		t.Log("not run: KORTTI_CERTS not set")
		return
	}
	pki := newServed(t)
	for file, ours := range map[string]*fineidtest.Issued{
		"test-dvv-g5e-auth-p384.der":   issue(t, pki, pki.CitizenEC, fineidtest.Leaf{Email: "a@example.com"}),
		"test-dvv-g5e-sign-p384.der":   issue(t, pki, pki.CitizenEC, fineidtest.Leaf{Email: "a@example.com", Purpose: fineid.Signature}),
		"test-vrk-g3-auth-rsa2048.der": issue(t, pki, pki.CitizenRSA, fineidtest.Leaf{Email: "a@example.com", GivenName: "LIISA", Surname: "SPECIMEN"}),
	} {
		der, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := describe(t, ours.Certificate), describe(t, cert); got != want {
			t.Errorf("%s\nreal:\n%s\nours:\n%s", file, want, got)
		}
	}
}

func TestForeignPKIWithTheSameNames(t *testing.T) {
	pki, foreign := newECOnly(t), newECOnly(t)
	leaf := issue(t, foreign, foreign.CitizenEC, fineidtest.Leaf{}).Certificate
	if !bytes.Equal(leaf.RawIssuer, pki.CitizenEC.Certificate.RawSubject) {
		t.Fatal("the issuers' names differ")
	}
	intermediates := pool(t, pki.IssuingPEM())
	intermediates.AppendCertsFromPEM(foreign.IssuingPEM())
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool(t, pki.RootsPEM()), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err == nil {
		t.Error("a foreign certificate verifies")
	}
	if err := pki.Revoke(leaf, time.Now(), 1); err == nil {
		t.Error("a foreign certificate was revoked")
	}
}

func TestIssueRefusesOtherCAs(t *testing.T) {
	pki, foreign := newECOnly(t), newECOnly(t)
	for _, ca := range []*fineidtest.CA{nil, pki.Root, pki.Web, foreign.CitizenEC} {
		if _, err := pki.Issue(ca, fineidtest.Leaf{}); err == nil {
			t.Errorf("issued below %+v", ca)
		}
	}
	if _, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{Policies: []string{"not an OID"}}); err == nil {
		t.Error("issued with a policy that is no OID")
	}
}

func TestLeafTimesAndGivenKey(t *testing.T) {
	pki := newECOnly(t)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	for name, leaf := range map[string]fineidtest.Leaf{
		"expired":       {NotBefore: now.AddDate(-5, 0, 0), NotAfter: now.AddDate(0, 0, -1)},
		"not yet valid": {NotBefore: now.AddDate(0, 0, 1)},
	} {
		leaf.PublicKey = key.Public()
		issued := issue(t, pki, pki.CitizenEC, leaf)
		if issued.Key != nil || !key.PublicKey.Equal(issued.Certificate.PublicKey) {
			t.Errorf("%s: not the given key", name)
		}
		if !issued.Certificate.NotBefore.Equal(leaf.NotBefore) || !leaf.NotAfter.IsZero() && !issued.Certificate.NotAfter.Equal(leaf.NotAfter) {
			t.Errorf("%s: from %s to %s", name, issued.Certificate.NotBefore, issued.Certificate.NotAfter)
		}
		if _, err := issued.KeyPEM(); err == nil {
			t.Errorf("%s: a key came from nowhere", name)
		}
		_, err := issued.Certificate.Verify(x509.VerifyOptions{
			Roots: pool(t, pki.RootsPEM()), Intermediates: pool(t, pki.IssuingPEM()), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err == nil {
			t.Errorf("%s: verifies", name)
		}
	}
}

// The certificates serve in real TLS, with either kind of key and version.
func TestMutualTLS(t *testing.T) {
	pki := newServed(t)
	site, err := pki.ServerCert("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.VerifiedChains[0][0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{site}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(t, pki.RootsPEM()),
	}
	server.StartTLS()
	defer server.Close()
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.CitizenRSA} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			holder := issue(t, pki, ca, fineidtest.Leaf{})
			transport := &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: pool(t, pki.WebRootsPEM()), Certificates: []tls.Certificate{holder.TLS()}, MaxVersion: version,
			}}
			answer, err := (&http.Client{Transport: transport}).Get(server.URL)
			if err != nil {
				t.Errorf("%s: %v", ca.Name, err)
				continue
			}
			body, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			transport.CloseIdleConnections()
			if err != nil || string(body) != holder.Certificate.Subject.CommonName {
				t.Errorf("%s: answer %q, error %v", ca.Name, body, err)
			}
		}
	}
	if _, err := pki.ServerCert(); err == nil {
		t.Error("a certificate without a name")
	}
}

func TestIssuedPEM(t *testing.T) {
	pki := newECOnly(t)
	issued := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{})
	key, err := issued.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(issued.ChainPEM(), key)
	if err != nil || len(pair.Certificate) != 2 {
		t.Errorf("%d certificates, error %v", len(pair.Certificate), err)
	}
	if !pair.PrivateKey.(crypto.Signer).Public().(*ecdsa.PublicKey).Equal(issued.Key.Public()) {
		t.Error("another key")
	}
	if !bytes.HasPrefix(issued.ChainPEM(), issued.PEM()) {
		t.Error("the chain does not begin with the leaf")
	}
}

func TestInventedSATUs(t *testing.T) {
	for _, n := range []int{0, 12345, 99999, 100000, -1} {
		satu := fineidtest.SATU(n)
		if satu.IsZero() || satu.String()[:3] != "999" {
			t.Errorf("%d: SATU %q", n, satu)
		}
	}
}

func Example() {
	pki, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	stop, err := pki.Serve() // OCSP, CRLs and CA certificates
	if err != nil {
		log.Fatal(err)
	}
	card, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{
		GivenName: "LIISA", Surname: "SPECIMEN-MÄKELÄ", SerialNumber: fineidtest.SATU(335).String(),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(card.Certificate.Subject.CommonName)
	if err := pki.Revoke(card.Certificate, time.Now(), 1); err != nil {
		log.Fatal(err)
	}
	pki.OCSP.Down.Store(true) // and now nobody can find out
	if err := stop(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// SPECIMEN-MÄKELÄ LIISA 99900335E
}
