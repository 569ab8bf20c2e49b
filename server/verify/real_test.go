package verify_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/verify"
)

// Certificates of real test cards, by DVV's published CAs: those for signatures are
// refused for their purpose, those for logging in because the CAs of test cards are
// not among the published ones. The files are not ours to publish.
func TestRealCards(t *testing.T) {
	dir := os.Getenv("KORTTI_CERTS")
	if dir == "" {
		t.Log("not run: KORTTI_CERTS not set")
		return
	}
	var issuing []*x509.Certificate
	files, err := filepath.Glob(filepath.Join(dir, "ca", "*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CA certificates in %s: %v", dir, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			ca, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			issuing = append(issuing, ca)
		}
	}
	leaves, err := filepath.Glob(filepath.Join(dir, "*.der"))
	if err != nil || len(leaves) == 0 {
		t.Fatalf("no leaves in %s: %v", dir, err)
	}
	for _, file := range leaves {
		der, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		v := newVerifier(t, verify.Config{
			Issuing: issuing, Pins: true, Revocation: goodChecker(),
			Now: func() time.Time { return leaf.NotBefore.Add(time.Hour) },
		})
		want := verify.CodeUntrustedIssuer
		if strings.Contains(filepath.Base(file), "-sign-") {
			want = verify.CodeWrongPurpose
		}
		if _, report, err := v.Verify(t.Context(), evidence.Evidence{Leaf: der}); codeOf(err) != want {
			t.Errorf("%s: %v, %+v; want %s", filepath.Base(file), err, report, want)
		}
	}
}
