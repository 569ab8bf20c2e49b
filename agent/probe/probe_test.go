package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kortti-id/kortti/agent/probe"
	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// web is a few hosts with a PKI of their own.
type web struct {
	t       *testing.T
	pki     *fineidtest.PKI
	clients *x509.CertPool
	hosts   map[string]string // name to address
	dialled atomic.Int32
}

func newWeb(t *testing.T) *web {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pki.IssuingPEM())
	return &web{t: t, pki: pki, clients: clients, hosts: map[string]string{}}
}

// host serves a handler as https://NAME/ with some way of asking.
func (w *web) host(name string, asks tls.ClientAuthType, newest uint16, handler http.HandlerFunc) {
	w.t.Helper()
	certificate, err := w.pki.ServerCert(name)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: asks, ClientCAs: w.clients, MaxVersion: newest}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	w.t.Cleanup(server.Close)
	w.hosts[name] = strings.TrimPrefix(server.URL, "https://")
}

func (w *web) follow(start string) probe.Result {
	w.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.pki.WebRootsPEM())
	cfg := probe.Config{Roots: roots, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.dialled.Add(1)
		name, _, _ := net.SplitHostPort(addr)
		to, ok := w.hosts[name]
		if !ok {
			return nil, fmt.Errorf("there is no host %s", name)
		}
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}}
	result, err := probe.Follow(w.t.Context(), cfg, start)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range result.Hops {
		w.t.Logf("%+v", h)
	}
	return result
}

func to(url string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusFound) }
}

func text(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		fmt.Fprint(w, body)
	}
}

// A login over three hosts, the last of which asks for the card.
func TestFindsTheHostThatAsks(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t)
			w.host("login.kortti.test", tls.RequestClientCert, version, to("https://card.kortti.test/card"))
			w.host("card.kortti.test", tls.RequireAnyClientCert, version, func(http.ResponseWriter, *http.Request) {
				t.Error("a request came without a certificate")
			})
			w.host("service.kortti.test", tls.NoClientCert, version, func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/start" {
					if c, err := r.Cookie("flow"); err != nil || c.Value != "1" {
						t.Errorf("the cookie did not come back: %v", err)
					}
					http.Redirect(rw, r, "https://login.kortti.test/", http.StatusTemporaryRedirect)
					return
				}
				http.SetCookie(rw, &http.Cookie{Name: "flow", Value: "1", Path: "/"})
				http.Redirect(rw, r, "/start?secret=1", http.StatusSeeOther)
			})
			result := w.follow("https://service.kortti.test/")
			if want := []string{"login.kortti.test", "card.kortti.test"}; !slices.Equal(result.Asking(), want) || result.End != probe.Needs {
				t.Errorf("%v asked, the end is %s; want %v and %s", result.Asking(), result.End, want, probe.Needs)
			}
			if len(result.Hops) != 4 || result.Hops[1].Path != "/start" || result.Hops[0].Asks || result.Hops[3].TLS != name {
				t.Errorf("the hops are %+v", result.Hops)
			}
			last := result.Hops[len(result.Hops)-1]
			if len(last.CAs) == 0 || !strings.Contains(last.CAs[0], "Kortti TEST") || last.Late {
				t.Errorf("the last host takes %q", last.CAs)
			}
		})
	}
}

func TestEndings(t *testing.T) {
	for _, tt := range []struct {
		name string
		page http.HandlerFunc
		end  probe.Ending
		hops int
	}{
		{"a page", text("text/html", "<p>hello"), probe.Answered, 1},
		{"no HTML", text("text/plain", "<form><script>x.submit()</script>"), probe.Answered, 1},
		{"a form", text("text/html", "<form action=/next><input name=user></form>"), probe.Form, 1},
		{"a form that script sends", text("text/html", "<form></form><script>document.forms[0].submit()</script>"), probe.Script, 1},
		{"a body that sends it", text("text/html; charset=utf-8", `<body onload="document.forms[0].submit ()"><form>`), probe.Script, 1},
		{"script that leaves", text("text/html", "<script>window.location = '/next'</script>"), probe.Script, 1},
		{"text about script", text("text/html", "<p>location = here; form.submit()</p>"), probe.Answered, 1},
		{"plain HTTP", to("http://service.kortti.test/"), probe.NotHTTPS, 1},
		{"another scheme", to("javascript:alert(1)"), probe.NotHTTPS, 1},
		{"round and round", to("/"), probe.TooLong, probe.MaxHops},
		{"nowhere", to("https://gone.kortti.test/"), probe.Failed, 2},
		{"a refreshing page", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/next" {
				return
			}
			text("text/html", `<meta HTTP-EQUIV="Refresh" content="0; URL='/next'">`)(w, r)
		}, probe.Answered, 2},
		{"a Refresh header", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/next" {
				w.Header().Set("Refresh", "5;url=/next")
			}
		}, probe.Answered, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWeb(t)
			w.host("service.kortti.test", tls.NoClientCert, tls.VersionTLS13, tt.page)
			result := w.follow("https://service.kortti.test/")
			if result.End != tt.end || len(result.Hops) != tt.hops || len(result.Asking()) != 0 {
				t.Errorf("%d hops, end %s; want %d, %s", len(result.Hops), result.End, tt.hops, tt.end)
			}
			if int(w.dialled.Load()) != tt.hops {
				t.Errorf("%d connections for %d hops", w.dialled.Load(), tt.hops)
			}
		})
	}
}

// A host that refuses without having asked is looked at once more with TLS 1.2,
// in which asking late can be seen.
func TestRefusalIsLookedAtAgain(t *testing.T) {
	w := newWeb(t)
	var versions []uint16
	w.host("service.kortti.test", tls.NoClientCert, tls.VersionTLS13, func(rw http.ResponseWriter, r *http.Request) {
		versions = append(versions, r.TLS.Version)
		rw.WriteHeader(http.StatusForbidden)
	})
	result := w.follow("https://service.kortti.test/")
	if !slices.Equal(versions, []uint16{tls.VersionTLS13, tls.VersionTLS12}) || result.Hops[0].Status != http.StatusForbidden || result.Hops[0].TLS != "1.3" {
		t.Errorf("versions %x, hops %+v", versions, result.Hops)
	}
}

func TestUntrustedHost(t *testing.T) {
	w := newWeb(t)
	server := httptest.NewUnstartedServer(to("/next"))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	w.hosts["service.kortti.test"] = strings.TrimPrefix(server.URL, "https://")
	result := w.follow("https://service.kortti.test/")
	if result.End != probe.Failed || !strings.HasPrefix(result.Hops[0].Error, "its own certificate is not trusted") {
		t.Errorf("%+v", result)
	}
}

func TestFollowNeedsHTTPS(t *testing.T) {
	for _, start := range []string{"http://a.example.fi/", "a.example.fi", "", "https:///x", "ftp://a.example.fi/"} {
		if _, err := probe.Follow(t.Context(), probe.Config{}, start); err == nil {
			t.Errorf("%q was probed", start)
		}
	}
}
