// Package upstream is the way out to the network: direct, or through another
// proxy, such as a company's, by CONNECT with or without basic authentication.
// It knows nothing of listed hosts and cards, keeps no connections, and never
// shows the password of a proxy in a log or an error.
//
//	way, err := upstream.New(upstream.Config{Setting: "http://proxy.example.fi:3128"})
//	conn, err := way.DialContext(ctx, "tcp", "www.example.fi:443")
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Env as the setting takes the proxy from the environment: HTTPS_PROXY for
// tunnels, HTTP_PROXY for plain requests, and NO_PROXY, in either case.
const Env = "env"

// lookupTime limits what is asked of the resolver about a proxy's name when it is
// set: a machine that is not in its network yet must start all the same.
const lookupTime = 2 * time.Second

// connectTime limits the proxy's answer to CONNECT, in which it connects to the
// host itself.
const connectTime = 30 * time.Second

// What can be wrong with the other proxy, for errors.Is. The errors are *Error.
var (
	ErrLoop        = errors.New("it is Kortti's own address")
	ErrUnreachable = errors.New("it cannot be reached")
	ErrLogin       = errors.New("it wants a user name and a password")
	ErrScheme      = errors.New("it wants a login of a kind that Kortti does not know")
	ErrRefused     = errors.New("it refuses the connection")
	ErrProtocol    = errors.New("it does not answer as a proxy")
)

// Error is a failure of the other proxy, or of the way to it.
type Error struct {
	Proxy  string // host:port, without user and password
	Err    error  // one of this package's
	Detail string // for people; may be empty
}

// Error says which proxy failed and how.
func (e *Error) Error() string {
	text := fmt.Sprintf("the upstream proxy %s: %v", e.Proxy, e.Err)
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Code names the failure for programs.
func (e *Error) Code() string {
	switch e.Err {
	case ErrLoop:
		return "loop"
	case ErrUnreachable:
		return "proxy-unreachable"
	case ErrLogin, ErrScheme:
		return "proxy-login"
	case ErrRefused:
		return "proxy-refused"
	}
	return "proxy-protocol"
}

// Hint says what to do about the failure.
func (e *Error) Hint() string {
	switch e.Err {
	case ErrLoop:
		return "Set [proxy] upstream in kortti.toml to the address of another proxy, or leave it empty."
	case ErrLogin:
		return "Write user and password into [proxy] upstream in kortti.toml: http://user:password@host:port"
	case ErrScheme:
		return "Only Basic is known. Run a proxy of your own that can log in there, such as cntlm, and set [proxy] upstream in kortti.toml to it."
	case ErrRefused:
		return "Ask those who run that proxy whether it lets this host through."
	}
	return "Check [proxy] upstream in kortti.toml, and the network."
}

// Config says how to get out.
type Config struct {
	// Setting is "" for direct connections, Env, or the URL of a proxy.
	Setting string
	// Own are the addresses of our own listeners, which are no way out.
	Own []netip.AddrPort
	// Direct tells addresses (host:port) that are reached without the proxy; nil
	// tells none. Loopback addresses always are.
	Direct func(address string) bool
	// Dial connects to hosts and proxies; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup resolves a proxy's name; nil means the system's resolver.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// TLS is for proxies that are reached by https; nil means the defaults.
	TLS *tls.Config
}

// Dialer connects to hosts. It is safe for concurrent use.
type Dialer struct {
	config Config
	way    atomic.Pointer[way]
}

// way is one setting at work.
type way struct {
	proxied bool
	choose  func(*url.URL) (*url.URL, error)
}

// New checks the setting. It refuses a proxy that is one of our own listeners.
func New(c Config) (*Dialer, error) {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupNetIP
	}
	d := &Dialer{config: c}
	return d, d.Set(c.Setting)
}

// Set changes the setting for all connections made from now on. If it returns an
// error, nothing has changed.
func (d *Dialer) Set(setting string) error {
	choose, err := chooser(setting)
	if err != nil {
		return err
	}
	// Whatever the environment bypasses, a name that says nothing special shows
	// the proxies themselves.
	w := &way{choose: choose}
	for _, scheme := range []string{"https", "http"} {
		proxy, err := choose(&url.URL{Scheme: scheme, Host: "host.invalid"})
		if err != nil {
			return err
		}
		if proxy == nil {
			continue
		}
		w.proxied = true
		if err := checkURL(proxy); err != nil {
			return err
		}
		if d.isOwn(hostPort(proxy)) {
			return &Error{Proxy: hostPort(proxy), Err: ErrLoop}
		}
	}
	d.way.Store(w)
	return nil
}

