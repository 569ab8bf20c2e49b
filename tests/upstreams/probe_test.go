package upstreams_test

import (
	"context"
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/probe"
)

// A probe sees that Apache asks for the certificate only after the request, also
// where TLS 1.3 hides it at first; and it makes no signature.
func TestProbeSeesApacheAskLate(t *testing.T) {
	for _, a := range apaches() {
		t.Run(a.name, func(t *testing.T) {
			r := newApache(t, a)
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(r.pki.WebRootsPEM())
			cfg := probe.Config{Roots: roots, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, r.addr)
			}}
			for path, asking := range map[string][]string{"/": nil, "/secure/": {site}} {
				result, err := probe.Follow(t.Context(), cfg, "https://"+site+path)
				if err != nil {
					t.Fatal(err)
				}
				last := result.Hops[len(result.Hops)-1]
				if !slices.Equal(result.Asking(), asking) || asking != nil && (!last.Late || last.TLS != "1.2" || !strings.Contains(strings.Join(last.CAs, " "), "Kortti TEST")) {
					t.Errorf("%s: %+v", path, result)
				}
			}
			r.signatures(0)
		})
	}
}
