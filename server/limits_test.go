package server_test

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/kortti-id/kortti/server"
)

// Connections beyond the limit are closed before their handshake.
func TestHandshakeLimit(t *testing.T) {
	s := newSite(t, native+"[limits]\nhandshakes = 1\n") // bursts of 20
	done, closed := 0, 0
	for range 30 {
		c, err := tls.DialWithDialer(new(net.Dialer), "tcp", s.srv.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			closed++
			continue
		}
		done++
		c.Close()
	}
	if done < 20 || closed == 0 {
		t.Errorf("%d handshakes done, %d refused; want 20 and the rest", done, closed)
	}
	_, err := server.New(t.Context(), func() server.Config { c := s.config(); c.Limits.Logins = -1; return c }(), server.Options{})
	if err == nil {
		t.Error("took a negative limit")
	}
}
