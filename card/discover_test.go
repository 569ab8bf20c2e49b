package card

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDiscover(t *testing.T) {
	dir := t.TempDir()
	file := func(content string, path ...string) string {
		name := filepath.Join(append([]string{dir}, path...)...)
		check(t, os.MkdirAll(filepath.Dir(name), 0o700))
		check(t, os.WriteFile(name, []byte(content), 0o600))
		return name
	}
	vendor := file("", "vendor", "Atostek-ID-PKCS11.so")
	opensc := file("", "lib", "pkcs11", "opensc-pkcs11.so")
	other := file("", "lib", "other.so")
	for _, name := range []string{"p11-kit-proxy.so", "p11-kit-client.so", "p11-kit-trust.so", "pkcs11-spy.so", "libsofthsm2.so"} {
		file("module: "+file("", "lib", name), "share", name+".module")
	}
	check(t, os.Symlink(opensc, filepath.Join(dir, "opensc-again.so")))
	file("# a comment\nmodule: opensc-pkcs11.so\nmanaged: yes\n", "share", "opensc.module")
	file("module: "+filepath.Join(dir, "opensc-again.so"), "share", "opensc-again.module")
	file("module: "+filepath.Join(dir, "gone.so"), "share", "gone.module")
	file("module: "+filepath.Join(dir, "gone.so"), "share", "replaced.module")
	file("  module:  "+other+"  ", "etc", "replaced.module")
	file("priority: 1", "share", "none.module")

	got := discover([]string{vendor, filepath.Join(dir, "missing.so")},
		[]string{filepath.Join(dir, "share"), filepath.Join(dir, "etc"), filepath.Join(dir, "absent")},
		[]string{filepath.Join(dir, "lib", "pkcs11"), filepath.Join(dir, "lib")})
	// Two names of one library count once, under the first.
	want := []string{vendor, filepath.Join(dir, "opensc-again.so"), other}
	if !slices.Equal(got, want) {
		t.Errorf("discover = %q, want %q", got, want)
	}
}
