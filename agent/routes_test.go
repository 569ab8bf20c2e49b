package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// row is one call of the control API, as docs/architecture.md promises it.
type row struct {
	pattern string // of http.ServeMux
	path    string // one that it is called with
	body    string // where it takes one
	status  int
	// keys are those of the answer's object, or of the first object where it is a
	// list; those in brackets may be missing.
	keys string
}

// rows are all calls, in an order in which each finds what it needs.
func rows(certificate string) []row {
	const prompt = "id kind card card_label (certificate) (name) (host) (program) (program_note) pin_pad final_try count_low to_be_changed (min_pin) (max_pin) (candidates) (message) leased expires"
	const host = "name card consent (address) (tls_roots) managed"
	const consent = "id program host card since remembered"
	const settings = "config_file managed_file state_dir modules idle_lock proxy socket upstream listeners fixed"
	return []row{
		{"GET /v1/status", "/v1/status", "", 200, "version pid uptime proxy cards counters screen_lock sleep (roots_ending)"},
		{"GET /v1/cards", "/v1/cards", "", 200, "modules readers pcsc"},
		{"GET /v1/settings", "/v1/settings", "", 200, settings},
		{"PUT /v1/settings", "/v1/settings", `{"idle_lock":"9m"}`, 200, settings},
		{"POST /v1/reload", "/v1/reload", `{}`, 200, "changed kept"},
		{"POST /v1/unlock", "/v1/unlock", `{"certificate":"` + certificate + `"}`, 200, prompt},
		{"GET /v1/prompts", "/v1/prompts", "", 200, prompt},
		{"POST /v1/prompts/{id}", "/v1/prompts/ID", `{"lease":true}`, 200, "lease_token (done)"},
		{"POST /v1/lock", "/v1/lock", `{}`, 204, ""},
		{"POST /v1/pin/change", "/v1/pin/change", `{}`, 200, prompt},
		{"POST /v1/pin/unblock", "/v1/pin/unblock", `{}`, 200, prompt},
		{"PUT /v1/hosts/{name}", "/v1/hosts/new.test", `{"consent":"always"}`, 200, host},
		{"GET /v1/hosts", "/v1/hosts", "", 200, host},
		{"GET /v1/hosts/{name}", "/v1/hosts/new.test", "", 200, host},
		{"DELETE /v1/hosts/{name}", "/v1/hosts/new.test", "", 204, ""},
		{"GET /v1/consents", "/v1/consents", "", 200, consent},
		{"GET /v1/consents/{id}", "/v1/consents/CONSENT", "", 200, consent},
		{"DELETE /v1/consents/{id}", "/v1/consents/CONSENT", "", 204, ""},
		{"DELETE /v1/consents", "/v1/consents", "", 204, ""},
		{"GET /v1/trust", "/v1/trust?host=" + siteName, "", 200, "host pem sha256 not_after renew_at (error)"},
		{"POST /v1/trust", "/v1/trust", `{"action":"install","all":true,"print":true}`, 200, "changes (commands) (restart) (running)"},
		{"GET /v1/why", "/v1/why?host=" + siteName, "", 200, "host asked acceptable_cas rows (chosen) (profiles)"},
		{"GET /v1/profiles", "/v1/profiles", "", 200, "host port http1 tls12_renegotiation warm_up reason since"},
		{"DELETE /v1/profiles/{host}", "/v1/profiles/" + siteName, "", 204, ""},
		{"GET /v1/doctor", "/v1/doctor", "", 200, "findings"},
		{"GET /v1/audit", "/v1/audit?limit=1", "", 200, "time decision (host) (program) (pid) (card) (certificate) (reason)"},
		{"GET /v1/events", "/v1/events", "", 200, "event stream"},
		{"GET /metrics", "/metrics", "", 200, "text"},
	}
}

