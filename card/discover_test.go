package card

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes files below a new directory, by their paths there.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		name := filepath.Join(dir, path)
		check(t, os.MkdirAll(filepath.Dir(name), 0o700))
		check(t, os.WriteFile(name, []byte(strings.ReplaceAll(content, "DIR", dir)), 0o600))
	}
	return dir
}

// testFinder looks below dir: lib/pkcs11, lib; etc over share; home/pkcs11.
func testFinder(dir string) finder {
	in := func(path string) string { return filepath.Join(dir, path) }
	return finderOf(platform{
		vendors:   []vendor{{AtostekID, []string{"Atostek-ID-PKCS11.so"}}, {OpenSC, []string{in("absent.so"), "opensc-pkcs11.so"}}},
		libraries: []string{in("lib/pkcs11"), in("lib")},
		p11kit:    []string{in("etc"), in("share"), in("absent")}, conf: in("pkcs11.conf"),
	}, in("home"), "kortti")
}

func TestDiscover(t *testing.T) {
	files := map[string]string{
		"lib/Atostek-ID-PKCS11.so": "", "lib/pkcs11/opensc-pkcs11.so": "", "lib/other.so": "",
		"lib/first.so": "", "lib/mine.so": "", "lib/user.so": "",
		"share/opensc.module":                 "# a comment\n\nmodule: opensc-pkcs11.so\nmanaged: yes\n",
		"share/again.module":                  "module: DIR/lib/again.so\n",
		"share/gone.module":                   "module: DIR/gone.so",
		"share/replaced.module":               "module: DIR/gone.so",
		"etc/replaced.module":                 "  module :  DIR/lib/other.so  ",
		"share/none.module":                   "priority: 1",
		"share/remote.module":                 "remote: |ssh somewhere p11-kit remote",
		"share/first.module":                  "module: first.so\npriority: 5\n",
		"share/browser.module":                "module: DIR/lib/browser.so\nenable-in: firefox, chromium\n",
		"share/not-us.module":                 "module: DIR/lib/not-us.so\ndisable-in: seahorse kortti\n",
		"share/both.module":                   "module: DIR/lib/mine.so\nenable-in: kortti\ndisable-in: kortti\n",
		"share/broken.module":                 "module: DIR/lib/broken.so\nthis is no setting\n",
		"share/section.module":                "[p11-kit]\nmodule: DIR/lib/section.so\n",
		"share/empty.module":                  "",
		"share/switched.module":               "module: DIR/lib/switched.so\n",
		"home/pkcs11/modules/switched.module": "disable-in: kortti\n",
		"home/pkcs11/modules/user.module":     "module: user.so\npriority: 9",
		"lib/browser.so":                      "", "lib/not-us.so": "", "lib/broken.so": "", "lib/section.so": "", "lib/switched.so": "",
	}
	for _, name := range []string{"p11-kit-proxy.so", "p11-kit-client.so", "p11-kit-trust.so", "pkcs11-spy.so", "libsofthsm2.so"} {
		files["lib/"+name], files["share/"+name+".module"] = "", "module: "+name
	}
	dir := tree(t, files)
	check(t, os.Symlink("pkcs11/opensc-pkcs11.so", filepath.Join(dir, "lib/again.so")))
	in := func(names ...string) (paths []string) {
		for _, name := range names {
			paths = append(paths, filepath.Join(dir, "lib", name))
		}
		return paths
	}

	// Two names of one library count once, under the first.
	want := in("Atostek-ID-PKCS11.so", "pkcs11/opensc-pkcs11.so", "user.so", "first.so", "mine.so", "other.so")
	if got := testFinder(dir).discover(); !slices.Equal(got, want) {
		t.Errorf("discover = %q, want %q", got, want)
	}
}

// A product whose module p11-kit keeps from us is not found by its usual place
// either, unless another module file is for us.
func TestDiscoverSwitchedOff(t *testing.T) {
	files := map[string]string{"lib/opensc-pkcs11.so": "", "share/opensc.module": "module: opensc-pkcs11.so\ndisable-in: kortti"}
	if got := testFinder(tree(t, files)).discover(); len(got) != 0 {
		t.Errorf("discover = %q, want none", got)
	}
	files["share/opensc-kortti.module"] = "module: opensc-pkcs11.so\nenable-in: kortti"
	if got := testFinder(tree(t, files)).discover(); len(got) != 1 {
		t.Errorf("discover = %q, want one", got)
	}
}

func TestDiscoverUserConfig(t *testing.T) {
	for _, test := range []struct {
		system, user string // user-config in the two pkcs11.conf
		want         []string
	}{
		{"", "", []string{"system.so", "user.so"}}, // merge is p11-kit's default
		{"merge", "", []string{"system.so", "user.so"}},
		{"none", "", []string{"system.so"}},
		{"none", "only", []string{"system.so"}}, // the user cannot turn it on
		{"", "none", []string{"system.so"}},
		{"only", "", []string{"user.so"}},
		{"", "override", []string{"user.so"}},
	} {
		files := map[string]string{
			"lib/system.so": "", "lib/user.so": "",
			"share/system.module": "module: system.so", "home/pkcs11/modules/user.module": "module: user.so",
			"pkcs11.conf": "user-config: " + test.system, "home/pkcs11/pkcs11.conf": "user-config: " + test.user,
		}
		if test.system == "" {
			files["pkcs11.conf"] = "# nothing\n"
		}
		if test.user == "" {
			delete(files, "home/pkcs11/pkcs11.conf")
		}
		var got []string
		for _, path := range testFinder(tree(t, files)).discover() {
			got = append(got, filepath.Base(path))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("user-config %q, user's %q: discover = %q, want %q", test.system, test.user, got, test.want)
		}
	}
}

// The tables of all platforms are whole: SoftHSM is known and never automatic.
func TestPlatforms(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		var products []Product
		for _, v := range platformOf(goos, "amd64").vendors {
			products = append(products, v.product)
			for _, file := range v.files {
				file = file[strings.LastIndexAny(file, `/\`)+1:] // Windows' paths have no base name here
				if product, _ := (ModuleInfo{Path: file}).Product(); product != v.product {
					t.Errorf("%s: %s counts as %q, not as %q", goos, file, product, v.product)
				}
				if neverAuto(file) != (v.product == SoftHSM) {
					t.Errorf("%s: neverAuto(%s) = %v", goos, file, neverAuto(file))
				}
			}
		}
		if !slices.Contains(products, OpenSC) || !slices.Contains(products, SoftHSM) {
			t.Errorf("%s has only %q", goos, products)
		}
	}
	if got := platformOf("linux", "arm64").libraries[0]; got != "/usr/lib/aarch64-linux-gnu/pkcs11" {
		t.Errorf("arm64 libraries begin with %s", got)
	}
}

func FuzzParseP11(f *testing.F) {
	for _, seed := range []string{"module: a.so\n", "# x\n\npriority: 5\r\nmodule : b\n", "[section]\n", ":\n", "a:b:c", "enable-in:\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := parseP11(strings.NewReader(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for name, value := range settings {
			if name == "" || name != strings.TrimSpace(name) || value != strings.TrimSpace(value) || strings.ContainsAny(name+value, "\n") {
				t.Errorf("setting %q: %q", name, value)
			}
			again.WriteString(name + ": " + value + "\n")
		}
		if second, err := parseP11(strings.NewReader(again.String())); err != nil || len(second) != len(settings) {
			t.Errorf("read again: %v, %v", second, err)
		}
	})
}
