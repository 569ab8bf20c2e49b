package revoke

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// openssl runs the OpenSSL command: somebody else's reading of the same RFC.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v (the test needs the openssl package)\n%s", args[0], err, out)
	}
	return string(out)
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// OpenSSL reads our question as we mean it, and we believe the answer that
// OpenSSL's own responder gives to it.
func TestAgainstOpenSSL(t *testing.T) {
	b := newBench(t)
	for _, ca := range []*fineidtest.CA{b.CitizenEC, b.CitizenRSA} {
		t.Run(ca.Name, func(t *testing.T) {
			leaf := b.issue(t, ca)
			q, err := newQuestion(leaf.Certificate, ca.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			request := write(t, "request.der", q.request)
			serial := fmt.Sprintf("%X", leaf.Certificate.SerialNumber.Bytes())
			text := openssl(t, "ocsp", "-reqin", request, "-req_text", "-noverify")
			for _, part := range []string{
				"Hash Algorithm: sha1", fmt.Sprintf("Issuer Name Hash: %X", q.id.nameHash), fmt.Sprintf("Issuer Key Hash: %X", q.id.keyHash),
				"Serial Number: " + serial, "OCSP Nonce:", fmt.Sprintf("0420%X", q.nonce),
			} {
				if !strings.Contains(text, part) {
					t.Errorf("openssl does not show %q in\n%s", part, text)
				}
			}
			index := "V\t491231235959Z\t\t" + serial + "\tunknown\t/CN=holder\n"
			caFile := write(t, "ca.pem", certificatePEM(ca.Certificate))
			args := []string{"ocsp", "-index", write(t, "index.txt", []byte(index)), "-CA", caFile, "-rsigner", caFile,
				"-rkey", write(t, "key.pem", keyPEM(t, ca.Key)), "-reqin", request, "-nmin", "5"}
			// The responder names itself by its name or by its key.
			for _, naming := range [][]string{nil, {"-resp_key_id"}} {
				answer := filepath.Join(t.TempDir(), "answer.der")
				openssl(t, slices.Concat(args, naming, []string{"-respout", answer})...)
				der, err := os.ReadFile(answer)
				if err != nil {
					t.Fatal(err)
				}
				found, err := readAnswer(der, q, ca.Certificate, terms{now: time.Now(), maxAge: time.Hour})
				if err != nil || found.status != statusGood || found.by != "the issuing CA" {
					t.Fatalf("%v: answer %+v, error %v", naming, found, err)
				}
				if left := time.Until(found.until); left <= 0 || left > 5*time.Minute {
					t.Errorf("used for %v, though it ends in five minutes", left)
				}
			}
		})
	}
}

func TestQuestionAgainstXCrypto(t *testing.T) {
	b := newBench(t)
	leaf := b.issue(t, b.CitizenRSA)
	q, err := newQuestion(leaf.Certificate, leaf.CA.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ocsp.ParseRequest(q.request)
	if err != nil {
		t.Fatal(err)
	}
	if read.HashAlgorithm != crypto.SHA1 || read.SerialNumber.Cmp(leaf.Certificate.SerialNumber) != 0 ||
		!bytes.Equal(read.IssuerNameHash, q.id.nameHash) || !bytes.Equal(read.IssuerKeyHash, q.id.keyHash) {
		t.Errorf("read as %+v", read)
	}
	again, err := newQuestion(leaf.Certificate, leaf.CA.Certificate)
	if err != nil || bytes.Equal(again.nonce, q.nonce) || len(q.nonce) != nonceSize {
		t.Error("the nonce is not new for each question")
	}
}

// responder makes a responder's certificate below a CA.
func responder(t testing.TB, ca *fineidtest.CA, now time.Time, change func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "responder"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, ca.Key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, ca.Key
}

// TestMintedAnswers reads answers that x/crypto has written, each wrong in one
// way that the test PKI's responder cannot be.
func TestMintedAnswers(t *testing.T) {
	b := newBench(t)
	foreign, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	leaf := b.issue(t, b.CitizenRSA)
	ca, now := b.CitizenRSA, time.Now().Truncate(time.Second)
	good := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.Certificate.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour), IssuerHash: crypto.SHA1}
	for _, c := range []struct {
		name   string
		ca     *fineidtest.CA // who certifies the responder
		change func(*x509.Certificate)
		answer func(*ocsp.Response)
		want   string
	}{
		{"right", ca, nil, nil, ""},
		{"a CA of the same name", foreign.CitizenRSA, nil, nil, "not signed by the issuing CA"},
		{"no OCSP signing", ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, nil, "not for OCSP signing"},
		{"any use is not OCSP signing", ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, nil, "not for OCSP signing"},
		{"key not for signatures", ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, nil, "not for signatures"},
		{"not valid yet", ca, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }, nil, "not valid now"},
		{"critical extension", ca, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}, nil, "unknown critical extension"},
		{"SHA-256 certificate id", ca, nil, func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }, "another certificate"},
		{"from the future", ca, nil, func(r *ocsp.Response) { r.ThisUpdate = now.Add(time.Hour); r.NextUpdate = now.Add(2 * time.Hour) }, "future"},
		{"made long ago", ca, nil, func(r *ocsp.Response) { r.ThisUpdate = now.Add(-61 * time.Minute) }, "stale"},
		{"SHA-1 signature", ca, nil, func(r *ocsp.Response) { r.SignatureAlgorithm = x509.SHA1WithRSA }, "not accepted"},
		{"critical single extension", ca, nil, func(r *ocsp.Response) {
			r.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}, "critical extension"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, key := responder(t, c.ca, now, c.change)
			response := good
			response.Certificate = cert
			if c.answer != nil {
				c.answer(&response)
			}
			der, err := ocsp.CreateResponse(ca.Certificate, cert, response, key)
			if err != nil {
				t.Fatal(err)
			}
			q, err := newQuestion(leaf.Certificate, ca.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			_, err = readAnswer(der, q, ca.Certificate, terms{now: now, maxAge: time.Hour, noNonce: true})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if _, err := readAnswer(der, q, ca.Certificate, terms{now: now, maxAge: time.Hour}); err == nil {
				t.Error("believed without a nonce")
			}
		})
	}
}

