package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// company is another proxy; answer is what it says to CONNECT, "" for a tunnel.
type company struct {
	*httptest.Server
	answer string
	early  string // comes together with the 200

	mu     sync.Mutex
	asked  []string // method, target and Proxy-Authorization
	leadTo string   // where every tunnel leads
}

func newCompany(t *testing.T, encrypted bool) *company {
	t.Helper()
	c := &company{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	c.Config.ErrorLog = nil
	if encrypted {
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *company) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+r.Header.Get("Proxy-Authorization")))
	c.mu.Unlock()
	if r.Method != http.MethodConnect {
		if c.answer != "" {
			w.Header().Set("Proxy-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusProxyAuthRequired)
		}
		fmt.Fprintf(w, "plain %s", r.RequestURI)
		return
	}
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if c.answer != "" {
		io.WriteString(conn, c.answer)
		io.Copy(io.Discard, in)
		return
	}
	io.WriteString(conn, "HTTP/1.1 100 Wait\r\n\r\nHTTP/1.0 200 OK\r\nX: y\r\n\r\n"+c.early)
	to, err := net.Dial("tcp", c.leadTo)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, in)
		to.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, to)
}

func (c *company) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.asked...)
}

// echo is a host that says back what it hears, until the end of it.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func dialer(t *testing.T, c Config) *Dialer {
	t.Helper()
	d, err := New(c)
	check(t, err)
	return d
}

// Through a proxy by http and by https, with a password, with bytes that come
// together with the proxy's answer, and with a half-closed end.
func TestTunnel(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		c := newCompany(t, encrypted)
		c.leadTo, c.early = echo(t), "early "
		u, _ := url.Parse(c.URL)
		u.User = url.UserPassword("meri", "s3cret:x")
		trust := x509.NewCertPool()
		if encrypted {
			trust.AddCert(c.Certificate())
		}
		d := dialer(t, Config{Setting: u.String(), TLS: &tls.Config{RootCAs: trust}})
		conn, err := d.DialContext(t.Context(), "tcp", "[2001:db8::1]:443")
		check(t, err)
		defer conn.Close()
		io.WriteString(conn, "hello")
		check(t, conn.(interface{ CloseWrite() error }).CloseWrite())
		if got, err := io.ReadAll(conn); string(got) != "early hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if got, want := c.seen(), "CONNECT [2001:db8::1]:443 Basic bWVyaTpzM2NyZXQ6eA=="; len(got) != 1 || got[0] != want {
			t.Errorf("the proxy was asked %q, want %q", got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	long := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswer) + "\r\n\r\n"
	for answer, want := range map[string]struct {
		err    error
		detail string
	}{
		"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n":                     {ErrLogin, "those in the setting are refused"},
		"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n": {ErrScheme, "Negotiate or NTLM"},
		"HTTP/1.1 403 Go <b>away</b>\r\nContent-Type: text/html\r\n\r\n<h1>no such luck</h1>":  {ErrRefused, "status 403"},
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n":        {ErrRefused, "status 101"},
		"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\n\r\n":                       {ErrRefused, "status 302"},
		"SSH-2.0-OpenSSH_9.2p1\r\n": {ErrProtocol, "its answer is no HTTP"},
		long:                        {ErrProtocol, "it closed the connection, or its answer is too long"},
	} {
		c := newCompany(t, false)
		c.answer = answer
		d := dialer(t, Config{Setting: strings.Replace(c.URL, "//", "//meri:s3cret@", 1)})
		conn, err := d.DialContext(t.Context(), "tcp", "card.test:443")
		var e *Error
		if conn != nil || !errors.As(err, &e) || !errors.Is(err, want.err) || e.Detail != want.detail || e.Proxy != c.Listener.Addr().String() {
			t.Errorf("%.40q: %v", answer, err)
		}
		if text := fmt.Sprintf("%v %+v %#v", err, err, e); strings.Contains(text, "s3cret") || strings.Contains(text, "luck") || strings.Contains(text, "away") {
			t.Errorf("the error shows too much: %s", text)
		}
		if e != nil && (e.Code() == "" || e.Hint() == "") {
			t.Errorf("%v: no code or hint", err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	address := l.Addr().String()
	l.Close()
	d := dialer(t, Config{Setting: "http://" + address})
	if _, err := d.DialContext(t.Context(), "tcp", "card.test:443"); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:1"); errors.Is(err, ErrUnreachable) || err == nil {
		t.Errorf("a failure of this machine's own address: %v", err)
	}

	// One that takes the connection and says nothing ends with the program.
	l, err = net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	d = dialer(t, Config{Setting: "http://" + l.Addr().String()})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := d.DialContext(ctx, "tcp", "card.test:443"); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

// A proxy that is one of our own listeners is found out by its address, and by
// what a name turns out to lead to.
func TestLoop(t *testing.T) {
	c := newCompany(t, false)
	at := netip.MustParseAddrPort(c.Listener.Addr().String())
	own := []netip.AddrPort{at}
	for _, host := range []string{"127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "127.0.0.2"} {
		_, err := New(Config{Setting: fmt.Sprintf("http://%s:%d", host, at.Port()), Own: own})
		if !errors.Is(err, ErrLoop) {
			t.Errorf("%s: %v", host, err)
		}
	}
	leadsHere := func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
	}
	if _, err := New(Config{Setting: fmt.Sprintf("http://proxy.test:%d", at.Port()), Own: own, Lookup: leadsHere}); !errors.Is(err, ErrLoop) {
		t.Errorf("a name that leads here: %v", err)
	}
	dialer(t, Config{Setting: "http://proxy.test:3128", Own: own, Lookup: leadsHere}) // another program on this machine
	d := dialer(t, Config{Setting: "http://proxy.test:3128", Own: own, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, c.Listener.Addr().String())
	}})
	if _, err := d.DialContext(t.Context(), "tcp", "card.test:443"); !errors.Is(err, ErrLoop) || len(c.seen()) != 0 {
		t.Errorf("%v; it was asked %q", err, c.seen())
	}
}

