package agent

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
)

var (
	metricHead   = regexp.MustCompile(`^# (HELP|TYPE) (kortti_[a-z_]+) (.+)$`)
	metricSample = regexp.MustCompile(`^(kortti_[a-z_]+)(\{[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*\})? (\d+)$`)
)

// parseMetrics reads Prometheus' text format, version 0.0.4, strictly: each
// family has its HELP and TYPE before its samples, and no sample comes twice.
func parseMetrics(t *testing.T, text string) map[string]uint64 {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Error("the last line does not end")
	}
	samples, family, heads := map[string]uint64{}, "", map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := metricHead.FindStringSubmatch(line); m != nil {
			kind := m[1] + " " + m[2]
			if heads[kind] || m[1] == "TYPE" && m[3] != "counter" && m[3] != "gauge" {
				t.Errorf("%q", line)
			}
			heads[kind], family = true, m[2]
			if m[1] == "TYPE" && strings.HasSuffix(m[2], "_total") != (m[3] == "counter") {
				t.Errorf("%q: a counter's name ends in _total", line)
			}
			continue
		}
		m := metricSample.FindStringSubmatch(line)
		if m == nil || m[1] != family || !heads["HELP "+family] || !heads["TYPE "+family] {
			t.Errorf("%q after the head of %s", line, family)
			continue
		}
		n, err := strconv.ParseUint(m[3], 10, 64)
		if _, twice := samples[m[1]+m[2]]; twice || err != nil {
			t.Errorf("%q: twice, or %v", line, err)
		}
		samples[m[1]+m[2]] = n
	}
	return samples
}

// TestMetrics counts a login, a failure and a reload, and names nobody.
func TestMetrics(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	stream := w.attend(t)
	end := w.curling(t, "/")
	p := next(t, stream, control.EventPrompt).Prompt
	check(t, w.answer(t, p.ID, control.Answer{PIN: pin(rightPIN)}))
	if r := <-end; r.status != 200 {
		t.Fatalf("%+v", r)
	}
	if r := w.curl(within(t), "/"); r.status != 200 {
		t.Fatalf("%+v", r)
	}
	_, err := w.client.PutHost(within(t), control.Host{Name: "gone.example.fi", Consent: "always", Address: closedAddress(t)})
	check(t, err)
	trust, err := w.client.Trust(within(t), "gone.example.fi")
	check(t, err)
	root := filepath.Join(w.dir, "gone.pem")
	check(t, os.WriteFile(root, []byte(trust.PEM), 0o600))
	w.root = root
	program := w.throughProxy(t)
	resp, err := program.RoundTrip(mustRequest(t, "https://gone.example.fi/"))
	check(t, err)
	resp.Body.Close()
	_, err = w.client.Reload(within(t))
	check(t, err)

	text, err := w.client.Metrics(within(t))
	check(t, err)
	samples := parseMetrics(t, text)
	for name, want := range map[string]uint64{
		`kortti_card_signatures_total`: 1, `kortti_signatures_avoided_total`: 1, `kortti_card_logins_total`: 1,
		`kortti_card_logins_refused_total`: 0, `kortti_card_locks_total`: 0, `kortti_requests_total`: 2,
		`kortti_prompts_total{kind="pin"}`: 1, `kortti_prompts_total{kind="consent"}`: 0, `kortti_prompts_open`: 0,
		`kortti_upstream_handshakes_total{kind="full"}`: 1, `kortti_reloads_total{result="done"}`: 1, `kortti_reloads_total{result="failed"}`: 0,
		`kortti_hosts`: 2, `kortti_readers`: 1, `kortti_cards{state="unlocked"}`: 1, `kortti_cards{state="locked"}`: 0,
		`kortti_upstream_errors_total{code="upstream-unreachable"}`: 1,
	} {
		if got, ok := samples[name]; !ok || got != want {
			t.Errorf("%s is %d (%v), want %d", name, got, ok, want)
		}
	}
	for _, private := range []string{"example.fi", "127.0.0.1", "999", "TESTINEN", "ÄILI", "curl", w.dir} {
		if strings.Contains(text, private) {
			t.Errorf("the metrics hold %q:\n%s", private, text)
		}
	}
}

func TestMetricLabelsAreEscaped(t *testing.T) {
	var m metrics
	m.family("kortti_build_info", "gauge", "x")
	m.labelled(1, "version", "a\"b\\c\nd")
	if n := parseMetrics(t, m.String()); n[`kortti_build_info{version="a\"b\\c\nd"}`] != 1 {
		t.Errorf("%q: %v", m.String(), n)
	}
}

// closedAddress is an address of this machine where nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, l.Close())
	return l.Addr().String()
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), "GET", url, nil)
	check(t, err)
	return req
}
