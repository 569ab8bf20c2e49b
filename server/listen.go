package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/limit"
)

const (
	// maxHeader bounds the headers of a request, in bytes; a certificate in
	// one has about 3,000.
	maxHeader = 32 << 10
	// headerTimeout bounds how long a client may take to send them.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long a connection is kept without requests.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests under way may take at the end.
	shutdownTimeout = 10 * time.Second
)

// Listen binds the configured addresses, so that an address in use is known
// before anything is served. ListenAndServe does it where it was not done.
func (s *Server) Listen() error {
	if s.main != nil {
		return nil
	}
	l := s.inForce.Load().config.Listen
	var err error
	switch {
	case l.HTTPS != "":
		s.main, err = listenTCP("listen.https", l.HTTPS)
	case strings.HasPrefix(l.HTTP, "unix:"):
		s.main, err = listenUnix(strings.TrimPrefix(l.HTTP, "unix:"), l.Group)
	case l.HTTP != "":
		s.main, err = listenTCP("listen.http", l.HTTP)
	default:
		err = Problems{{Key: "listen", Text: "neither https nor http is set"}}
	}
	if err == nil && l.Admin != "" {
		if s.admin, err = listenTCP("listen.admin", l.Admin); err != nil {
			err = errors.Join(err, s.main.Close())
		}
	}
	if err != nil {
		s.main, s.admin = nil, nil
		return err
	}
	return nil
}

// Addr is the address that Listen has bound: the port is known where the
// configuration says 0.
func (s *Server) Addr() net.Addr { return s.main.Addr() }

// AdminAddr is the address of /metrics, nil if there is none.
func (s *Server) AdminAddr() net.Addr {
	if s.admin == nil {
		return nil
	}
	return s.admin.Addr()
}

func listenTCP(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, Problems{{Key: key, Text: fmt.Sprintf("another program listens on %s already; stop it or take another port", address)}}
	case errors.Is(err, syscall.EACCES):
		return nil, Problems{{Key: key, Text: fmt.Sprintf("this user may not listen on %s; take a port from 1024 up, or give the program CAP_NET_BIND_SERVICE", address)}}
	case err != nil:
		return nil, Problems{{Key: key, Text: err.Error()}}
	}
	return l, nil
}

// listenUnix makes a socket that the owner and the group may connect to. Who
// has connected is asked of the kernel all the same.
func listenUnix(path, group string) (net.Listener, error) {
	wrong := func(err error) error {
		return Problems{{Key: "listen.http", Text: fmt.Sprintf("socket %s: %v", path, err)}}
	}
	if err := checkSocket(path, group); err != nil {
		return nil, Problems{{Key: "listen.http", Text: err.Error()}}
	}
	if _, err := os.Lstat(path); err == nil {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, wrong(errors.New("another program listens there already; stop it or take another path"))
		}
		if err := os.Remove(path); err != nil { // left by a process that was killed
			return nil, wrong(err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, wrong(err)
	}
	// Until here only the owner could connect: the umask takes away the rest.
	if err := share(path, group); err != nil {
		return nil, errors.Join(wrong(err), l.Close())
	}
	return l, nil
}

// checkSocket says what would keep listenUnix from making a socket, as far as
// that can be known without making one.
func checkSocket(path, group string) error {
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("socket %s: %s is not a directory; make it, owned by the user that runs the server", path, filepath.Dir(path))
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: something else is there; remove it or take another path", path)
	}
	if _, err := user.LookupGroup(group); group != "" && err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	return nil
}

func share(path, group string) error {
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, 0o660)
}

// Serve serves nothing but the server's own pages until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	return s.ListenAndServe(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		http.Redirect(w, r, door.AccountPath, http.StatusSeeOther)
	}))
}

// reportPanics writes to the log what http.Server would say in ErrorLog only,
// where it drowns among clients that break off.
func (s *Server) reportPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if v != http.ErrAbortHandler {
					s.log.Error("a handler panicked", "panic", v, "stack", string(debug.Stack()))
				}
				panic(http.ErrAbortHandler) // ends the connection without saying it again
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// ListenAndServe serves next behind Middleware until ctx ends, then lets
// requests under way finish for ten seconds. It returns nil after that.
func (s *Server) ListenAndServe(ctx context.Context, next http.Handler) error {
	if err := s.Listen(); err != nil {
		return err
	}
	main := &http.Server{
		Handler: s.reportPanics(s.Middleware(next)), ConnContext: s.ConnContext, TLSConfig: s.TLSConfig(),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // mostly clients that break off
	}
	serve := main.Serve
	if s.inForce.Load().config.Listen.HTTPS != "" {
		handshakes := s.inForce.Load().config.Limits.Handshakes
		serve = func(l net.Listener) error {
			limited := &limitedListener{l, limit.New[netip.Prefix](handshakes, handshakeBurst*handshakes, s.options.Now), &s.counters.handshakesRefused}
			return main.ServeTLS(limited, "", "")
		}
	}
	servers := []*http.Server{main}
	failed := make(chan error, 2)
	var running sync.WaitGroup
	s.log.Info("serving", "address", s.main.Addr().String())
	running.Go(func() { failed <- serve(s.main) })
	if s.admin != nil {
		admin := &http.Server{Handler: s.adminHandler(), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader}
		servers = append(servers, admin)
		s.log.Info("serving metrics", "address", s.admin.Addr().String())
		running.Go(func() { failed <- admin.Serve(s.admin) })
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	// Not ctx: it has ended.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	for _, server := range servers {
		if server.Shutdown(end) != nil {
			server.Close()
		}
	}
	running.Wait()
	s.main, s.admin = nil, nil
	return err
}

// limitedListener closes connections from networks that open too many, before
// anything is spent on their handshakes.
type limitedListener struct {
	net.Listener
	limit   *limit.Limiter[netip.Prefix]
	refused *atomic.Uint64
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err == nil && l.limit.Take(limit.Network(from.Addr())) {
			return c, nil
		}
		l.refused.Add(1)
		c.Close()
	}
}