// Shown is a setting without user and password.
func Shown(setting string) string {
	u, err := url.Parse(setting)
	switch {
	case err != nil:
		return "" // what it holds cannot be told apart
	case u.User == nil:
		return setting
	}
	u.User = nil
	return u.String()
}

// Check tells what is wrong with a setting by itself, whatever the environment
// says here.
func Check(setting string) error {
	if setting == Env {
		return nil
	}
	_, err := chooser(setting)
	return err
}

func chooser(setting string) (func(*url.URL) (*url.URL, error), error) {
	switch setting {
	case "":
		return func(*url.URL) (*url.URL, error) { return nil, nil }, nil
	case Env:
		return fromEnvironment()
	}
	u, err := url.Parse(setting)
	if err != nil {
		return nil, errSetting // the error would show the password
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }, nil
}

// fromEnvironment refuses what httpproxy would pass over in silence: then every
// connection would go out directly, which nobody has asked for.
func fromEnvironment() (func(*url.URL) (*url.URL, error), error) {
	c := httpproxy.FromEnvironment()
	for name, value := range map[string]string{"HTTPS_PROXY": c.HTTPSProxy, "HTTP_PROXY": c.HTTPProxy} {
		if value == "" {
			continue
		}
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		if u, err := url.Parse(value); err != nil || checkURL(u) != nil {
			return nil, fmt.Errorf("%s in the environment is not one that Kortti can use: %w", name, errSetting)
		}
	}
	return c.ProxyFunc(), nil
}

var errSetting = errors.New(`an upstream proxy is written as "http://host:port", "https://host:port", either with "user:password@" before the host, or "env"`)

func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.Fragment != "":
		return errSetting
	}
	return nil
}

// hostPort is where a proxy is.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// isOwn tells our own listeners, by address or by a name that leads there now.
// What a name leads to later, dial sees.
func (d *Dialer) isOwn(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !slices.ContainsFunc(d.config.Own, func(own netip.AddrPort) bool { return port == fmt.Sprint(own.Port()) }) {
		return false
	}
	if isLoopback(host) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	found, err := d.config.Lookup(ctx, "ip", host)
	return err == nil && slices.ContainsFunc(found, func(a netip.Addr) bool { return a.Unmap().IsLoopback() })
}

func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback() || ip.IsUnspecified()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Proxied reports whether there is another proxy for some connections at least.
func (d *Dialer) Proxied() bool { return d.way.Load().proxied }

// DialContext connects to a host, through the other proxy where the setting says
// so. It dials TCP; the end of ctx ends it.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	proxy, err := d.proxyFor("https", address)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return d.dial(ctx, network, address)
	}
	conn, err := d.dial(ctx, network, hostPort(proxy))
	if err != nil {
		return nil, blame(ctx, proxy, err)
	}
	return d.connect(ctx, conn, proxy, address)
}

func (d *Dialer) proxyFor(scheme, address string) (*url.URL, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if isLoopback(host) || d.config.Direct != nil && d.config.Direct(address) {
		return nil, nil
	}
	proxy, err := d.way.Load().choose(&url.URL{Scheme: scheme, Host: address})
	if err != nil || proxy == nil {
		return nil, err
	}
	return proxy, checkURL(proxy)
}

// dial connects to a host or to a proxy. Any name can lead to one of our own
// listeners, so what was reached is looked at too.
func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.config.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		if slices.Contains(d.config.Own, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())) {
			conn.Close()
			return nil, &Error{Proxy: address, Err: ErrLoop}
		}
	}
	return conn, nil
}

// blame says that a failed dial was the proxy's, unless whoever asked has gone.
// A proxy that cannot be reached from here often does not answer at all, so time
// that ran out is its fault too.
func blame(ctx context.Context, proxy *url.URL, err error) error {
	var known *Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled), errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Proxy: hostPort(proxy), Err: ErrUnreachable, Detail: "no answer in time"}
	}
	return &Error{Proxy: hostPort(proxy), Err: ErrUnreachable, Detail: reason(err)}
}

// reason is the part of a dial's error that is not known already.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err.Error()
}
