package verify_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/revoke"
	"github.com/kortti-id/kortti/server/verify"
)

// greet tells people who they are by their certificate: no accounts, no
// sessions, no database. Since a certificate is sent along as blindly as a
// cookie, http.CrossOriginProtection stands before it.
func greet(reader *evidence.Reader, verifier *verify.Verifier) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ev, _, err := reader.Read(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		id, report, err := verifier.Verify(r.Context(), ev)
		if err != nil { // report says why, check by check
			http.Error(w, verify.Text(report.Code, "en"), http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "%s %s, %s, issued by %s\n", id.Profile().FirstName, id.Profile().LastName, id.Class, id.Issuer)
	}
}

// The verifier alone, in a program that needs nothing else of this module. A test
// PKI stands in for DVV and its responder.
func Example() {
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	stop, err := pki.Serve()
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	responder, err := url.Parse(pki.BaseURL())
	if err != nil {
		log.Fatal(err)
	}

	checker, err := revoke.New(revoke.Config{Rules: []revoke.Rule{{Issuer: "*", Policy: revoke.Must, Hosts: []string{responder.Host}}}})
	if err != nil {
		log.Fatal(err)
	}
	defer checker.Close()
	verifier, err := verify.New(verify.Config{
		Roots:      []*x509.Certificate{pki.Root.Certificate},
		Issuing:    []*x509.Certificate{pki.CitizenEC.Certificate},
		Issuers:    fineid.DVV().With(pki.Issuers()...),
		Revocation: checker,
	})
	if err != nil {
		log.Fatal(err)
	}
	reader, err := evidence.New(evidence.Config{}) // TLS only: no proxy is believed
	if err != nil {
		log.Fatal(err)
	}
	site := httptest.NewUnstartedServer(http.NewCrossOriginProtection().Handler(greet(reader, verifier)))
	site.Config.ConnContext = reader.ConnContext
	// Go proves that the client holds the key; the verifier does all the rest.
	site.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true}
	site.StartTLS()
	defer site.Close()

	card, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{GivenName: "MAIJA", Surname: "MÄKELÄ"})
	if err != nil {
		log.Fatal(err)
	}
	show(site, card.TLS())
	show(site)
	// Output:
	// 200 Maija Mäkelä, citizen, issued by Kortti TEST Citizen Certificates - G1E
	// 403 No card was found. Put the card into the reader and try again.
}

// show asks the site with a card, or without one.
func show(site *httptest.Server, card ...tls.Certificate) {
	client := site.Client()
	client.Transport.(*http.Transport).CloseIdleConnections()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = card
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, site.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d %s", resp.StatusCode, body)
}
