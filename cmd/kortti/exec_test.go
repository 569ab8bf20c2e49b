package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

func TestExempt(t *testing.T) {
	hosts := []control.Host{{Name: "asiointi.example.fi"}, {Name: "*.intra.example.fi:8443"}}
	for _, tt := range []struct{ list, left, dropped string }{
		{"", "", ""},
		{"localhost,127.0.0.1", "localhost,127.0.0.1", ""},
		{"asiointi.example.fi", "", "asiointi.example.fi"},
		{"ASIOINTI.example.fi.,other.fi", "other.fi", "ASIOINTI.example.fi."},
		{".example.fi localhost", "localhost", ".example.fi"},
		{"*.example.fi", "", "*.example.fi"},
		{"fi", "", "fi"},
		{"*", "", "*"},
		{"asiointi.example.fi:443", "", "asiointi.example.fi:443"},
		{"xasiointi.example.fi", "xasiointi.example.fi", ""},
		{"sub.asiointi.example.fi", "sub.asiointi.example.fi", ""},
		{"a.intra.example.fi", "", "a.intra.example.fi"},
		{"intra.example.fi", "", "intra.example.fi"},
		{"10.0.0.0/8,::1,,", "10.0.0.0/8,::1", ""},
	} {
		left, dropped := exempt(tt.list, hosts)
		if left != tt.left || strings.Join(dropped, ",") != tt.dropped {
			t.Errorf("%q: %q is left and %q dropped; want %q and %q", tt.list, left, dropped, tt.left, tt.dropped)
		}
	}
}

const somePEM = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"

// The bundles are written anew each time; a person's own file stays as it is.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own.pem")
	if err := os.WriteFile(own, []byte(strings.TrimSuffix(somePEM, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	w := way{proxy: "127.0.0.1:8079", roots: []byte("the roots\n"), dir: filepath.Join(dir, "exec")}
	plan, err := planEnvironment(w, []string{"HOME=/home/me", "GIT_SSL_CAINFO=" + own, "https_proxy=http://old.example.fi:1"})
	if err != nil {
		t.Fatal(err)
	}
	vars := parseEnviron(plan.env)
	if vars["HOME"] != "/home/me" || vars["HTTPS_PROXY"] != "http://127.0.0.1:8079" || vars["https_proxy"] != vars["HTTPS_PROXY"] {
		t.Errorf("%v", vars)
	}
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "no_proxy"} {
		if value, set := vars[name]; set {
			t.Errorf("%s=%s is set", name, value)
		}
	}
	if len(plan.notes) != 1 || !strings.HasPrefix(plan.notes[0], "https_proxy (http://old.example.fi:1) is replaced") {
		t.Errorf("said %q", plan.notes)
	}
	if raw, err := os.ReadFile(vars["GIT_SSL_CAINFO"]); err != nil || string(raw) != somePEM+"the roots\n" {
		t.Errorf("git trusts %q, %v", raw, err)
	}
	if raw, err := os.ReadFile(vars["NODE_EXTRA_CA_CERTS"]); err != nil || string(raw) != "the roots\n" {
		t.Errorf("Node.js trusts %q besides, %v", raw, err)
	}
	if raw, err := os.ReadFile(vars["SSL_CERT_FILE"]); err != nil || !strings.HasSuffix(string(raw), "-----END CERTIFICATE-----\nthe roots\n") {
		t.Errorf("%v: the bundle ends with %q", err, raw[max(0, len(raw)-60):])
	}

	w.roots, w.upstream = []byte("new roots\n"), true
	again, err := planEnvironment(w, append(plan.env, "HTTPS_PROXY=http://old.example.fi:1"))
	if err != nil || len(again.notes) != 0 || !slices.Equal(again.env, plan.env) {
		t.Errorf("within itself: %v, said %q\n%q\n%q", err, again.notes, again.env, plan.env)
	}
	if raw, err := os.ReadFile(vars["NODE_EXTRA_CA_CERTS"]); err != nil || string(raw) != "new roots\n" {
		t.Errorf("Node.js trusts %q besides, %v", raw, err)
	}
	files, err := os.ReadDir(w.dir)
	if err != nil || len(files) != 3 {
		t.Errorf("left behind: %v %v", files, err)
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"":                 {},
		"2h":               now.Add(-2 * time.Hour),
		"2026-11-23":       time.Date(2026, 11, 23, 0, 0, 0, 0, time.Local),
		"2026-11-24T09:30": time.Date(2026, 11, 24, 9, 30, 0, 0, time.Local),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"-2h", "yesterday", "24.11.2026"} {
		if _, err := parseSince(text, now); err == nil {
			t.Errorf("%q is a time", text)
		}
	}
}

func TestWebAddress(t *testing.T) {
	for text, want := range map[string]string{
		"a.example.fi": "https://a.example.fi", "a.example.fi:8443/x?y=1": "https://a.example.fi:8443/x?y=1", "https://a.example.fi/": "https://a.example.fi/",
		"http://a.example.fi/": "", "ftp://a": "", "": "", "/path": "", "https://me@a.example.fi/": "", "https://a b/": "",
	} {
		u, err := webAddress(text)
		if got := ""; err == nil {
			if got = u.String(); got != want {
				t.Errorf("%q is %q, want %q", text, got, want)
			}
		} else if want != "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
