package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/config"
)

// pacPath is the one path that the listener answers in origin form.
const pacPath = "/proxy.pac"

// servePAC answers a browser's question for the proxy configuration. The file
// lists the person's hosts, and any web page can make a browser ask a loopback
// address: by its own name (DNS rebinding, shown by Host) or as a script or
// image (shown by Sec-Fetch-Site, Origin or Referer). Those get nothing.
func (p *Proxy) servePAC(w http.ResponseWriter, r *http.Request) {
	switch {
	case !isAt(r.Host, p.own.String()) || isCrossSite(r.Header):
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
	elsewhere := "DIRECT"
	if p.cfg.Upstream != nil && p.cfg.Upstream.Proxied() {
		elsewhere = "PROXY " + p.own.String() // which knows the way
	}
	fmt.Fprint(w, pacFile(p.cfg.Hosts.List(), p.own, elsewhere))
}

// isCrossSite tells requests that a web page has caused. A browser that reads
// its own configuration sends none of these, or Sec-Fetch-Site: none.
func isCrossSite(h http.Header) bool {
	site := h.Get("Sec-Fetch-Site")
	return site != "" && site != "none" || h.Get("Origin") != "" || h.Get("Referer") != ""
}

// pacFile writes the configuration: listed hosts through the proxy and never
// around it (a browser that went DIRECT could offer a card of its own), all
// others elsewhere. A port in the list makes no difference here; the proxy itself
// looks at it.
func pacFile(hosts []config.Host, own netip.AddrPort, elsewhere string) string {
	var names, domains []string
	for _, host := range hosts {
		if domain, ok := strings.CutPrefix(host.Name, "*"); ok {
			domains = append(domains, domain)
		} else {
			names = append(names, host.Name)
		}
	}
	return fmt.Sprintf(`var names = %s;
var domains = %s;
function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/\.$/, "");
  var dot = host.indexOf(".");
  var listed = names.indexOf(host) >= 0 ||
    dot > 0 && domains.indexOf(host.substring(dot)) >= 0;
  return listed ? "PROXY %s" : "%s";
}
`, list(names), list(domains), own, elsewhere)
}

// list is a JavaScript array of strings; JSON is one, with < and > escaped.
func list(s []string) string {
	s = append([]string{}, s...) // never null
	slices.Sort(s)
	b, _ := json.Marshal(s) // strings always encode
	return string(b)
}
