package fineidtest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

var nonce = bytes.Repeat([]byte{0xa5, 0x17}, 16)

// request makes an OCSP request and puts a nonce into it, which x/crypto
// cannot.
func request(t *testing.T, cert, issuer *x509.Certificate, hash crypto.Hash) []byte {
	t.Helper()
	plain, err := ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ TBS struct{ List asn1.RawValue } }
	if _, err := asn1.Unmarshal(plain, &r); err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(nonce)
	if err != nil {
		t.Fatal(err)
	}
	type tbs struct {
		List       asn1.RawValue
		Extensions []pkix.Extension `asn1:"explicit,tag:2"`
	}
	der, err := asn1.Marshal(struct{ TBS tbs }{tbs{r.TBS.List, []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: value},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func post(t *testing.T, url string, body []byte) (status int, answer []byte) {
	t.Helper()
	response, err := http.Post(url, "application/ocsp-request", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

func fetch(t *testing.T, url string) []byte {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, error %v", url, response.StatusCode, err)
	}
	return body
}

// ask gives the status of a certificate in words.
func ask(t *testing.T, pki *fineidtest.PKI, ca *fineidtest.CA, cert *x509.Certificate) string {
	t.Helper()
	_, answer := post(t, pki.BaseURL()+"/ocsp/"+ca.Name, request(t, cert, ca.Certificate, crypto.SHA1))
	response, err := ocsp.ParseResponseForCert(answer, cert, ca.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}[response.Status]
}

func TestOCSPAnswers(t *testing.T) {
	pki := newServed(t)
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.CitizenRSA, pki.OrganisationEC} {
		cert := issue(t, pki, ca, fineidtest.Leaf{}).Certificate
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			_, answer := post(t, cert.OCSPServer[0], request(t, cert, ca.Certificate, hash))
			response, err := ocsp.ParseResponseForCert(answer, cert, ca.Certificate)
			if err != nil {
				t.Fatalf("%s: %v", ca.Name, err)
			}
			if response.Status != ocsp.Good || !bytes.Contains(answer, nonce) {
				t.Errorf("%s: status %d, nonce echoed %t", ca.Name, response.Status, bytes.Contains(answer, nonce))
			}
			if life := response.NextUpdate.Sub(response.ThisUpdate); life != time.Hour {
				t.Errorf("%s: answer lives %s", ca.Name, life)
			}
			if responder := response.Certificate; responder == nil || responder.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning {
				t.Errorf("%s: not a delegated responder", ca.Name)
			}
		}
		at := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		if err := pki.Revoke(cert, at, ocsp.KeyCompromise); err != nil {
			t.Fatal(err)
		}
		_, answer := post(t, cert.OCSPServer[0], request(t, cert, ca.Certificate, crypto.SHA1))
		response, err := ocsp.ParseResponseForCert(answer, cert, ca.Certificate)
		if err != nil || response.Status != ocsp.Revoked || !response.RevokedAt.Equal(at) || response.RevocationReason != ocsp.KeyCompromise {
			t.Errorf("%s: revoked: %+v, error %v", ca.Name, response, err)
		}
	}
	if got := pki.Requests(); got.OCSP != 9 || got.CRL != 0 {
		t.Errorf("counted %+v, want 9 OCSP requests", got)
	}
}

func TestOCSPForIssuingCA(t *testing.T) {
	pki := newECOnly(t)
	cert := pki.CitizenEC.Certificate
	if got := ask(t, pki, pki.Root, cert); got != "good" {
		t.Errorf("issuing CA: %s", got)
	}
	if err := pki.Revoke(cert, time.Now(), ocsp.CACompromise); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, pki, pki.Root, cert); got != "revoked" || !revoked(t, pki, pki.Root, cert) {
		t.Errorf("revoked issuing CA: OCSP says %s", got)
	}
}

func TestOCSPByGet(t *testing.T) {
	pki := newECOnly(t)
	cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	query := base64.StdEncoding.EncodeToString(request(t, cert, pki.CitizenEC.Certificate, crypto.SHA1))
	answer := fetch(t, cert.OCSPServer[0]+"/"+query)
	if response, err := ocsp.ParseResponseForCert(answer, cert, pki.CitizenEC.Certificate); err != nil || response.Status != ocsp.Good {
		t.Errorf("%+v, error %v", response, err)
	}
}

