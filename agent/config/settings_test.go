package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

func ptr(s string) *string { return &s }

// change makes a change as the agent does.
func change(t *testing.T, c *Config, ch control.SettingsChange) *Config {
	t.Helper()
	next, err := c.With(ch)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(ch); err != nil {
		t.Fatal(err)
	}
	return next
}

func reload(t *testing.T, c *Config) *Config {
	t.Helper()
	again, err := c.Again()
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "kortti.toml", "[[host]]\nname = \"a.fi\"\n")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHost("/", "b.fi", "", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Hosts.Put(h); err != nil {
		t.Fatal(err)
	}
	next := change(t, c, control.SettingsChange{IdleLock: ptr("5m")})
	next = change(t, next, control.SettingsChange{Upstream: ptr("http://u:pw@proxy.example.fi:3128")})
	if next.Card.IdleLock != 5*time.Minute || c.Card.IdleLock != DefaultIdleLock || next.Hosts != c.Hosts {
		t.Errorf("%+v, before %+v", next, c)
	}
	if err := c.Hosts.Delete("b.fi"); err != nil { // which writes the file too
		t.Fatal(err)
	}
	got := reload(t, c)
	if got.Card.IdleLock != 5*time.Minute || got.Proxy.Upstream != "http://u:pw@proxy.example.fi:3128" || len(got.Fixed) != 0 || len(got.Hosts.List()) != 1 {
		t.Errorf("%+v", got)
	}
	if st, err := os.Stat(c.Hosts.ManagedFile()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("managed.toml: %v %v", st, err)
	}

	for name, bad := range map[string]control.SettingsChange{
		"idle_lock soon": {IdleLock: ptr("soon")}, "upstream": {Upstream: ptr("p:3128")},
	} {
		if _, err := c.With(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Error(err)
		}
	}

	// kortti.toml wins, and says so.
	write(t, dir, "kortti.toml", "[card]\nidle_lock = 0\n[proxy]\nupstream = \"\"\n")
	got = reload(t, c)
	if got.Card.IdleLock != 0 || got.Proxy.Upstream != "" || !slices.Equal(got.Fixed, []string{"idle_lock", "upstream"}) {
		t.Errorf("%+v", got)
	}
	for _, ch := range []control.SettingsChange{{IdleLock: ptr("1m")}, {Upstream: ptr("env")}} {
		var fixed *FixedError
		if _, err := got.With(ch); !errors.As(err, &fixed) || fixed.File != path || !strings.Contains(fixed.What, "[") {
			t.Error(err)
		}
	}
}

func TestManagedSettingsAreChecked(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "kortti.toml", "")
	for text, want := range map[string]string{
		"[card]\nidle_lock = \"soon\"\n":   "managed.toml: [card] idle_lock soon",
		"[proxy]\nupstream = \"p:3128\"\n": "managed.toml: [proxy] upstream:",
		"[proxy]\n\nlisten = \"x\"\n":      `managed.toml:3: unknown key "proxy.listen"`,
	} {
		write(t, dir, "managed.toml", text)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "kortti.toml", "[[host]]\nname = \"a.fi\"\n[[host]]\nname = \"b.fi\"\nconsent = \"always\"\n")
	write(t, dir, "managed.toml", "[[host]]\nname = \"m.fi\"\n")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	before := c.Hosts.List()
	write(t, dir, "kortti.toml", "[[host]]\nname = \"b.fi\"\n")
	write(t, dir, "managed.toml", "[card]\nidle_lock = \"1m\"\n[[host]]\nname = \"n.fi\"\n")
	c.Hosts.Replace(reload(t, c).Hosts)
	var names []string
	for _, h := range c.Hosts.List() {
		names = append(names, h.String())
	}
	if got := strings.Join(names, " "); got != "b.fi n.fi" {
		t.Errorf("hosts %s", got)
	}
	if after, _ := c.Hosts.Get("b.fi"); after.Equal(before[1]) || !after.Equal(after) {
		t.Errorf("%+v and %+v", before[1], after)
	}
	if err := c.Hosts.Delete("n.fi"); err != nil { // the rest of managed.toml stays
		t.Fatal(err)
	}
	if got := reload(t, c); got.Card.IdleLock != time.Minute || len(got.Hosts.List()) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestXDG: relative values are ignored, as the specification says, and an empty
// HOME is said.
func TestXDG(t *testing.T) {
	for _, c := range []struct{ config, state, home, file, stateDir string }{
		{"/c", "/s", "/h", "/c/kortti/kortti.toml", "/s/kortti"},
		{"c", "./s", "/h", "/h/.config/kortti/kortti.toml", "/h/.local/state/kortti"},
		{"", "", "/h", "/h/.config/kortti/kortti.toml", "/h/.local/state/kortti"},
		{"/c", "/s", "", "/c/kortti/kortti.toml", "/s/kortti"},
		{"", "", "", "", ""},
		{"c", "s", "h", "", ""},
	} {
		t.Setenv("XDG_CONFIG_HOME", c.config)
		t.Setenv("XDG_STATE_HOME", c.state)
		t.Setenv("HOME", c.home)
		file, err := DefaultFile()
		state, err2 := DefaultState()
		if file != c.file || state != c.stateDir || (file == "") != errors.Is(err, ErrNoHome) || (state == "") != errors.Is(err2, ErrNoHome) {
			t.Errorf("%+v: %q %v, %q %v", c, file, err, state, err2)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "run")
	if _, err := new(Config).Socket(); !errors.Is(err, control.ErrNoRuntimeDir) {
		t.Error(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Clean("/run/user/1"))
	if s, err := new(Config).Socket(); s != "/run/user/1/kortti/agent.sock" {
		t.Error(s, err)
	}
}
