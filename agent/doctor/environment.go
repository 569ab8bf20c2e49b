package doctor

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
)

// variables are those of the environment that checks look at.
var variables = []string{
	"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy",
	"PKCS11SPY", "PKCS11SPY_OUTPUT", "OPENSC_DEBUG", "PCSCLITE_CSOCK_NAME",
}

// checkEnvironment looks for variables that lead programs astray.
func checkEnvironment(f *Facts) []control.Finding {
	var findings []control.Finding
	for _, name := range variables {
		value := f.Env[name]
		if value == "" {
			continue
		}
		switch {
		case strings.HasSuffix(strings.ToLower(name), "_proxy"):
			if !f.Agent && f.server(f.Listen.Port()) == nil && f.pointsAtUs(value) {
				findings = append(findings, control.Finding{
					Code: "proxy-without-agent", Severity: control.SeverityWarning, Title: name + " sends programs to the agent's proxy, and no agent runs",
					Fix: "Start the agent (kortti agent), or unset " + name + ".",
				})
			}
		case strings.HasPrefix(name, "PKCS11SPY"):
			findings = append(findings, control.Finding{
				Code: "environment-spy", Severity: control.SeverityWarning, Title: name + " is set: programs that load pkcs11-spy write PINs into a file",
				Detail: "Kortti does not hand it on to modules.", Fix: "Unset it, unless you look for a fault.",
			})
		case name == "OPENSC_DEBUG":
			findings = append(findings, control.Finding{
				Code: "environment-debug", Severity: control.SeverityNote, Title: "OPENSC_DEBUG is set: other programs may log what they say to the card",
				Detail: "Kortti does not hand it on to modules.", Fix: "Unset it, unless you look for a fault.",
			})
		default:
			findings = append(findings, control.Finding{
				Code: "environment-pcsc", Severity: control.SeverityNote, Title: name + " is set: another smart card service than the system's is asked",
				Detail: name + "=" + value, Fix: "Unset it, unless it is meant.",
			})
		}
	}
	return findings
}

// pointsAtUs says whether a proxy's URL, or bare host and port, is where our
// proxy listens.
func (f *Facts) pointsAtUs(value string) bool {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || !f.Listen.IsValid() {
		return false
	}
	host := u.Hostname()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback() && u.Port() == strconv.Itoa(int(f.Listen.Port()))
}
