package card

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/card/internal/openscconf"
	"github.com/kortti-id/kortti/card/internal/wire"
)

const debianOpenSC = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"

// loadWith returns what a child gets to read where the system's configuration is
// text, and the log.
func loadWith(t *testing.T, text string, role openscRole, ignored []string, readers ...string) (*openscconf.File, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "opensc.conf")
	check(t, os.WriteFile(name, []byte(text), 0o600))
	t.Setenv("OPENSC_CONF", name)
	var log bytes.Buffer
	m := &Manager{config: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	for _, name := range readers {
		m.readers = append(m.readers, wire.Reader{Name: name})
	}
	request, body := m.loadRequest(debianOpenSC, role, ignored)
	if request.Op != wire.Load || request.Path != debianOpenSC {
		t.Errorf("request = %+v", request)
	}
	if body == nil {
		return nil, log.String()
	}
	settings, err := openscconf.Parse(body)
	check(t, err)
	return settings, log.String()
}

func TestOpenSCRoles(t *testing.T) {
	system := `app default { ignored_readers = "SPR"; debug = 9; framework pkcs15 { use_pin_caching = true; use_file_caching = public; } pkcs11 { atomic = true; } }`
	type values struct{ caching, atomic, debug, unblock string }
	for role, want := range map[openscRole]values{
		openscLister:    {"true", "true", "9", ""},
		openscSigner:    {"false", "false", "0", ""},
		openscChanger:   {"false", "false", "0", "none"},
		openscUnblocker: {"false", "false", "0", "set_pin_in_unlogged_session"},
	} {
		settings, _ := loadWith(t, system, role, []string{"A 00 01"}, "A 00 00", "A 00 01")
		get := func(p openscconf.Place, key string) string {
			return strings.Join(settings.Effective(p, key, openscApps(debianOpenSC)...), ",")
		}
		got := values{get(pkcs15Block, "use_pin_caching"), get(pkcs11Block, "atomic"), get(openscconf.Place{}, "debug"), get(pkcs11Block, "user_pin_unblock_style")}
		if got != want {
			t.Errorf("role %d: %+v, want %+v", role, got, want)
		}
		if ignored := get(openscconf.Place{}, "ignored_readers"); ignored != "SPR,A 00 01" {
			t.Errorf("role %d: ignored_readers = %q", role, ignored)
		}
		if cached := get(pkcs15Block, "use_file_caching"); cached != "no" {
			t.Errorf("role %d: use_file_caching = %q", role, cached)
		}
	}
}

// Other modules are not OpenSC's business.
func TestOpenSCLeftAlone(t *testing.T) {
	m := &Manager{}
	for path, ignored := range map[string][]string{
		"/usr/lib/softhsm/libsofthsm2.so": {"A 00 00"}, "/usr/lib64/libcryptoki.so": {"A 00 00"},
	} {
		if _, body := m.loadRequest(path, openscLister, ignored); body != nil {
			t.Errorf("%s: %s", path, body)
		}
	}
	if _, body := m.loadRequest("/usr/lib64/libcryptoki.so", openscSigner, []string{"A 00 00"}); body != nil {
		t.Errorf("another module's signer: %s", body)
	}
}

// OpenSC looks for the entries anywhere in a reader's name.
func TestOpenSCNeverIgnoresAWantedReader(t *testing.T) {
	for _, c := range []struct{ readers, ignored, want []string }{
		{[]string{"Reader 1", "Reader 10", "Other"}, []string{"Reader 1", "Other"}, []string{"Other"}},
		{[]string{"Reader 1", "Reader 10"}, []string{"Reader 10"}, []string{"Reader 10"}},
		{[]string{"A", `B "x"`, "C"}, []string{`B "x"`, "C", ""}, []string{"C"}},
	} {
		settings, _ := loadWith(t, "", openscSigner, c.ignored, c.readers...)
		if got := settings.Effective(openscconf.Place{}, "ignored_readers", "default"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q of %q: ignored %q, want %q", c.ignored, c.readers, got, c.want)
		}
	}
}

// Of a file that OpenSC refuses it uses nothing; nor do we, and say so.
func TestOpenSCUnusableFile(t *testing.T) {
	settings, log := loadWith(t, "app default { ignored_readers = \"SPR\"; ", openscSigner, nil)
	if log != "" || len(settings.Effective(openscconf.Place{}, "ignored_readers", "default")) != 1 {
		t.Errorf("a block that is open at the end: %s %s", settings.Write(), log)
	}
	for name, text := range map[string]string{"refused": "app default { } }", "too large": strings.Repeat("#", maxOpenSCFile+1)} {
		settings, log := loadWith(t, text, openscSigner, nil)
		if got := settings.Effective(pkcs15Block, "use_pin_caching", "default"); !reflect.DeepEqual(got, []string{"false"}) {
			t.Errorf("%s: use_pin_caching = %q", name, got)
		}
		if !strings.Contains(log, "level=WARN") {
			t.Errorf("%s: nothing in the log: %q", name, log)
		}
	}
}

func TestOpenSCFiles(t *testing.T) {
	for module, want := range map[string]string{
		debianOpenSC:                               "/etc/opensc/opensc.conf",
		"/usr/lib64/opensc-pkcs11.so":              "/etc/opensc/opensc.conf",
		"/lib64/opensc-pkcs11.so":                  "/etc/opensc/opensc.conf",
		"/usr/local/lib/opensc-pkcs11.so":          "/usr/local/etc/opensc.conf",
		"/Library/OpenSC/lib/opensc-pkcs11.so":     "/Library/OpenSC/etc/opensc.conf",
		"/opt/x/lib64/pkcs11/onepin-opensc-pkcs11": "/opt/x/etc/opensc.conf",
		"opensc-pkcs11.so":                         "/etc/opensc/opensc.conf",
	} {
		if got := openscFiles(module)[0]; got != want {
			t.Errorf("%s: %s, want %s", module, got, want)
		}
	}
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, "lib"), 0o700))
	module, link := filepath.Join(dir, "lib/onepin-opensc-pkcs11.so"), filepath.Join(dir, "lib/card.so")
	check(t, os.WriteFile(module, nil, 0o600))
	check(t, os.Symlink(module, link))
	if !isOpenSC(link) || openscApps(link)[1] != "onepin-opensc-pkcs11" {
		t.Errorf("through a link: %v %v", isOpenSC(link), openscApps(link))
	}
	if os.Getenv("OPENSC_CONF") != "" {
		t.Fatal("OPENSC_CONF is set")
	}
	real := filepath.Join(realPath(dir), "etc/opensc.conf")
	if name, ours := openscFile(link); name != real || ours {
		t.Errorf("%s %v, want %s", name, ours, real)
	}
	t.Setenv("OPENSC_CONF", "")
	if name, ours := openscFile(link); name != "" || !ours { // as OpenSC has it
		t.Errorf("%s %v with an empty OPENSC_CONF", name, ours)
	}
}