// What the environment says, and what is reached without the proxy all the same.
func TestWays(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
	t.Setenv("https_proxy", "http://secure.test:3128")
	t.Setenv("HTTP_PROXY", "http://plain.test:3128")
	t.Setenv("NO_PROXY", ".inside.test,10.0.0.0/8")
	for _, test := range []struct{ setting, address, tunnel, plain string }{
		{"", "card.test:443", "card.test:443", "card.test:443"},
		{Env, "card.test:443", "secure.test:3128", "plain.test:3128"},
		{Env, "a.inside.test:443", "a.inside.test:443", "a.inside.test:443"},
		{Env, "10.1.2.3:443", "10.1.2.3:443", "10.1.2.3:443"},
		{"http://fixed.test", "a.inside.test:443", "fixed.test:80", "fixed.test:80"},
		{"https://fixed.test", "card.test:443", "fixed.test:443", "fixed.test:443"},
		{"http://fixed.test", "127.0.0.1:443", "127.0.0.1:443", "127.0.0.1:443"},
		{"http://fixed.test", "a.localhost:443", "a.localhost:443", "a.localhost:443"},
		{"http://fixed.test", "direct.test:8443", "direct.test:8443", "direct.test:8443"},
	} {
		var dialled string
		d := dialer(t, Config{
			Setting: test.setting,
			Direct:  func(address string) bool { return address == "direct.test:8443" },
			Dial: func(_ context.Context, _, address string) (net.Conn, error) {
				dialled = address
				return nil, errors.New("no")
			},
		})
		if d.Proxied() != (test.setting != "") {
			t.Errorf("%q: proxied: %v", test.setting, d.Proxied())
		}
		d.DialContext(t.Context(), "tcp", test.address)
		if dialled != test.tunnel {
			t.Errorf("%q: a tunnel to %s dials %s, want %s", test.setting, test.address, dialled, test.tunnel)
		}
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+test.address+"/", nil)
		d.Plain(&http.Transport{}).RoundTrip(r)
		if dialled != test.plain {
			t.Errorf("%q: a plain request to %s dials %s, want %s", test.setting, test.address, dialled, test.plain)
		}
	}
}

func TestPlain(t *testing.T) {
	c := newCompany(t, false)
	d := dialer(t, Config{Setting: strings.Replace(c.URL, "//", "//meri:s3cret@", 1)})
	sender := d.Plain(&http.Transport{})
	defer sender.CloseIdleConnections()
	get := func() (string, error) {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://site.test/x", nil)
		resp, err := sender.RoundTrip(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if got, err := get(); got != "plain http://site.test/x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, want := c.seen()[0], "GET http://site.test/x Basic bWVyaTpzM2NyZXQ="; got != want {
		t.Errorf("the proxy was asked %q, want %q", got, want)
	}
	c.answer = "no"
	if _, err := get(); !errors.Is(err, ErrLogin) {
		t.Error(err)
	}
	c.Close()
	sender.CloseIdleConnections()
	if _, err := get(); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

// Of a proxy that does not answer the person hears, and not of the host; a
// program that has gone is no fault of either.
func TestTimeIsTheProxysFault(t *testing.T) {
	d := dialer(t, Config{Setting: "http://proxy.test:3128", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.DialContext(ctx, "tcp", "card.test:443"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "proxy.test:3128") {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := d.DialContext(ctx, "tcp", "card.test:443"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

// A variable that cannot be used is an error, not a direct connection, and its
// password stays where it is.
func TestBadEnvironment(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
	dialer(t, Config{Setting: Env})
	for _, bad := range []string{"socks5://me:s3cret@proxy.test:1080", "http://me:s3cret@%zz", "proxy.test:3128/x"} {
		t.Setenv("https_proxy", bad)
		if _, err := New(Config{Setting: Env}); err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	check(t, Check(Env)) // a command that asks for nothing of the network must work
	t.Setenv("https_proxy", "proxy.test:3128")
	dialer(t, Config{Setting: Env})
}

func TestSettings(t *testing.T) {
	for setting, want := range map[string]string{"": "", Env: Env, "http://me:s3cret@proxy.test:1": "http://proxy.test:1", "http://me:s3cret@%zz": ""} {
		if got := Shown(setting); got != want {
			t.Errorf("%q is shown as %q", setting, got)
		}
	}
	for _, bad := range []string{"proxy.test:3128", "socks5://proxy.test", "http://", "http://proxy.test/path", "http://proxy.test?q", "http://me:s3cret@%zz", "none"} {
		if err := Check(bad); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	d := dialer(t, Config{Setting: "http://one.test:1"})
	if err := d.Set("ftp://two.test"); err == nil || !d.Proxied() {
		t.Error("a bad setting changed something", err)
	}
	check(t, d.Set(""))
	if d.Proxied() {
		t.Error("Set does not count")
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\nearly"))
	f.Add([]byte("HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 x\r\n\r\nHTTP/1.0 204 x\r\nContent-Length: 5\r\n\r\nhello"))
	proxy := &url.URL{Scheme: "http", Host: "proxy.test", User: url.User("s3cret")}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := readAnswer(bufio.NewReader(bytes.NewReader(raw)), proxy)
		var e *Error
		if err != nil && (!errors.As(err, &e) || len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\r\n\x00\x1b")) {
			t.Errorf("%q", err)
		}
	})
}
