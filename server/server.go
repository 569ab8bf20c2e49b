// Package server admits people to a web application by the certificate on their
// card. It is a library for Go programs and, as cmd/kortti-server, a program of
// its own: it puts evidence, verifier, accounts, sessions and pages together by
// one configuration, and serves them natively over TLS or behind a reverse proxy.
//
//	config, err := server.Load("kortti-server.toml")
//	srv, err := server.New(ctx, config, server.Options{})
//	defer srv.Close()
//	err = srv.ListenAndServe(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		user, _ := server.UserFrom(r.Context())
//		fmt.Fprintln(w, "Hello", user.Name())
//	}))
//
// Programs with an http.Server and a router of their own take Middleware: see the
// examples.
//
// It fails closed: whatever is wrong with the configuration stops New.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/audit"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/limit"
	"github.com/kortti-id/kortti/server/probe"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
	"github.com/kortti-id/kortti/server/verify"
)

// User is the account of somebody who has been admitted.
type User = users.User

// UserFrom returns the user whom the middleware has admitted.
func UserFrom(ctx context.Context) (User, bool) { return door.UserFrom(ctx) }

// Options are what a program can add to a configuration; all are optional.
type Options struct {
	Log *slog.Logger     // nil = slog.Default()
	Now func() time.Time // nil = time.Now
	// MapUser makes the names of an account from a verified identity; nil =
	// as [users] map says.
	MapUser func(verify.Identity) (fineid.Profile, error)
}

// Server admits people. It is safe for concurrent use.
type Server struct {
	options  Options
	log      *slog.Logger
	db       *database.DB
	audit    *audit.Log // nil: nothing is kept
	counters counters

	reloading sync.Mutex            // one Reload at a time
	inForce   atomic.Pointer[setup] // never nil in a Server that New has returned

	main, admin net.Listener // between Listen and the end of ListenAndServe
}

// setup is a configuration and what was made of it. A request is answered by
// the one that is in force when it comes; nothing in a setup changes.
type setup struct {
	config Config
	*parts
	door *door.Door
	tls  *tls.Config
}

// New opens everything that the configuration names. An error that says what is
// wrong with the configuration is of type Problems. The caller closes the Server.
func New(ctx context.Context, c Config, o Options) (*Server, error) {
	c = c.withDefaults()
	set(&o.Log, slog.Default())
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{options: o, log: o.Log}
	opened, err := s.open(c)
	if err != nil {
		return nil, err
	}
	if s.db, err = database.Open(ctx, c.Users.Store); err != nil {
		opened.close()
		return nil, Problems{{Key: "users.store", Text: err.Error()}}
	}
	if err = s.openAudit(c.Audit); err != nil {
		opened.close()
		return nil, errors.Join(Problems{{Key: "audit.dir", Text: err.Error()}}, s.db.Close())
	}
	if err := s.furnish(c, opened); err != nil {
		opened.close()
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open opens what a configuration names besides the database and the audit log,
// and logs its warnings.
func (s *Server) open(c Config) (*parts, error) {
	p := &parts{now: s.options.Now}
	if old := s.inForce.Load(); old != nil {
		p.before = old.revocation
	}
	p.open(c)
	if p.legacy != nil && s.options.MapUser != nil {
		p.problem("forwarded.format", fmt.Errorf("%q gives names that nobody has verified, and this program maps verified certificates to users itself (Options.MapUser); have the proxy send the certificate", c.Forwarded.Format))
	}
	if err := p.wrong(); err != nil {
		p.close()
		return nil, err
	}
	for _, warning := range p.problems {
		s.log.Warn(warning.Text, "setting", warning.Key)
	}
	return p, nil
}

// furnish builds what stands on the database and puts it all into force.
func (s *Server) furnish(c Config, p *parts) error {
	sessions, err := session.New(s.db, c.Session.limits(), s.options.Now)
	if err != nil {
		return err
	}
	config := c.doors()
	config.Evidence, config.Verifier = p.evidence, p.verifier
	config.Users, config.Sessions = users.New(s.db, s.options.Now), sessions
	config.Refusals = limit.New[netip.Prefix](c.Limits.Refusals, refusalBurst*c.Limits.Refusals, s.options.Now)
	config.Logins = limit.New[string](c.Limits.Logins, loginBurst*c.Limits.Logins, s.options.Now)
	config.MapUser, config.Create, config.Legacy = s.options.MapUser, p.create, p.legacy
	if config.MapUser == nil {
		config.MapUser = func(id verify.Identity) (fineid.Profile, error) { return p.profile(id.Identity) }
	}
	config.Decided, config.Ready, config.Now, config.Log = s.decided, s.db.Ready, s.options.Now, s.log
	d, err := door.New(config)
	if err != nil {
		return err
	}
	s.inForce.Store(&setup{config: c, parts: p, door: d, tls: p.tlsConfig()})
	return nil
}

// Close closes the database and the audit log. No handler may run any more.
func (s *Server) Close() error {
	if current := s.inForce.Load(); current != nil {
		current.close()
	}
	var errs []error
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	return errors.Join(append(errs, s.db.Close())...)
}

func (s *Server) openAudit(a Audit) (err error) {
	if a.Dir == "" {
		return nil
	}
	s.audit, err = audit.Open(audit.Config{
		Dir: a.Dir, Instance: a.Instance, Segment: time.Duration(a.Segment), Keep: time.Duration(a.Keep), Now: s.options.Now,
		Ended: func(c audit.Checkpoint) {
			s.log.Info("a segment of the audit log has ended; keep this checkpoint elsewhere",
				"instance", c.Instance, "segment", c.Segment, "seq", c.Seq, "hash", c.Hash)
		},
	})
	return err
}

// decided is told of every decision of the door. An error means that it could not
// be put on record.
func (s *Server) decided(r door.Record) error {
	s.counters.add(string(r.Event), r.Code)
	if s.audit == nil || r.Event == door.EventLimit { // a flood would fill the disk
		return nil
	}
	if err := s.audit.Append(r); err != nil {
		s.counters.auditFailures.Add(1)
		s.log.Error("could not write to the audit log", "error", err)
		return err
	}
	return nil
}

// Middleware serves the login pages, /whoami, /healthz and /readyz, and admits
// active users who have logged in, and nobody else, to next. A program that
// brings its own http.Server sets its TLSConfig and ConnContext to those of the
// Server.
func (s *Server) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := s.inForce.Load()
		if r.URL.Path == probe.Path && now.probe != nil {
			probe.Handler(now.probe, now.evidence, now.verifier).ServeHTTP(w, r)
			return
		}
		now.door.Handler(next).ServeHTTP(w, r)
	})
}

// ConnContext is for http.Server.ConnContext. Without it no reverse proxy is
// trusted.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return s.inForce.Load().evidence.ConnContext(ctx, c)
}

// TLSConfig is for native TLS: every client is asked for a certificate of the
// configured issuing CAs, none is refused in the handshake (the person would see
// a browser error without a reason), and none is believed before the verifier
// has looked at it. It follows Reload. Each call returns a new Config.
func (s *Server) TLSConfig() *tls.Config {
	c := s.inForce.Load().tls.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.inForce.Load().tls, nil }
	return c
}

func (p *parts) tlsConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  p.advertised,
		NextProtos: []string{"h2", "http/1.1"},
		// A client that first came without a card would resume that session
		// after the card has been put in, and never be asked again.
		SessionTicketsDisabled: true,
	}
	if p.certificate != nil {
		c.Certificates = []tls.Certificate{*p.certificate}
	}
	return c
}
