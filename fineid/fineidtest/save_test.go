package fineidtest_test

import (
	"bytes"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

func revoked(t *testing.T, pki *fineidtest.PKI, ca *fineidtest.CA, cert *x509.Certificate) bool {
	t.Helper()
	list, err := x509.ParseRevocationList(fetch(t, pki.BaseURL()+"/crl/"+ca.Name+".crl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(ca.Certificate); err != nil {
		t.Fatal(err)
	}
	for _, entry := range list.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

// One process serves while another one, with the same folder, issues and
// revokes.
func TestTwoProcessesShareAFolder(t *testing.T) {
	serving := newECOnly(t)
	before := issue(t, serving, serving.CitizenEC, fineidtest.Leaf{}).Certificate
	dir := filepath.Join(t.TempDir(), "pki")
	if err := serving.Save(dir); err != nil {
		t.Fatal(err)
	}
	issuing, err := fineidtest.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if issuing.BaseURL() != serving.BaseURL() || !bytes.Equal(issuing.RootsPEM(), serving.RootsPEM()) {
		t.Error("the loaded PKI is another one")
	}
	leaf := issue(t, issuing, issuing.CitizenEC, fineidtest.Leaf{}).Certificate
	for _, cert := range []*x509.Certificate{before, leaf} {
		if got := ask(t, serving, serving.CitizenEC, cert); got != "good" {
			t.Errorf("status %s, want good", got)
		}
		if revoked(t, serving, serving.CitizenEC, cert) {
			t.Error("in the CRL before it was revoked")
		}
		if err := issuing.Revoke(cert, time.Now().Add(-time.Hour), 1); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, serving, serving.CitizenEC, cert); got != "revoked" {
			t.Errorf("status %s, want revoked", got)
		}
		if !revoked(t, serving, serving.CitizenEC, cert) {
			t.Error("not in the CRL")
		}
	}
}

// A second copy knows all that the first one knew.
func TestSaveAgainElsewhere(t *testing.T) {
	pki := newECOnly(t)
	early := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	first, second := filepath.Join(t.TempDir(), "1"), filepath.Join(t.TempDir(), "2")
	if err := pki.Save(first); err != nil {
		t.Fatal(err)
	}
	late := issue(t, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	if err := pki.Revoke(early, time.Now(), 1); err != nil {
		t.Fatal(err)
	}
	if err := pki.Save(second); err != nil {
		t.Fatal(err)
	}
	loaded, err := fineidtest.Load(second)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.CitizenRSA != nil {
		t.Error("an RSA CA came from nowhere")
	}
	if a, b := ask(t, pki, pki.CitizenEC, early), ask(t, pki, pki.CitizenEC, late); a != "revoked" || b != "good" {
		t.Errorf("the early certificate is %s, the late one %s", a, b)
	}
}

func TestSavedKeysArePrivate(t *testing.T) {
	pki := newServed(t)
	dir := filepath.Join(t.TempDir(), "pki")
	if err := pki.Save(dir); err != nil {
		t.Fatal(err)
	}
	keys := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "-key.pem") {
			return err
		}
		keys++
		info, err := entry.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil || keys != 12 {
		t.Errorf("%d keys, error %v; want 12", keys, err)
	}
	if err := pki.Save(dir); err == nil {
		t.Error("saved over a PKI")
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	if _, err := fineidtest.Load(t.TempDir()); err == nil {
		t.Error("loaded an empty folder")
	}
	pki := newServed(t)
	for name, content := range map[string]string{
		"pki.json": "{", "root-ec.pem": "nothing", "citizen-rsa-key.pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		dir := filepath.Join(t.TempDir(), "pki")
		if err := pki.Save(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := fineidtest.Load(dir); err == nil {
			t.Errorf("%s: damage was not seen", name)
		}
	}
}

func TestServeNeedsItsAddressBeforeSave(t *testing.T) {
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.Save(filepath.Join(t.TempDir(), "pki")); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Serve(); err == nil {
		t.Error("the saved certificates name no address, and yet it serves")
	}
}
