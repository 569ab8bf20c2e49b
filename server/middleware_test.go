package server_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/kortti-id/kortti/server"
)

// A person gets into the examples' sites by card, and nobody else does.
func TestExamplesAdmit(t *testing.T) {
	for name, handler := range map[string]func(*server.Server) http.Handler{"net/http": netHTTPSite, "chi": chiSite} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, native)
			config, err := server.Load(filepath.Join(s.dir, "kortti-server.toml"))
			s.must(err)
			config.Listen = server.Listen{Cert: config.Listen.Cert, Key: config.Listen.Key}
			config.Audit.Dir = t.TempDir() // the site's is in use
			srv, err := server.New(t.Context(), config, server.Options{Log: slog.New(slog.DiscardHandler)})
			s.must(err)
			defer func() { s.must(srv.Close()) }()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			s.must(err)
			own := &http.Server{Handler: handler(srv), TLSConfig: srv.TLSConfig(), ConnContext: srv.ConnContext}
			ended := make(chan error, 1)
			go func() { ended <- own.ServeTLS(l, "", "") }()
			defer func() {
				s.must(own.Close())
				if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			}()

			b := s.newBrowser(tls.VersionTLS13, true)
			b.base = "https://" + l.Addr().String()
			b.expect("GET", "/about", http.StatusOK, "for everybody")
			b.expect("GET", "/", http.StatusUnauthorized, "no-certificate")
			b.expect("GET", "/nowhere", http.StatusUnauthorized, "no-certificate")
			b.insert(s.issue(s.pki.CitizenEC))
			b.CloseIdleConnections()
			b.expect("GET", "/", http.StatusForbidden, "unknown-user")
			b.expect("GET", "/login", http.StatusOK, "Maija Mäkelä")
			b.expect("POST", "/login", http.StatusSeeOther, "/inactive")
			s.approve(satu)
			b.expect("POST", "/login", http.StatusSeeOther, "/account")
			b.expect("GET", "/", http.StatusOK, "Hello, Maija Mäkelä!")
			b.expect("GET", "/whoami", http.StatusOK, `"authenticated":true`)
			b.expect("GET", "/reports", http.StatusForbidden, "auditors only")
			b.expect("GET", "/nowhere", http.StatusNotFound, "")
			b.expect("POST", "/logout", http.StatusSeeOther, "/login")
			b.expect("GET", "/", http.StatusUnauthorized, "no-session")
		})
	}
}
