package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// listedConn is a program's connection after CONNECT to a listed host.
type listedConn struct {
	*programConn
	to    target
	early *bytes.Reader // what came together with CONNECT
}

// Read gives the early bytes first.
func (c *listedConn) Read(b []byte) (int, error) {
	if c.early.Len() > 0 {
		return c.early.Read(b)
	}
	return c.programConn.Read(b)
}

// intercept answers CONNECT and hands the connection to the inner server.
func (p *Proxy) intercept(w http.ResponseWriter, r *http.Request, to target) {
	program, early, err := takeOver(w)
	if err != nil {
		return
	}
	if _, err := io.WriteString(program, established); err != nil {
		program.Close()
		return
	}
	// The bytes belong to net/http's buffer, which ends with this handler.
	conn := &listedConn{program, to, bytes.NewReader(bytes.Clone(early))}
	if !p.listed.give(conn) {
		conn.Close()
	}
}

// tlsConfig is for the programs of this machine. Sessions are not resumed: a
// handshake with P-256 costs nothing here, and a ticket would outlive the
// removal of a host and skip the check of the name.
func (p *Proxy) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			conn, ok := hello.Conn.(*listedConn)
			if !ok {
				return nil, errors.New("a connection that was not handed over")
			}
			if !sameServerName(hello.ServerName, conn.to) {
				p.cfg.Log.Info("TLS for another name than CONNECT refused", "host", conn.to.host)
				return nil, nil // the alert unrecognized_name
			}
			listed, ok := p.cfg.Hosts.Lookup(conn.to.host, conn.to.port)
			if !ok {
				return nil, nil
			}
			root, err := p.cfg.Roots.Get(listed.Name)
			if err != nil {
				p.cfg.Log.Error("no local certificate for a listed host", "host", listed.Name, "error", err)
				return nil, err
			}
			return &root.Leaf, nil
		},
	}
}

// sameServerName compares the SNI with the CONNECT target. An IP address is
// never sent as SNI (RFC 6066, section 3).
func sameServerName(sni string, to target) bool {
	if to.isIP() {
		return sni == ""
	}
	return strings.TrimSuffix(strings.ToLower(sni), ".") == to.host
}

// serveListed answers the requests of a listed host's connection. What CONNECT,
// SNI, :authority and Host say must be one and the same: the program was given
// leave for that host, and a browser may otherwise share one connection between
// hosts (RFC 9110, section 15.5.20).
func (p *Proxy) serveListed(w http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(connKey{}).(*listedConn)
	if !isFor(r, conn.to) {
		answer{http.StatusMisdirectedRequest, "misdirected", "this connection is for " + conn.to.String() + " alone", "Open a connection of its own for each host."}.write(w, r)
		return
	}
	p.serveHost(w, r, conn.to)
}

// serveHost sends a request to a listed host if the program may use it.
func (p *Proxy) serveHost(w http.ResponseWriter, r *http.Request, to target, change ...func(*httputil.ReverseProxy)) {
	if _, ok := p.cfg.Hosts.Lookup(to.host, to.port); !ok {
		w.Header().Set("Connection", "close")
		answer{http.StatusMisdirectedRequest, "not-listed", to.host + " is not listed any more", "Open a new connection."}.write(w, r)
		return
	}
	ctx, err := p.cfg.Admit(r.Context(), asked(r, to))
	if err != nil {
		p.explain(w, r, err)
		return
	}
	p.forwardListed(w, r, ctx, to, change...)
}

// connOf is the connection that a request has come on.
func connOf(r *http.Request) (*programConn, bool) {
	switch conn := r.Context().Value(connKey{}).(type) {
	case *listedConn:
		return conn.programConn, true
	case *programConn:
		return conn, true
	}
	return nil, false // no server of ours has others
}

// isFor checks all the places in which a request names its host.
func isFor(r *http.Request, to target) bool {
	if r.Method == http.MethodConnect || !sameServerName(r.TLS.ServerName, to) {
		return false
	}
	names := append([]string{r.Host}, r.Header["Host"]...) // HTTP/2 may carry both
	if r.URL.IsAbs() {
		if r.URL.Scheme != "https" || r.URL.User != nil {
			return false
		}
		names = append(names, r.URL.Host)
	}
	for _, name := range names {
		if t, err := parseAuthority(name, "443"); err != nil || t != to {
			return false
		}
	}
	return true
}

// handover is a listener whose connections come from the CONNECT handler.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands a connection to whoever accepts, or tells that nobody will.
func (h *handover) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}

// Accept waits for the next connection.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and give.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr is no address: the connections come from inside.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "proxy", Net: "handover"} }
