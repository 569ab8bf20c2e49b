package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/peer"
)

// accepting lets in connections of the same user only. The check comes before
// anything is read, so that another user's bytes reach no parser.
type accepting struct {
	net.Listener
	proxy   *Proxy
	running *sync.WaitGroup // counts refusals

	away     chan struct{} // full while maxTurnedAway connections are being turned away
	logged   time.Time     // used by Accept alone, as is the next
	unlogged int           // refusals since then
}

// Bounds on what another user can make the agent hold and write.
const (
	maxTurnedAway = 32
	logPause      = 10 * time.Second
)

func newAccepting(l net.Listener, p *Proxy, running *sync.WaitGroup) *accepting {
	return &accepting{Listener: l, proxy: p, running: running, away: make(chan struct{}, maxTurnedAway)}
}

// Accept returns the next connection of the user as a *programConn.
func (l *accepting) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			conn.Close()
			continue
		}
		owner, err := l.proxy.cfg.Peer(unmap(tcp.LocalAddr()), unmap(tcp.RemoteAddr()))
		if err != nil && !errors.Is(err, peer.ErrRefused) {
			// The kernel could not say, which it can the next time.
			l.proxy.cfg.Log.Warn("could not find out who has connected", "error", err)
			owner, err = l.proxy.cfg.Peer(unmap(tcp.LocalAddr()), unmap(tcp.RemoteAddr()))
		}
		if err == nil {
			return &programConn{TCPConn: tcp, peer: owner}, nil
		}
		l.refuse(tcp, err)
	}
}

// refuse turns a connection away, with an answer if there are not too many.
func (l *accepting) refuse(conn *net.TCPConn, why error) {
	l.unlogged++
	if time.Since(l.logged) > logPause {
		l.proxy.cfg.Log.Warn("connections to the proxy refused", "number", l.unlogged, "error", why)
		l.logged, l.unlogged = time.Now(), 0
	}
	select {
	case l.away <- struct{}{}:
		l.running.Go(func() {
			turnAway(conn)
			<-l.away
		})
	default:
		conn.Close()
	}
}

const turnedAway = "HTTP/1.1 403 Forbidden\r\n" +
	errorHeader + ": not-your-proxy\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Connection: close\r\n\r\n" +
	"This proxy serves the programs of one user only.\n"

// turnAway says no and closes. Closing with unread input would reset the
// connection and could take the answer with it, so a little is read first.
func turnAway(conn *net.TCPConn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, turnedAway); err != nil {
		return
	}
	if conn.CloseWrite() == nil {
		io.CopyN(io.Discard, conn, 16<<10)
	}
}

// programConn is a connection of one of the user's programs.
type programConn struct {
	*net.TCPConn
	peer peer.Peer
}

type connKey struct{}

// withConn puts the connection in the context of its requests: the only way in
// which net/http lets a handler know it.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// unmap gives the address of one end, in IPv4 form where it is IPv4.
func unmap(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
