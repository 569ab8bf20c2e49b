package fineid_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/kortti-id/kortti/fineid"
)

// realCerts gives the folder with certificates of real test cards and of DVV's
// CAs. They are not ours to publish, so the tests that read them run where the
// environment names such a folder.
func realCerts(t *testing.T) (string, bool) {
	t.Helper()
	dir := os.Getenv("KORTTI_CERTS")
	if dir == "" {
		t.Log("not run: KORTTI_CERTS not set")
	}
	return dir, dir != ""
}

func TestRealTestCards(t *testing.T) {
	dir, ok := realCerts(t)
	if !ok {
		return
	}
	for file, want := range map[string]fineid.Identity{
		"test-dvv-g5e-auth-p384.der":   {Purpose: fineid.Authentication, SerialNumber: "99902038C", GivenName: "PHILIP", Surname: "SPECIMEN-AUVINEN", Email: "S1Philip087.SPECIMEN-Auvinen@testi.fi", Issuer: "DVV TEST Certificates - G5E", Policies: []string{"1.2.246.517.99.10.352.1"}},
		"test-dvv-g5e-sign-p384.der":   {Purpose: fineid.Signature, SerialNumber: "99902038C", GivenName: "PHILIP", Surname: "SPECIMEN-AUVINEN", Email: "S1Philip087.SPECIMEN-Auvinen@testi.fi", Issuer: "DVV TEST Certificates - G5E", Policies: []string{"1.2.246.517.99.10.352.1"}},
		"test-vrk-g3-auth-rsa2048.der": {Purpose: fineid.Authentication, SerialNumber: "99900335E", GivenName: "LIISA", Surname: "SPECIMEN-NISYJU", Email: "G3testiLiisa016.SPECIMEN-nisyju@testi.fi", Issuer: "VRK CA for Test Purposes - G3", Policies: []string{"1.2.246.517.99.10.32.1"}},
		"test-vrk-g3-sign-ecp256.der":  {Purpose: fineid.Signature, SerialNumber: "99900335E", GivenName: "LIISA", Surname: "SPECIMEN-NISYJU", Email: "G3testiLiisa016.SPECIMEN-nisyju@testi.fi", Issuer: "VRK CA for Test Purposes - G3"},
		"test-vrk-g3-sign-rsa2048.der": {Purpose: fineid.Signature, SerialNumber: "999004228", GivenName: "TIMO", Surname: "SPECIMEN-POTEX", Issuer: "VRK CA for Test Purposes - G3"},
	} {
		der, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fineid.Parse(cert)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if got.Class != fineid.Citizen || got.Family != "dvv-test-citizen" || got.SATU.String() != want.SerialNumber ||
			got.Purpose != want.Purpose || got.SerialNumber != want.SerialNumber || got.GivenName != want.GivenName ||
			got.Surname != want.Surname || got.Email != want.Email || got.Issuer != want.Issuer || got.Country != "FI" ||
			got.CommonName != want.Surname+" "+want.GivenName+" "+want.SerialNumber {
			t.Errorf("%s:\n got %+v\nwant %+v", file, got, want)
		}
		if want.Policies != nil && (len(got.Policies) != 1 || got.Policies[0] != want.Policies[0]) {
			t.Errorf("%s: policies %q, want %q", file, got.Policies, want.Policies)
		}
	}
}

func TestRealIssuingCAsArePinned(t *testing.T) {
	dir, ok := realCerts(t)
	if !ok {
		return
	}
	files, err := filepath.Glob(filepath.Join(dir, "ca", "*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CA certificates in %s: %v", dir, err)
	}
	found := make(map[string]bool)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			pin, ok := fineid.Pinned(cert)
			if !ok || pin.CN != cert.Subject.CommonName || pin.Root || !pin.NotAfter.Equal(cert.NotAfter) {
				t.Errorf("%s: %s has pin %+v, %t", filepath.Base(file), cert.Subject.CommonName, pin, ok)
			}
			found[pin.CN] = true
		}
	}
	if len(found) != 12 {
		t.Errorf("%d issuing CAs, want 12", len(found))
	}
}
