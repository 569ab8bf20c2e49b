// Package proxy is the local HTTPS proxy: one listener on loopback for the
// programs of one user. Hosts that the person has listed are intercepted: the
// proxy speaks TLS to the program with the host's local leaf and hands each
// request to a RoundTripper that logs in with a card. Everything else is
// tunnelled or forwarded untouched.
//
// The package decides who may speak (the same user only), whether a request is
// for the host that it claims to be for, and what a web page may see. It never
// decides on consent, never asks a person, never handles a PIN, and knows
// nothing of cards: those come in as functions.
//
//	p, err := proxy.New(proxy.Config{Hosts: hosts, Transport: transport, Roots: store,
//		Peer: peer.NewFinder().Lookup, Admit: consent.Admit, Explain: explain})
//	listener, err := net.Listen("tcp", "127.0.0.1:8079")
//	err = p.Serve(ctx, listener)
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/agent/roots"
	"github.com/kortti-id/kortti/agent/upstream"
)

// Limits for the programs that speak to the proxy. There is none for the
// length of a body or of a response: those stream.
const (
	// headerTimeout also limits the TLS handshake with the program.
	headerTimeout  = 20 * time.Second
	maxHeaderBytes = 256 << 10
	keepAlive      = 3 * time.Minute
	dialTimeout    = 30 * time.Second
)

// Hosts are the listed hosts, as *config.Hosts keeps them. It must be safe for
// concurrent use and may change at any time.
type Hosts interface {
	// Lookup finds the entry for a host and a port: a lower-case name without a
	// final dot, or an IP address without brackets.
	Lookup(host, port string) (config.Host, bool)
	// List gives all entries.
	List() []config.Host
}

// Config is what a Proxy needs. Only the fields said to be optional may be left
// out.
type Config struct {
	// Listen is the configured address, host:port on a loopback address.
	Listen string
	// Others are our further listeners; tunnels lead to none of them.
	Others []netip.AddrPort
	Hosts  Hosts
	// Transport sends the requests for listed hosts. Their URL is https with
	// the host (and the port, unless 443); Upgrade requests must be answered
	// with a Body that can be written to, as http.Transport does. It must not
	// ask for compression by itself.
	Transport http.RoundTripper
	Roots     *roots.Store
	// Peer finds the owner of a connection and refuses other users'.
	Peer func(local, remote netip.AddrPort) (peer.Peer, error)
	// Admit is asked before each request to a listed host. The request is sent
	// with the context that it returns, which must be made from ctx. An error is
	// answered by Explain.
	Admit func(ctx context.Context, r Asked) (context.Context, error)
	// Explain turns an error of Admit or Transport into an answer to the
	// program; status 503 is answered with Retry-After. It must give nothing
	// away that the program may not know. A status of 0 stands for 502.
	Explain func(error) (status int, code, message, hint string)
	// Upstream is the way to hosts that are not listed; optional.
	Upstream *upstream.Dialer
	// DialTunnel dials for hosts that are not listed where there is no Upstream;
	// optional.
	DialTunnel func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log is optional.
	Log *slog.Logger
}

// Proxy is a proxy that can be served once.
type Proxy struct {
	cfg    Config
	own    netip.AddrPort // the listener's; set by Serve before anything reads it
	plain  upstream.Sender
	listed *handover
	// running counts connections, handlers and refusals of Serve.
	running sync.WaitGroup
}

// New checks the configuration. It refuses an address that is not loopback:
// whoever reaches the proxy is taken for a program on this machine.
func New(cfg Config) (*Proxy, error) {
	if cfg.Hosts == nil || cfg.Transport == nil || cfg.Roots == nil || cfg.Peer == nil || cfg.Admit == nil || cfg.Explain == nil {
		return nil, errors.New("proxy: Hosts, Transport, Roots, Peer, Admit and Explain are all needed")
	}
	if err := requireLoopback(cfg.Listen); err != nil {
		return nil, err
	}
	if cfg.DialTunnel == nil {
		cfg.DialTunnel = (&net.Dialer{}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{cfg: cfg, listed: newHandover()}
	// A reply must come as it was sent.
	plain := &http.Transport{
		DialContext: p.dial, DisableCompression: true, IdleConnTimeout: keepAlive, MaxIdleConns: 64,
		ExpectContinueTimeout: time.Second,
	}
	p.plain = plain
	if cfg.Upstream != nil {
		p.cfg.DialTunnel, p.plain = cfg.Upstream.DialContext, cfg.Upstream.Plain(plain)
	}
	return p, nil
}

func requireLoopback(address string) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("cannot listen on %q: give an IP address and a port, for example 127.0.0.1:8079", address)
	}
	if !a.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("cannot listen on %s: only loopback addresses (127.0.0.1, ::1) are allowed, because the proxy logs in for whoever reaches it", address)
	}
	return nil
}

// Serve answers connections until ctx ends, and then returns nil, or until the
// listener fails. It closes the listener, and all that it has started has ended
// when it returns. It can be called once.
func (p *Proxy) Serve(ctx context.Context, listener net.Listener) error {
	if err := requireLoopback(listener.Addr().String()); err != nil {
		listener.Close()
		return err
	}
	p.own = unmap(listener.Addr())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	front := p.server(ctx, http.HandlerFunc(p.serveFront), &p.running)
	front.Protocols = new(http.Protocols)
	front.Protocols.SetHTTP1(true)
	inner := p.server(ctx, http.HandlerFunc(p.serveListed), &p.running)
	inner.TLSConfig = p.tlsConfig()
	inner.HTTP2 = &http.HTTP2Config{
		// The default windows of 1 MB hold back large uploads.
		MaxReceiveBufferPerConnection: 8 << 20,
		MaxReceiveBufferPerStream:     2 << 20,
	}

	failed := make(chan error, 2)
	var servers sync.WaitGroup
	servers.Go(func() { failed <- front.Serve(newAccepting(listener, p, &p.running)) })
	servers.Go(func() { failed <- inner.ServeTLS(p.listed, "", "") })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	// Ending the context ends tunnels, upgrades and requests under way.
	cancel()
	front.Close()
	inner.Close()
	servers.Wait()
	p.running.Wait()
	p.plain.CloseIdleConnections()
	return err
}

// server makes an http.Server whose connections and handlers are counted in
// running. A handler starts while its connection counts, so the counter never
// rises from zero while Serve waits.
func (p *Proxy) server(ctx context.Context, handler http.Handler, running *sync.WaitGroup) *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			defer cutOff(r)
			if r.ProtoMajor == 1 {
				// The answer may begin before the request's body has ended, be it
				// the host's or a refusal. HTTP/2 always can.
				if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
					p.cfg.Log.Debug("no full duplex", "error", err)
				}
				var answered func()
				w, r, answered = closeUnread(w, r)
				handler.ServeHTTP(w, r)
				answered()
				return
			}
			handler.ServeHTTP(w, r)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				running.Add(1)
			case http.StateClosed, http.StateHijacked:
				running.Done()
			}
		},
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext:                  withConn,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  keepAlive,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelInfo),
	}
}

// cutOff closes the connection of an HTTP/1.1 request whose handler panics, as
// with http.ErrAbortHandler: net/http reads up to 256 kB more of its body first,
// however slowly that comes.
func cutOff(r *http.Request) {
	why := recover()
	if why == nil {
		return
	}
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.ProtoMajor == 1 {
		conn.Close()
	}
	panic(why)
}
