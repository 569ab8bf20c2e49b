package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/kortti-id/kortti/agent/upstream"
)

// errLoop says that a program has asked the proxy to connect to itself.
var errLoop = errors.New("the proxy does not connect to itself")

// serveFront answers what comes to the listener: CONNECT, requests in absolute
// form, and in origin form the PAC file only.
func (p *Proxy) serveFront(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		p.serveConnect(w, r)
	case r.URL.IsAbs():
		p.servePlain(w, r)
	default:
		p.servePAC(w, r)
	}
}

func (p *Proxy) serveConnect(w http.ResponseWriter, r *http.Request) {
	to, err := parseConnect(r.RequestURI)
	if err != nil {
		answer{http.StatusBadRequest, "bad-target", "CONNECT needs a host name or an IP address, and a port", ""}.write(w, r)
		return
	}
	if p.isOwnName(to) {
		loopAnswer.write(w, r)
		return
	}
	if _, ok := p.cfg.Hosts.Lookup(to.host, to.port); ok {
		p.intercept(w, r, to)
		return
	}
	p.tunnel(w, r, to)
}

var loopAnswer = answer{http.StatusForbidden, "loop", errLoop.Error(), "Ask for the host itself; the proxy's own address is for the proxy setting."}

// isOwnName tells our listeners by their names, before anything is dialled.
func (p *Proxy) isOwnName(t target) bool {
	return t.isLocalName() && slices.ContainsFunc(p.listeners(), func(own netip.AddrPort) bool { return t.port == portOf(own) })
}

func (p *Proxy) listeners() []netip.AddrPort { return append([]netip.AddrPort{p.own}, p.cfg.Others...) }

func portOf(a netip.AddrPort) string {
	_, port, _ := net.SplitHostPort(a.String()) // an AddrPort always splits
	return port
}

// dial dials for hosts that are not listed. Any name can lead to the proxy
// itself, so what was reached is looked at too.
func (p *Proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := p.cfg.DialTunnel(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if slices.Contains(p.listeners(), unmap(conn.RemoteAddr())) {
		conn.Close()
		return nil, errLoop
	}
	return conn, nil
}

// unreachable is the answer to a failed dial.
func unreachable(to target, err error) answer {
	var up *upstream.Error
	switch {
	case errors.Is(err, errLoop):
		return loopAnswer
	case errors.As(err, &up):
		return answer{http.StatusBadGateway, up.Code(), up.Error(), up.Hint()}
	}
	a := answer{http.StatusBadGateway, "unreachable", "cannot connect to " + to.String(), "Check the name and the network."}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		a.Message = "cannot find the address of " + to.host
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		a.Status, a.Message = http.StatusGatewayTimeout, "no answer from "+to.String()
	}
	return a
}
