package verify_test

import (
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/revoke"
	"github.com/kortti-id/kortti/server/verify"
)

// BenchmarkVerifyCached is what every request costs: the verdict from memory,
// the OCSP answer from memory, and a whole Report.
func BenchmarkVerifyCached(b *testing.B) {
	pki := newPKI(b)
	stop, err := pki.Serve()
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			b.Error(err)
		}
	}()
	client, err := revoke.New(revoke.Config{Rules: []revoke.Rule{{Issuer: "*", Hosts: []string{"127.0.0.1"}}}})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for _, ca := range []*fineidtest.CA{pki.CitizenEC, pki.CitizenRSA} {
		b.Run(ca.Name, func(b *testing.B) {
			c := config(pki)
			c.Revocation = client
			v := newVerifier(b, c)
			ev := of(issue(b, pki, ca, fineidtest.Leaf{}).Certificate)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := v.Verify(b.Context(), ev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerifyCold is the first sight of a certificate, beside its floor, the
// two signatures of leaf and issuing CA, in turns. The ratio is what counts.
func BenchmarkVerifyCold(b *testing.B) {
	pki := newPKI(b)
	leaf := issue(b, pki, pki.CitizenEC, fineidtest.Leaf{}).Certificate
	issuing, root := pki.CitizenEC.Certificate, pki.Root.Certificate
	ev, c := of(leaf), config(pki)
	v := newVerifier(b, c)
	var whole, bare time.Duration
	for b.Loop() {
		if err := v.Reload(c); err != nil { // forgets the verdict
			b.Fatal(err)
		}
		start := time.Now()
		if _, _, err := v.Verify(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if err := leaf.CheckSignatureFrom(issuing); err != nil {
			b.Fatal(err)
		}
		if err := issuing.CheckSignatureFrom(root); err != nil {
			b.Fatal(err)
		}
		whole, bare = whole+middle.Sub(start), bare+time.Since(middle)
	}
	b.ReportMetric(float64(whole.Microseconds())/float64(b.N), "µs/verify")
	b.ReportMetric(float64(bare.Microseconds())/float64(b.N), "µs/bare")
	b.ReportMetric(float64(whole)/float64(bare), "ratio")
}

// BenchmarkRefused is a stranger's certificate, which is never remembered.
func BenchmarkRefused(b *testing.B) {
	pki, foreign := newPKI(b), newPKI(b)
	v := newVerifier(b, config(pki))
	ev := of(issue(b, foreign, foreign.CitizenEC, fineidtest.Leaf{}).Certificate)
	for b.Loop() {
		if _, _, err := v.Verify(b.Context(), ev); codeOf(err) != verify.CodeUntrustedIssuer {
			b.Fatal(err)
		}
	}
}
