package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sort"
	"strings"
)

// pacPath is the one path that the listener answers in origin form.
const pacPath = "/proxy.pac"

// servePAC answers a browser's question for the proxy configuration. The file
// lists the person's hosts, and any web page can make a browser ask a loopback
// address: by its own name (DNS rebinding, shown by Host) or as a script or
// image (shown by Sec-Fetch-Site, Origin or Referer). Those get nothing.
func (p *Proxy) servePAC(w http.ResponseWriter, r *http.Request) {
	switch {
	case !p.isOwnHost(r.Host) || isCrossSite(r.Header):
		answer{http.StatusForbidden, "not-for-web-pages", "this address is a proxy for the programs of this machine", ""}.write(w, r)
		return
	case r.URL.Path != pacPath || r.URL.RawQuery != "" || r.Method != http.MethodGet && r.Method != http.MethodHead:
		answer{http.StatusBadRequest, "not-a-website", "this address is a proxy, not a website", "Set it as the HTTP and HTTPS proxy, or use http://" + p.own.String() + pacPath + " as the automatic configuration."}.write(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-ns-proxy-autoconfig")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	fmt.Fprint(w, pacFile(p.cfg.Hosts.Names(), p.own))
}

// isOwnHost compares Host with the listener's own address, by number or as
// localhost, and always with the port.
func (p *Proxy) isOwnHost(host string) bool {
	return host == p.own.String() || host == net.JoinHostPort("localhost", portOf(p.own))
}

// isCrossSite tells requests that a web page has caused. A browser that reads
// its own configuration sends none of these, or Sec-Fetch-Site: none.
func isCrossSite(h http.Header) bool {
	site := h.Get("Sec-Fetch-Site")
	return site != "" && site != "none" || h.Get("Origin") != "" || h.Get("Referer") != ""
}

// pacFile writes the configuration: listed hosts through the proxy and never
// around it (a browser that went DIRECT could offer a card of its own), all
// others direct.
func pacFile(names []string, own netip.AddrPort) string {
	var exact, domains []string
	for _, name := range names {
		t, err := parseAuthority(strings.TrimPrefix(name, "*."), "443")
		if err != nil {
			continue
		}
		if strings.HasPrefix(name, "*.") {
			domains = append(domains, "."+t.host)
		} else {
			exact = append(exact, t.host)
		}
	}
	return fmt.Sprintf(`var hosts = %s;
var domains = %s;
function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/\.$/, "").replace(/^\[|\]$/g, "");
  var listed = hosts.indexOf(host) >= 0;
  for (var i = 0; i < domains.length && !listed; i++) {
    var end = host.length - domains[i].length;
    listed = end > 0 && host.indexOf(domains[i], end) === end;
  }
  return listed ? "PROXY %s" : "DIRECT";
}
`, list(exact), list(domains), own)
}

// list is a JavaScript array of strings; JSON is one, with < and > escaped.
func list(s []string) string {
	sort.Strings(s)
	if s == nil {
		s = []string{}
	}
	b, _ := json.Marshal(s) // strings always encode
	return string(b)
}
