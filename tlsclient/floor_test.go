package tlsclient_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/kortti-id/kortti/tlsclient"
)

// In TLS 1.1 and before, a key would be handed a bare digest, of which nobody
// can tell what it is of: such a host is refused before any signature.
func TestOldTLSIsRefused(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, kind{version, false, true}, []*ca{people}, ok)
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			_, err := get(t.Context(), tr, "https://card.test/")
			var upstream *tlsclient.UpstreamError
			if !errors.As(err, &upstream) || upstream.Op != "handshake" || key.signatures.Load() != 0 {
				t.Errorf("%v, %d signatures", err, key.signatures.Load())
			}
		})
	}
}

// Two ports of one host are two hosts: they share no session, though crypto/tls
// files sessions by the name alone.
func TestPortsShareNoSessions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			noLeaks(t)
			people := newCA(t, "people", nil)
			cert, key := newCard(t, people, "meri")
			s := newServer(t, kind{version, false, true}, []*ca{people}, ok)
			_, port, err := net.SplitHostPort(s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			tr := client(t, s, tlsclient.Config{Source: tlsclient.Static(cert)})
			mustGet(t, tr, "https://card.test/")
			mustGet(t, tr, fmt.Sprintf("https://card.test:%s/", port))
			if c := tr.Counters(); key.signatures.Load() != 2 || c.Handshakes.Resumed != 0 {
				t.Errorf("%d signatures, want 2; %+v", key.signatures.Load(), c)
			}
		})
	}
}