// FuzzResponse: no answer makes the reader fail, and none without our nonce
// passes. Signatures are left out: they say nothing about the reader, and their
// varying coverage would keep the fuzzer busy with itself.
func FuzzResponse(f *testing.F) {
	now := time.Now().Truncate(time.Second)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ca := &fineidtest.CA{Key: key, Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}}}
	issuer, _ := responder(f, ca, now, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "CA", true, true, x509.KeyUsageCertSign
	})
	ca.Certificate = issuer
	cert, _ := responder(f, ca, now, nil)
	q, err := newQuestion(cert, issuer)
	if err != nil {
		f.Fatal(err)
	}
	for _, status := range []int{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
		der, err := ocsp.CreateResponse(issuer, cert, ocsp.Response{
			Status: status, SerialNumber: cert.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour),
			RevokedAt: now, Certificate: cert, IssuerHash: crypto.SHA1,
		}, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := parseResponse(der)
		if err != nil {
			return
		}
		if len(r.singles) > maxParts || len(r.certificates) > maxParts || r.responder.name == nil && r.responder.keyHash == nil {
			t.Error("read more, or less, than a response holds")
		}
		if r.checkNonce(q.nonce, false) == nil {
			t.Error("passed without our nonce")
		}
		s, err := r.find(q.id)
		if err != nil {
			return
		}
		if until, err := r.checkTimes(s, terms{now: now, maxAge: time.Hour}); err == nil && (!until.After(now) || until.After(now.Add(time.Hour))) {
			t.Errorf("used until %v", until)
		}
	})
}
