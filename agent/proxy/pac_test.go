package proxy

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/upstream"
)

// behind puts another proxy on the way out.
func behind(t *testing.T, setting string) func(*Config) {
	t.Helper()
	d, err := upstream.New(upstream.Config{Setting: setting})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Upstream = d }
}

// Behind another proxy nothing is DIRECT: what is not listed goes this way too.
func TestPACBehindAnotherProxy(t *testing.T) {
	for setting, elsewhere := range map[string]string{"": "DIRECT", "http://me:s3cret@proxy.test:3128": "PROXY "} {
		r := newRig(t, never(t), behind(t, setting))
		if elsewhere != "DIRECT" {
			elsewhere += r.addr
		}
		_, body := r.raw(lines("GET /proxy.pac HTTP/1.1", "Host: "+r.addr))
		if !strings.Contains(body, `return listed ? "PROXY `+r.addr+`" : "`+elsewhere+`";`) || strings.Contains(body, "s3cret") || strings.Contains(body, "; DIRECT") {
			t.Errorf("%q:\n%s", setting, body)
		}
	}
}

// What the other proxy says against a tunnel, or a request in absolute form, is
// told as its doing: never as the host's answer, and without its page.
func TestOtherProxyRefuses(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect && strings.HasPrefix(r.Host, "banned.test") {
			http.Error(w, "<h1>company page</h1>", http.StatusForbidden)
			return
		}
		w.Header().Set("Proxy-Authenticate", "Negotiate")
		http.Error(w, "<h1>company page</h1>", http.StatusProxyAuthRequired)
	}))
	defer other.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	asks := newRig(t, never(t), behind(t, strings.Replace(other.URL, "//", "//me:s3cret@", 1)))
	silent := newRig(t, never(t), behind(t, "http://"+gone.Addr().String()))
	for _, c := range []struct {
		rig           *rig
		request, code string
	}{
		{asks, "CONNECT other.test:443 HTTP/1.1\r\n\r\n", "proxy-login"},
		{asks, "CONNECT banned.test:443 HTTP/1.1\r\n\r\n", "proxy-refused"},
		{asks, lines("GET http://other.test/ HTTP/1.1", "Host: other.test"), "proxy-login"},
		{silent, "CONNECT other.test:443 HTTP/1.1\r\n\r\n", "proxy-unreachable"},
		{silent, lines("GET http://other.test/ HTTP/1.1", "Host: other.test"), "proxy-unreachable"},
	} {
		resp, body := c.rig.raw(c.request)
		if resp.StatusCode != http.StatusBadGateway || resp.Header.Get(errorHeader) != c.code || resp.Header.Get("Proxy-Authenticate") != "" ||
			strings.Contains(body, "company page") || strings.Contains(body, "s3cret") || !strings.Contains(body, "upstream") {
			t.Errorf("%q: %s %s %q", c.request, resp.Status, resp.Header.Get(errorHeader), body)
		}
	}
}
