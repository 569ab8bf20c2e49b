package upstreams_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/kortti-id/kortti/tests/rootfs"
)

// nginx is a configuration of nginx, which asks in the handshake.
type nginx struct {
	protocol string // of TLS
	h2       bool
	tickets  bool
	verify   string // ssl_verify_client
	perConn  int    // keepalive_requests
}

func (n nginx) String() string {
	return fmt.Sprintf("%s,h2=%t,tickets=%t,%s", n.protocol, n.h2, n.tickets, n.verify)
}

func nginxes() []nginx {
	var all []nginx
	for _, protocol := range []string{"TLSv1.2", "TLSv1.3"} {
		for _, h2 := range []bool{false, true} {
			for _, tickets := range []bool{false, true} {
				verify := "on"
				if h2 == tickets {
					verify = "optional"
				}
				all = append(all, nginx{protocol, h2, tickets, verify, 10_000})
			}
		}
	}
	return all
}

func newNginx(t *testing.T, n nginx) *rig {
	t.Helper()
	r := newRig(t)
	inside := func(name string) string { return rootfs.Shared + "/" + name }
	listen, tickets := r.addr+" ssl", "off"
	if n.h2 {
		listen += " http2"
	}
	if n.tickets {
		tickets = "on"
	}
	r.write("nginx.conf", fmt.Appendf(nil, `user root; daemon off; pid /run/nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  server {
    listen %s;
    server_name %s;
    ssl_certificate %s; ssl_certificate_key %s;
    ssl_protocols %s;
    ssl_client_certificate %s; ssl_verify_client %s; ssl_verify_depth 3;
    ssl_session_tickets %s;
    keepalive_requests %d;
    client_max_body_size 10m;
    location / {
      proxy_pass http://%s;
      proxy_set_header X-Subject $ssl_client_s_dn;
    }
  }
}
`, listen, site, inside("site.pem"), inside("site-key.pem"), n.protocol, inside("issuing.pem"), n.verify, tickets, n.perConn, r.application))
	r.run("nginx", "-c", inside("nginx.conf"))
	return r
}

// A thousand requests of sixteen clients that start cold and at once cost one
// signature, with tickets and, as connections are kept, without; nothing is
// learned, because nothing is special.
func TestNginxColdBurst(t *testing.T) {
	for _, n := range nginxes() {
		t.Run(n.String(), func(t *testing.T) {
			r := newNginx(t, n)
			store := newStore()
			tr := r.client(store.config)
			if err := r.load(tr, 16, 1000, "/"); err != nil {
				t.Error(err)
			}
			if got := r.key.signatures.Load(); got != 1 {
				t.Errorf("%d signatures, want 1: %+v", got, tr.Counters())
			}
			if p, learned := store.Get(site, "443"); learned {
				t.Errorf("learned %+v", p)
			}
		})
	}
}

// New connections, as nginx ends each after a hundred requests, cost nothing where
// there are tickets.
func TestNginxNewConnections(t *testing.T) {
	for _, n := range nginxes() {
		if !n.tickets {
			continue
		}
		t.Run(n.String(), func(t *testing.T) {
			n.perConn = 100
			r := newNginx(t, n)
			tr := r.client()
			if err := r.load(tr, 16, 1000, "/"); err != nil {
				t.Error(err)
			}
			r.signatures(1)
			if c := tr.Counters(); c.Handshakes.Resumed < 5 {
				t.Errorf("%d connections were resumed, so the test has shown less than it says", c.Handshakes.Resumed)
			}
		})
	}
}

// A large body goes out once, at once, to a host that asks in the handshake: no
// request goes before it.
func TestNginxPOST(t *testing.T) {
	r := newNginx(t, nginx{"TLSv1.3", true, true, "on", 1000})
	tr := r.client()
	body := make([]byte, 1<<20)
	if status, _, err := do(t.Context(), tr, http.MethodPost, "/", body); err != nil || status != http.StatusOK {
		t.Errorf("got %d, %v", status, err)
	}
	r.signatures(1)
	if c := tr.Counters(); c.Requests != 1 || c.Handshakes.Full != 1 {
		t.Errorf("a host that asks at once was looked at twice: %+v", c)
	}
}
