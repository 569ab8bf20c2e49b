package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		entry, host, port string
		want              int
	}{
		{"a.example.fi", "a.example.fi", "443", 3},
		{"a.example.fi", "A.Example.fi.", "8443", 3},
		{"a.example.fi:443", "a.example.fi", "443", 4},
		{"a.example.fi:443", "a.example.fi", "8443", 0},
		{"a.example.fi", "b.a.example.fi", "443", 0},
		{"a.example.fi", "xa.example.fi", "443", 0},
		{"*.example.fi", "a.example.fi", "443", 1},
		{"*.example.fi:1", "a.example.fi", "1", 2},
		{"*.example.fi", "b.a.example.fi", "443", 0},
		{"*.example.fi", "example.fi", "443", 0},
		{"*.example.fi", ".example.fi", "443", 0},
		{"*.example.fi", "aexample.fi", "443", 0},
		{"älä.fi", "xn--l-0gaa.fi", "443", 0},
		{"ä.fi", "xn--4ca.fi", "443", 3},
		{"a.fi", "", "443", 0},
	} {
		h, err := NewHost("/", c.entry, "", "", "", "")
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Match(c.host, c.port); got != c.want {
			t.Errorf("%s against %s:%s = %d, want %d", c.entry, c.host, c.port, got, c.want)
		}
	}
}

func TestDial(t *testing.T) {
	for address, want := range map[string]string{
		"": "a.fi:443", "127.0.0.1": "127.0.0.1:443", "127.0.0.1:1": "127.0.0.1:1",
		"[::1]:1": "[::1]:1", "::1": "[::1]:443", "[::1]": "[::1]:443", "b.fi:1": "b.fi:1", "b.fi": "b.fi:443",
	} {
		h, err := NewHost("/", "a.fi", "", "", address, "")
		if err != nil {
			t.Error(address, err)
		} else if got := h.Dial("a.fi", "443"); got != want {
			t.Errorf("%q: %s, want %s", address, got, want)
		}
	}
}

func TestClosestHostWins(t *testing.T) {
	path := write(t, t.TempDir(), "kortti.toml", `
[[host]]
name = "*.example.fi"
address = "1.0.0.1"
[[host]]
name = "a.example.fi"
address = "1.0.0.2"
[[host]]
name = "a.example.fi:8443"
address = "1.0.0.3"
`)
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{"b.example.fi:443": "1.0.0.1", "a.example.fi:443": "1.0.0.2", "a.example.fi:8443": "1.0.0.3"} {
		host, port, _ := strings.Cut(target, ":")
		if h, _ := cfg.Hosts.Lookup(host, port); h.Address != want {
			t.Errorf("%s goes to %s, want %s", target, h.Address, want)
		}
	}
}

func TestManagedHosts(t *testing.T) {
	dir := t.TempDir()
	text := "[[host]]\nname = \"own.example.fi\"\nconsent = \"always\"\n"
	path := write(t, dir, "kortti.toml", text)
	load := func() *Hosts {
		t.Helper()
		cfg, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Hosts
	}
	hosts := load()
	host, err := NewHost(dir, "new.example.fi:8443", fingerprint, "always", "127.0.0.1", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := hosts.Put(host); err != nil || !got.Managed {
		t.Fatal(got, err)
	}
	for _, h := range []*Hosts{hosts, load()} { // in memory and after a new start
		got, ok := h.Lookup("new.example.fi", "8443")
		if !ok || !got.Managed || got.Card != fingerprint || got.Consent != ConsentAlways || got.Address != "127.0.0.1" {
			t.Errorf("%+v %v", got, ok)
		}
		if len(h.List()) != 2 {
			t.Errorf("%v", h.List())
		}
	}
	if st, err := os.Stat(hosts.ManagedFile()); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}

	own, _ := NewHost(dir, "own.example.fi", "", "ask", "", "")
	var fixed *FixedError
	if _, err := hosts.Put(own); !errors.As(err, &fixed) || fixed.File != path {
		t.Error(err)
	}
	if err := hosts.Delete("own.example.fi"); !errors.As(err, &fixed) {
		t.Error(err)
	}
	if err := hosts.Delete("other.example.fi"); !errors.Is(err, ErrNotListed) {
		t.Error(err)
	}
	if now, _ := os.ReadFile(path); string(now) != text {
		t.Error("kortti.toml was written")
	}
	if err := hosts.Delete("new.example.fi:8443"); err != nil {
		t.Error(err)
	}
	if _, ok := load().Get("new.example.fi:8443"); ok {
		t.Error("deleted, but still there after a new start")
	}

	// The person lists a managed host in kortti.toml: that entry wins.
	if _, err := hosts.Put(host); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "kortti.toml", "[[host]]\nname = \"new.example.fi:8443\"\n")
	if h, _ := load().Get("new.example.fi:8443"); h.Managed || h.Consent != ConsentAsk {
		t.Errorf("%+v", h)
	}
}

func TestManagedFileIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "kortti.toml", "")
	write(t, dir, "managed.toml", "[[host]]\nname = \"a.fi\"\nx = 1\n")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), `managed.toml:3: unknown key "host.x"`) {
		t.Error(err)
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	dir := t.TempDir()
	cfg, err := Load(write(t, dir, "kortti.toml", ""))
	if err != nil {
		t.Fatal(err)
	}
	// A directory where the file should go makes the write fail, also for root.
	if err := os.Mkdir(filepath.Join(dir, "managed.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	h, _ := NewHost(dir, "a.fi", "", "", "", "")
	if _, err := cfg.Hosts.Put(h); err == nil || len(cfg.Hosts.List()) != 0 {
		t.Error(err, cfg.Hosts.List())
	}
}
