package fineidtest

import (
	"testing"

	"golang.org/x/crypto/ocsp"
)

func FuzzParseRequest(f *testing.F) {
	pki, err := New(Options{ECOnly: true})
	if err != nil {
		f.Fatal(err)
	}
	leaf, err := pki.Issue(pki.CitizenEC, Leaf{})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := ocsp.CreateRequest(leaf.Certificate, pki.CitizenEC.Certificate, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("0\x00"))
	f.Fuzz(func(t *testing.T, der []byte) {
		request, err := parseRequest(der)
		if err != nil {
			return
		}
		if answer, status := pki.answer(pki.CitizenEC, request); (answer == nil) == (status == 0) {
			t.Fatalf("answer of %d bytes with status %d", len(answer), status)
		}
	})
}