// TestEveryCall makes each call of the control API, and each in all the ways in
// which it must be refused. A call that is not in the table fails the test.
func TestEveryCall(t *testing.T) {
	w := newWorld(t, "")
	cards, err := w.client.Cards(within(t))
	check(t, err)
	certificate := ""
	for _, c := range cards.Readers[0].Card.Certificates {
		if c.Login {
			certificate = c.SHA256
		}
	}
	f, err := card.ParseFingerprint(certificate)
	check(t, err)
	key := consent.Key{Program: "/usr/bin/curl", Host: siteName, Certificate: f.String()}
	check(t, w.consents.Allow(true, key))
	check(t, w.profiles.Put(tlsclient.Profile{Host: siteName, Port: "443", HTTP1: true, Reason: "test", Since: time.Now()}))

	table := rows(certificate)
	var patterns []string
	for _, r := range table {
		patterns = append(patterns, r.pattern)
	}
	slices.Sort(patterns)
	if routes := slices.Sorted(maps.Keys(w.routes())); !slices.Equal(routes, patterns) {
		t.Fatalf("the calls are\n%s\nand the table has\n%s", strings.Join(routes, "\n"), strings.Join(patterns, "\n"))
	}
	for _, r := range table {
		method, _, _ := strings.Cut(r.pattern, " ")
		r.path = strings.Replace(r.path, "CONSENT", key.ID(), 1)
		if strings.HasSuffix(r.path, "ID") {
			open, err := w.client.Prompts(within(t))
			check(t, err)
			r.path = strings.Replace(r.path, "ID", open[0].ID, 1)
		}
		t.Run(r.pattern, func(t *testing.T) {
			w.refuses(t, method, r.path, r.body)
			w.answers(t, method, r)
		})
		for _, other := range []string{"GET", "PUT", "POST", "DELETE", "PATCH"} {
			_, pattern, _ := strings.Cut(r.pattern, " ")
			if slices.Contains(patterns, other+" "+pattern) {
				continue
			}
			if status, e := w.raw(t, other, r.path, "", nil); status != 405 || e.Code != "method-not-allowed" {
				t.Errorf("%s %s: %d %+v", other, r.path, status, e)
			}
		}
	}
}

// refuses checks what no call takes: web pages, and bodies that are none.
func (w *world) refuses(t *testing.T, method, path, body string) {
	t.Helper()
	for _, h := range []http.Header{
		{"Origin": {"https://evil.example"}}, {"Origin": {"null"}}, {"Referer": {"https://evil.example/"}},
		{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Mode": {"no-cors"}}, {"Host": {"evil.example"}}, {"Host": {"127.0.0.1:8079"}},
	} {
		if status, e := w.raw(t, method, path, body, h); status != 403 || e.Code != "web-page" {
			t.Errorf("%v: %d %+v", h, status, e)
		}
	}
	if body == "" {
		return
	}
	for bad, code := range map[string]string{
		"x": control.CodeBadRequest, `{"unknown":1}`: control.CodeBadRequest, body + "{}": control.CodeBadRequest, "[]": control.CodeBadRequest,
		`{"card":"` + strings.Repeat("x", maxBody) + `"}`: "too-long",
	} {
		if status, e := w.raw(t, method, path, bad, nil); e.Code != code || status < 400 || status >= 500 || e.Message == "" {
			t.Errorf("%.30q: %d %+v", bad, status, e)
		}
	}
}

// answers checks a call's answer.
func (w *world) answers(t *testing.T, method string, r row) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.Socket())
	}}}
	req, err := http.NewRequestWithContext(within(t), method, "http://kortti"+r.path, strings.NewReader(r.body))
	check(t, err)
	resp, err := hc.Do(req)
	check(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != r.status || resp.Header.Get("Cache-Control") != "no-store" {
		raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		t.Fatalf("%s %v %s", resp.Status, resp.Header, raw)
	}
	switch r.keys {
	case "event stream":
		if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
			t.Errorf("Content-Type %s", ct)
		}
		w.events.publish(control.Event{Kind: control.EventHost, Host: "x.test"})
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "event: host\n" {
			t.Errorf("%q %v", line, err)
		}
		return
	case "text":
		if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
			t.Errorf("Content-Type %s", ct)
		}
		return
	}
	raw, err := io.ReadAll(resp.Body)
	check(t, err)
	if r.status == 204 {
		if len(raw) > 0 {
			t.Errorf("204 with %q", raw)
		}
		return
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %s", ct)
	}
	var object map[string]json.RawMessage
	if raw[0] == '[' {
		var list []map[string]json.RawMessage
		check(t, json.Unmarshal(raw, &list))
		if len(list) == 0 {
			t.Fatal("the list is empty")
		}
		object = list[0]
	} else {
		check(t, json.Unmarshal(raw, &object))
	}
	for key := range strings.FieldsSeq(r.keys) {
		name := strings.Trim(key, "()")
		if _, ok := object[name]; !ok && name == key {
			t.Errorf("no %q in %s", name, raw)
		}
		delete(object, name)
	}
	if len(object) > 0 {
		t.Errorf("keys that the table does not have: %v", slices.Sorted(maps.Keys(object)))
	}
}
