package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestLoad(t *testing.T) {
	path := write(t, t.TempDir(), "kortti.toml", `
[card]
modules = ["/usr/lib/opensc-pkcs11.so", "auto"]
idle_lock = "5m"
[proxy]
listen = "[::1]:0"
[control]
socket = "/run/x/agent.sock"
[[host]]
name = "Asiointi.Example.FI"
consent = "always"
address = "127.0.0.1:8443"
[[host]]
name = "*.example.fi:8443"
card = "`+strings.ToUpper(fingerprint)+`"
`)
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Card.IdleLock != 5*time.Minute || len(cfg.Card.Modules) != 2 || cfg.Proxy.Listen != "[::1]:0" {
		t.Errorf("%+v", cfg)
	}
	if s, err := cfg.Socket(); err != nil || s != "/run/x/agent.sock" {
		t.Error(s, err)
	}
	h, ok := cfg.Hosts.Lookup("asiointi.example.fi.", "443")
	if !ok || h.Consent != ConsentAlways || h.Card != CardAuto || h.Dial("asiointi.example.fi", "443") != "127.0.0.1:8443" {
		t.Errorf("%+v %v", h, ok)
	}
	if h, ok := cfg.Hosts.Lookup("x.example.fi", "8443"); !ok || h.Card != fingerprint || h.Consent != ConsentAsk {
		t.Errorf("%+v %v", h, ok)
	}
}

func TestLoadDefaults(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	cfg, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Proxy.Listen != DefaultListen || cfg.Card.IdleLock != DefaultIdleLock || cfg.Card.Modules[0] != "auto" || len(cfg.Hosts.List()) != 0 {
		t.Errorf("%+v", cfg)
	}
	if _, err := cfg.Socket(); !errors.Is(err, control.ErrNoRuntimeDir) {
		t.Error(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1")
	if s, _ := cfg.Socket(); s != "/run/user/1/kortti/agent.sock" {
		t.Error(s)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/"+strings.Repeat("x", 100))
	if _, err := cfg.Socket(); err == nil || !strings.Contains(err.Error(), "longer than the system allows") {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "empty.pem", "")
	write(t, dir, "text.pem", "not a certificate\n")
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":        {"[proxy]\n\nlisen = \"127.0.0.1:1\"\n", `kortti.toml:3: unknown key "proxy.lisen"`},
		"unknown table":      {"[prox]\nlisten = \"127.0.0.1:1\"\n", `kortti.toml:1: unknown key "prox"`},
		"unknown host key":   {"[[host]]\nname = \"a.fi\"\nroot = \"x\"\n", `kortti.toml:3: unknown key "host.root"`},
		"two unknown keys":   {"a = 1\nb = 2\n", "kortti.toml:2: unknown key \"b\""},
		"syntax":             {"[card\n", "kortti.toml:1"},
		"wrong type":         {"[card]\nmodules = \"auto\"\n", "kortti.toml:2"},
		"twice":              {"[card]\nmodules=[\"auto\"]\nmodules=[\"auto\"]\n", "kortti.toml"},
		"open to the net":    {"[proxy]\nlisten = \"0.0.0.0:8079\"\n", "only loopback"},
		"no address":         {"[proxy]\nlisten = \":8079\"\n", "only loopback"},
		"a name":             {"[proxy]\nlisten = \"localhost:8079\"\n", "only loopback"},
		"no port":            {"[proxy]\nlisten = \"127.0.0.1\"\n", "want ADDRESS:PORT"},
		"bad port":           {"[proxy]\nlisten = \"127.0.0.1:99999\"\n", "not a port"},
		"upstream":           {"[proxy]\nupstream = \"p:3128\"\n", "[proxy] upstream: an upstream proxy is written as"},
		"listener alone":     {"[[listener]]\nlisten = \"127.0.0.1:1\"\n", "[[listener]] 127.0.0.1:1: upstream"},
		"listener unlisted":  {"[[listener]]\nlisten = \"127.0.0.1:1\"\nupstream = \"https://a.fi\"\n", "https://a.fi is not listed"},
		"listener by http":   {"[[listener]]\nlisten = \"127.0.0.1:1\"\nupstream = \"http://a.fi\"\n[[host]]\nname = \"a.fi\"\n", "want \"https://\""},
		"listener with path": {"[[listener]]\nlisten = \"127.0.0.1:1\"\nupstream = \"https://a.fi/x\"\n[[host]]\nname = \"a.fi\"\n", "no path"},
		"listener for all":   {"[[listener]]\nlisten = \"127.0.0.1:1\"\nupstream = \"https://*.a.fi\"\n[[host]]\nname = \"*.a.fi\"\n", "[[listener]] 127.0.0.1:1"},
		"open listener":      {"[[listener]]\nlisten = \"0.0.0.0:1\"\nupstream = \"https://a.fi\"\n[[host]]\nname = \"a.fi\"\n", "only loopback"},
		"relative socket":    {"[control]\nsocket = \"a.sock\"\n", "absolute"},
		"idle":               {"[card]\nidle_lock = \"soon\"\n", "idle_lock soon"},
		"negative idle":      {"[card]\nidle_lock = \"-1m\"\n", "idle_lock"},
		"idle number":        {"[card]\nidle_lock = 15\n", "idle_lock 15"},
		"no modules":         {"[card]\nmodules = []\n", "modules is empty"},
		"relative module":    {"[card]\nmodules = [\"a.so\"]\n", "absolute path"},
		"no name":            {"[[host]]\ncard = \"auto\"\n", "not a DNS name"},
		"url":                {"[[host]]\nname = \"https://a.fi\"\n", `host name "https://a.fi" must be a name, not a URL`},
		"address as a name":  {"[[host]]\nname = \"127.0.0.1\"\n", "IP address"},
		"star of a TLD":      {"[[host]]\nname = \"*.fi\"\n", "two labels"},
		"star inside":        {"[[host]]\nname = \"a.*.fi\"\n", "not a DNS name"},
		"card":               {"[[host]]\nname = \"a.fi\"\ncard = \"abc\"\n", "SHA-256"},
		"consent":            {"[[host]]\nname = \"a.fi\"\nconsent = \"never\"\n", `"ask" or "always"`},
		"address":            {"[[host]]\nname = \"a.fi\"\naddress = \"a b\"\n", "address"},
		"same host twice":    {"[[host]]\nname = \"a.fi\"\n[[host]]\nname = \"A.fi\"\n", "listed twice"},
		"missing roots":      {"[[host]]\nname = \"a.fi\"\ntls_roots = \"missing.pem\"\n", "missing.pem"},
		"empty roots":        {"[[host]]\nname = \"a.fi\"\ntls_roots = \"empty.pem\"\n", "holds no certificate"},
		"roots without one":  {"[[host]]\nname = \"a.fi\"\ntls_roots = \"text.pem\"\n", "holds no certificate"},
		"roots not a file":   {"[[host]]\nname = \"a.fi\"\ntls_roots = \"/dev/zero\"\n", "is not a PEM file"},
		"roots is directory": {"[[host]]\nname = \"a.fi\"\ntls_roots = \".\"\n", "is not a PEM file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, dir, "kortti.toml", c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "kortti.toml") {
				t.Errorf("want %q, got: %v", c.want, err)
			}
		})
	}
	if _, err := Load(filepath.Join(dir, "missing.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file that is missing: %v", err)
	}
}

