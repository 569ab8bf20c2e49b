package server_test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/server/probe"
)

// probed is a proxy whose server answers the probe; its sample is changed by pairs
// of old and new text.
func probed(t *testing.T, p proxy, pairs ...string) (*front, string) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "probe.secret")
	if err := probe.NewSecret(secret); err != nil {
		t.Fatal(err)
	}
	p.settings = func(config string) string { return config + "[probe]\nsecret = \"" + secret + "\"\n" }
	p.edit = func(sample string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(sample, pairs[i]) {
				t.Fatalf("the sample of %s has no %q", p.name, pairs[i])
			}
			sample = strings.ReplaceAll(sample, pairs[i], pairs[i+1])
		}
		return sample
	}
	return newFront(t, p), secret
}

// probe runs the command and gives its findings, and whether it ends as if something were wrong.
func (f *front) probe(secret string) (findings []probe.Finding, bad bool) {
	f.t.Helper()
	f.write("web.pem", f.pki.WebRootsPEM())
	out, err := f.server("probe", "--json", "--secret", secret, "--roots", filepath.Join(f.dir, "web.pem"), "--connect", f.addr, "https://"+site).Output()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		f.t.Fatal(err)
	}
	var report probe.Report
	if json.Unmarshal(out, &report) != nil || len(report.Findings) < 20 || report.Requests < 500 {
		f.t.Fatalf("%s\n%v %s", out, err, exit.Stderr)
	}
	for _, finding := range report.Findings {
		if finding.Result == probe.Failed {
			f.t.Errorf("%+v", finding)
		}
	}
	return report.Findings, failed
}

// Behind the documentation's samples nothing is found.
func TestProbeOfSamples(t *testing.T) {
	for _, p := range []proxy{nginx, apache, haproxy, caddy} {
		t.Run(p.name, func(t *testing.T) {
			f, secret := probed(t, p)
			findings, holes := f.probe(secret)
			if holes != p.resumes {
				t.Errorf("holes: %v", holes)
			}
			for _, finding := range findings {
				tickets := p.resumes && strings.HasPrefix(finding.Check, "card after a visit")
				if finding.Result == probe.Hole && !tickets || strings.HasPrefix(finding.Check, "forged ") && finding.Result != probe.OK {
					t.Errorf("%+v", finding)
				}
			}
		})
	}
}

// Each mistake is found, and the line that mends it is named.
func TestProbeOfMistakes(t *testing.T) {
	for _, test := range []struct {
		name   string
		proxy  proxy
		pairs  []string
		check  string
		result probe.Result
		mend   string
	}{
		{
			"the client's certificate header", nginx, []string{"X-SSL-Client-Cert $ssl_client_escaped_cert", "X-SSL-Client-Cert $http_x_ssl_client_cert"},
			"forged header X-SSL-Client-Cert", probe.Hole, `proxy_set_header X-SSL-Client-Cert "";`,
		},
		{
			"another format's header", nginx, []string{`proxy_set_header Client-Cert               "";`, ""},
			"forged header Client-Cert", probe.Weak, `proxy_set_header Client-Cert "";`,
		},
		{
			"the client's address", nginx, []string{"X-Real-IP         $remote_addr", "X-Real-IP $http_x_real_ip"},
			"forged address in X-Real-IP", probe.Hole, "proxy_set_header X-Real-IP $remote_addr;",
		},
		{
			"tickets", nginx, []string{"ssl_session_tickets off", "ssl_session_tickets on"},
			"card after a visit without, TLS 1.3", probe.Hole, "ssl_session_tickets off",
		},
		{
			"tickets", nginx, []string{"ssl_session_tickets off", "ssl_session_tickets on"},
			"second visit with a card, TLS 1.3", probe.Weak, "ssl_session_tickets off",
		},
		{
			"Connection", caddy, []string{"request_header -Connection", ""},
			"headers dropped at a client's wish", probe.Hole, "request_header -Connection",
		},
		{
			"Connection", apache, []string{`RequestHeader edit* Connection`, `#`},
			"headers dropped at a client's wish", probe.Hole, "RequestHeader edit* Connection",
		},
		{
			"old TLS", nginx, []string{"ssl_protocols       TLSv1.2 TLSv1.3;", "ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; ssl_ciphers ALL:@SECLEVEL=0;"},
			"TLS 1.1", probe.Hole, "ssl_protocols TLSv1.2 TLSv1.3;",
		},
		{
			"nothing dropped", apache, []string{"RequestHeader unset Client-Cert early", ""},
			"forged header Client-Cert", probe.Hole, "RequestHeader unset Client-Cert",
		},
		{
			"nothing dropped", haproxy, []string{"http-request del-header client-cert -m beg", ""},
			"forged header Client-Cert", probe.Hole, "http-request del-header Client-Cert",
		},
		{
			"underscores", haproxy, []string{"http-request del-header _ -m sub", ""},
			"forged header Client-Cert", probe.Weak, "http-request del-header Client_Cert",
		},
		{
			"nothing dropped", caddy, []string{"request_header -Client-Cert*", ""},
			"forged header Client-Cert", probe.Hole, "request_header -Client-Cert",
		},
	} {
		t.Run(test.proxy.name+": "+test.name, func(t *testing.T) {
			f, secret := probed(t, test.proxy, test.pairs...)
			findings, holes := f.probe(secret)
			if !holes && test.result == probe.Hole {
				t.Error("the command ends as if all were well")
			}
			for _, finding := range findings {
				if finding.Check == test.check {
					if finding.Result != test.result || !strings.Contains(finding.Mend, test.mend) {
						t.Errorf("%+v", finding)
					}
					return
				}
			}
			t.Errorf("no check %q", test.check)
		})
	}
}
