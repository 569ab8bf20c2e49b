package agent

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// through does a request by the agent's proxy, which the client trusts for host.
func (r *rig) through(t *testing.T, host, path string) (*http.Response, string) {
	t.Helper()
	root, err := r.roots.Get(host)
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(root.Certificate)
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: r.Proxy()}), TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(within(t), "GET", path, nil)
	check(t, err)
	resp, err := transport.RoundTrip(req)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp, string(body)
}

// Requests to listed hosts, tunnels and plain requests all take the way out that
// is set, and what the other proxy says is told as its doing, without its password.
func TestWayOut(t *testing.T) {
	asked := make(chan string, 10)
	company := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Proxy-Authorization")
		w.Header().Set("Proxy-Authenticate", "Basic realm=x")
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer company.Close()
	o := options(t, t.TempDir(), "[[host]]\nname = \"card.test\"\nconsent = \"always\"\n"+
		"[[host]]\nname = \"inside.test\"\naddress = \"192.0.2.7:8443\"\n[[host]]\nname = \"*.inside.test\"\naddress = \"192.0.2.8\"\n")
	o.Config.Proxy.Upstream = strings.Replace(company.URL, "//", "//meri:s3cret@", 1)
	r := startWith(t, o, newFakeCards(person(t, 0)))

	const login = " Basic bWVyaTpzM2NyZXQ="
	for target, want := range map[string]string{
		"https://card.test/": "CONNECT card.test:443" + login,
		"http://site.test/x": "GET http://site.test/x" + login,
	} {
		resp, body := r.through(t, "card.test", target)
		if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("X-Kortti-Error") != "proxy-login" || !strings.Contains(body, "[proxy] upstream") {
			t.Errorf("%s: %s %q", target, resp.Status, body)
		}
		if got := <-asked; got != want {
			t.Errorf("%s: the other proxy was asked %q", target, got)
		}
	}
	if len(asked) != 0 {
		t.Errorf("%d further requests to the other proxy", len(asked))
	}
	for address, want := range map[string]bool{"192.0.2.7:8443": true, "192.0.2.7:443": false, "192.0.2.8:8443": true, "card.test:443": false} {
		if r.isHostAddress(address) != want {
			t.Errorf("%s is a host's own address: %v", address, !want)
		}
	}
	check(t, r.stop())
	if strings.Contains(r.log.String(), "s3cret") || strings.Contains(r.log.String(), "bWVyaTpzM2NyZXQ") {
		t.Errorf("the log shows the password:\n%s", r.log)
	}
}

// What keeps an agent from starting is said with the table that it stands in.
func TestListenersThatCannotBe(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	at := taken.Addr().String()
	cards := newFakeCards()
	open := func(card.Config) (cardsSeam, tlsclient.Source, error) { return cards, cards, nil }

	o := options(t, t.TempDir(), "[[host]]\nname = \"card.test\"\n[[listener]]\nlisten = \""+at+"\"\nupstream = \"https://card.test\"\n")
	if _, err := assemble(o, open); err == nil || !strings.Contains(err.Error(), "[[listener]]") || !strings.Contains(err.Error(), at) {
		t.Errorf("a port that is taken: %v", err)
	}
	at = "127.0.0.79" + at[strings.LastIndexByte(at, ':'):] // nobody else's
	o = options(t, t.TempDir(), "[[host]]\nname = \"card.test\"\n[[listener]]\nlisten = \""+at+"\"\nupstream = \"https://card.test\"\n")
	o.Config.Proxy.Upstream = "http://" + at
	if _, err := assemble(o, open); err == nil || !strings.Contains(err.Error(), "[proxy] upstream") || !strings.Contains(err.Error(), "own address") {
		t.Errorf("a way out that leads back: %v", err)
	}
}