func TestIdleLockZero(t *testing.T) {
	for _, v := range []string{"0", `"0"`, `"0s"`} {
		cfg, _, err := parse("kortti.toml", []byte("[card]\nidle_lock = "+v))
		if err != nil || cfg.Card.IdleLock != 0 {
			t.Error(v, err)
		}
	}
}

// FuzzLoad feeds the parser with files: it must answer with a configuration that
// keeps the rules or with an error, never panic.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("[card]\nmodules=[\"auto\"]\nidle_lock=\"15m\"\n[proxy]\nlisten=\"127.0.0.1:8079\"\n"))
	f.Add([]byte("[[host]]\nname=\"*.example.fi:8443\"\ncard=\"" + fingerprint + "\"\nconsent=\"always\"\naddress=\"[::1]:1\"\n"))
	f.Add([]byte("[control]\nsocket=\"/x\"\nunknown=1"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cfg, tables, err := parse("kortti.toml", raw)
		if err != nil {
			return
		}
		if err := checkLoopback(cfg.Proxy.Listen); err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			h, err := NewHost("/", table.Name, table.Card, table.Consent, table.Address, "")
			if err != nil {
				continue
			}
			again, err := NewHost("/", h.String(), h.Card, string(h.Consent), h.Address, "")
			if err != nil || again.String() != h.String() {
				t.Fatalf("%q is written as %q, which reads as %q: %v", table.Name, h, again, err)
			}
		}
	})
}
