package fineid_test

import (
	"crypto/x509"
	"testing"

	"github.com/kortti-id/kortti/fineid"
)

func TestPinsAreWhole(t *testing.T) {
	seen := make(map[[32]byte]string)
	roots := 0
	for _, pin := range fineid.Pins() {
		if pin.SHA256 == [32]byte{} || pin.NotAfter.IsZero() || pin.CN == "" {
			t.Errorf("incomplete pin %+v", pin)
		}
		if other, ok := seen[pin.SHA256]; ok {
			t.Errorf("%s and %s have one digest", pin.CN, other)
		}
		seen[pin.SHA256] = pin.CN
		if pin.Root {
			roots++
		}
	}
	if len(seen) != 14 || roots != 2 {
		t.Errorf("%d pins with %d roots, want 14 with 2", len(seen), roots)
	}
}

func TestTestCAsAreNotPinned(t *testing.T) {
	pki, _ := newECOnly(t)
	for _, cert := range []*x509.Certificate{pki.Root.Certificate, pki.CitizenEC.Certificate} {
		if _, ok := fineid.Pinned(cert); ok {
			t.Errorf("%s is pinned", cert.Subject.CommonName)
		}
	}
}