// An unknown number and a request about another issuer.
func TestOCSPKnowsOnlyItsOwn(t *testing.T) {
	pki, foreign := newECOnly(t), newECOnly(t)
	own := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	other := issue(t, pki, pki.OrganisationEC, fineidtest.Leaf{}).Certificate
	if got := ask(t, pki, pki.CitizenEC, other); got != "unknown" {
		t.Errorf("a number that was never issued: %s", got)
	}
	_, answer := post(t, own.OCSPServer[0], request(t, own, foreign.CitizenEC.Certificate, crypto.SHA1))
	if _, err := ocsp.ParseResponse(answer, nil); err != (ocsp.ResponseError{Status: ocsp.Unauthorized}) {
		t.Errorf("another issuer: error %v, want unauthorized", err)
	}
	_, answer = post(t, own.OCSPServer[0], []byte("nonsense"))
	if _, err := ocsp.ParseResponse(answer, nil); err != (ocsp.ResponseError{Status: ocsp.Malformed}) {
		t.Errorf("nonsense: error %v, want malformed", err)
	}
}

func TestOCSPFaults(t *testing.T) {
	pki := newECOnly(t)
	ca := pki.CitizenEC
	cert := issue(t, pki, ca, fineidtest.Leaf{}).Certificate
	for name, test := range map[string]struct {
		fault *atomic.Bool
		shows func(r *ocsp.Response, answer []byte) bool
	}{
		"Stale":        {&pki.OCSP.Stale, func(r *ocsp.Response, _ []byte) bool { return r.NextUpdate.Before(time.Now()) }},
		"NoNextUpdate": {&pki.OCSP.NoNextUpdate, func(r *ocsp.Response, _ []byte) bool { return r.NextUpdate.IsZero() }},
		"NoNonce":      {&pki.OCSP.NoNonce, func(_ *ocsp.Response, a []byte) bool { return !bytes.Contains(a, nonce[:8]) }},
		"WrongNonce": {&pki.OCSP.WrongNonce, func(_ *ocsp.Response, a []byte) bool {
			return !bytes.Contains(a, nonce) && bytes.Contains(a, nonce[:31])
		}},
		"WrongSigner": {&pki.OCSP.WrongSigner, func(r *ocsp.Response, _ []byte) bool {
			return len(r.Certificate.ExtKeyUsage) == 0 && r.Certificate.CheckSignatureFrom(ca.Certificate) == nil
		}},
		"OtherCA": {&pki.OCSP.OtherCA, func(r *ocsp.Response, _ []byte) bool {
			return r.Certificate.CheckSignatureFrom(pki.OrganisationEC.Certificate) == nil
		}},
		"ExpiredResponder": {&pki.OCSP.ExpiredResponder, func(r *ocsp.Response, _ []byte) bool { return r.Certificate.NotAfter.Before(time.Now()) }},
		"Direct": {&pki.OCSP.Direct, func(r *ocsp.Response, _ []byte) bool {
			return r.Certificate == nil && r.CheckSignatureFrom(ca.Certificate) == nil
		}},
		"OtherSerial":  {&pki.OCSP.OtherSerial, func(r *ocsp.Response, _ []byte) bool { return r.SerialNumber.Cmp(cert.SerialNumber) != 0 }},
		"OtherIssuer":  {&pki.OCSP.OtherIssuer, func(r *ocsp.Response, _ []byte) bool { return r.SerialNumber.Cmp(cert.SerialNumber) == 0 }},
		"Unknown":      {&pki.OCSP.Unknown, func(r *ocsp.Response, _ []byte) bool { return r.Status == ocsp.Unknown }},
		"BadSignature": {&pki.OCSP.BadSignature, nil},
		"TryLater":     {&pki.OCSP.TryLater, nil},
		"Garbage":      {&pki.OCSP.Garbage, nil},
		"Down":         {&pki.OCSP.Down, nil},
	} {
		test.fault.Store(true)
		_, answer := post(t, cert.OCSPServer[0], request(t, cert, ca.Certificate, crypto.SHA1))
		test.fault.Store(false)
		response, err := ocsp.ParseResponse(answer, nil)
		if test.shows == nil {
			if err == nil {
				t.Errorf("%s: the answer is sound", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !test.shows(response, answer) {
			t.Errorf("%s: the fault does not show: %+v", name, response)
		}
	}
	if got := ask(t, pki, ca, cert); got != "good" {
		t.Errorf("with all faults off: %s", got)
	}
}

// OtherIssuer must change the hashes that name the issuer.
func TestOCSPOtherIssuerChangesHashes(t *testing.T) {
	pki := newECOnly(t)
	cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	der := request(t, cert, pki.CitizenEC.Certificate, crypto.SHA1)
	parsed, err := ocsp.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []bool{false, true} {
		pki.OCSP.OtherIssuer.Store(other)
		_, answer := post(t, cert.OCSPServer[0], der)
		if bytes.Contains(answer, parsed.IssuerKeyHash) == other {
			t.Errorf("other issuer %t: the issuer's key hash is in the answer: %t", other, !other)
		}
	}
}

func TestOCSPDelay(t *testing.T) {
	pki := newECOnly(t)
	cert := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	body := request(t, cert, pki.CitizenEC.Certificate, crypto.SHA1)

	const delay = 50 * time.Millisecond
	pki.OCSP.Delay.Store(int64(delay))
	start := time.Now()
	if _, answer := post(t, cert.OCSPServer[0], body); len(answer) == 0 || time.Since(start) < delay {
		t.Errorf("answer of %d bytes after %s", len(answer), time.Since(start))
	}

	// A client that went away is not waited for: this would take an hour.
	pki.OCSP.Delay.Store(int64(time.Hour))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	answer := httptest.NewRecorder()
	pki.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(gone, http.MethodPost, "/ocsp/citizen-ec", bytes.NewReader(body)))
	if answer.Body.Len() != 0 {
		t.Error("the delayed answer came")
	}
}

func TestCRLFaultsAndNumbers(t *testing.T) {
	pki := newECOnly(t)
	url := pki.BaseURL() + "/crl/citizen-ec.crl"
	first, err := x509.ParseRevocationList(fetch(t, url))
	if err != nil {
		t.Fatal(err)
	}
	pki.CRL.Stale.Store(true)
	stale, err := x509.ParseRevocationList(fetch(t, url))
	if err != nil {
		t.Fatal(err)
	}
	if !stale.NextUpdate.Before(time.Now()) || stale.Number.Cmp(first.Number) <= 0 {
		t.Errorf("stale list until %s, numbers %s and %s", stale.NextUpdate, first.Number, stale.Number)
	}
	pki.CRL.Down.Store(true)
	if status, _ := post(t, url, nil); status != http.StatusInternalServerError {
		t.Errorf("down: HTTP %d", status)
	}
	if got := pki.Requests(); got.CRL != 3 {
		t.Errorf("counted %+v, want 3 CRL requests", got)
	}
}

func TestCACertificateServed(t *testing.T) {
	pki := newServed(t)
	leaf := issue(t, pki, pki.CitizenRSA, fineidtest.Leaf{}).Certificate
	if !bytes.Equal(fetch(t, leaf.IssuingCertificateURL[0]), pki.CitizenRSA.Certificate.Raw) {
		t.Error("another certificate")
	}
	for _, path := range []string{"/", "/ocsp/nobody", "/crl/nobody.crl", "/ca/", "/other"} {
		if status, _ := post(t, pki.BaseURL()+path, nil); status != http.StatusNotFound {
			t.Errorf("%s: HTTP %d, want 404", path, status)
		}
	}
	bare := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{NoAIA: true, NoCRL: true}).Certificate
	if len(bare.OCSPServer)+len(bare.CRLDistributionPoints)+len(bare.IssuingCertificateURL) != 0 {
		t.Error("addresses in a certificate that should have none")
	}
}
