package card

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleDirs hold p11-kit's module files, the later over the earlier
// (pkcs11.conf(5)).
var moduleDirs = []string{"/usr/share/p11-kit/modules", "/etc/pkcs11/modules"}

// libraryDirs are where a relative module path is looked for.
var libraryDirs = []string{
	"/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib/aarch64-linux-gnu/pkcs11",
	"/usr/lib64/pkcs11", "/usr/lib/pkcs11",
	"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib",
}

// vendorPaths are the known places of modules that serve FINEID cards. The
// card makers' own come first: they know a new card before OpenSC does.
var vendorPaths = []string{
	"/usr/lib/Atostek-ID-PKCS11.so",
	"/usr/lib/pkcs11/Atostek-ID-PKCS11.so",
	"/usr/lib64/libcryptoki.so",
	"/usr/lib/libcryptoki.so",
	"/Library/mPolluxDigiSign/libcryptoki.dylib",
	"/usr/lib64/pkcs11/librefineid_pkcs11.so",
	"/usr/local/lib/librefineid_pkcs11.dylib",
	"/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
	"/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
	"/usr/lib64/opensc-pkcs11.so",
	"/Library/OpenSC/lib/opensc-pkcs11.so",
}

// neverDiscovered are parts of library names that "auto" leaves out: proxies
// and spies stand in front of the modules that are found anyway (and
// pkcs11-spy logs PINs), the trust module has no cards, and SoftHSM is for
// those who name it.
var neverDiscovered = []string{"p11-kit-proxy", "p11-kit-client", "p11-kit-trust", "pkcs11-spy", "softhsm"}

// Discover returns the paths of the PKCS#11 modules that "auto" stands for:
// known vendor paths that exist, then what p11-kit's module files name. It
// loads nothing.
func Discover() []string {
	return discover(vendorPaths, moduleDirs, libraryDirs)
}

func discover(vendors, modules, libraries []string) []string {
	var found []string
	seen := map[string]bool{}
	add := func(path string) {
		name := strings.ToLower(filepath.Base(path))
		if slices.ContainsFunc(neverDiscovered, func(s string) bool { return strings.Contains(name, s) }) {
			return
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil || seen[real] {
			return
		}
		seen[real] = true
		found = append(found, path)
	}
	for _, path := range vendors {
		add(path)
	}
	for _, library := range moduleFiles(modules) {
		add(locate(library, libraries))
	}
	return found
}

// moduleFiles returns the libraries that p11-kit's *.module files in dirs name,
// in the order of the files' names. A file in a later directory replaces one of
// the same name in an earlier.
func moduleFiles(dirs []string) []string {
	files := map[string]string{}
	for _, dir := range dirs {
		paths, _ := filepath.Glob(filepath.Join(dir, "*.module")) // fails on a bad pattern only
		for _, path := range paths {
			files[filepath.Base(path)] = path
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var libraries []string
	for _, name := range names {
		if library := moduleLine(files[name]); library != "" {
			libraries = append(libraries, library)
		}
	}
	return libraries
}

// moduleLine returns the value of a module file's "module:" line, or "".
func moduleLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "module" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// locate returns the path of a library as p11-kit would find it.
func locate(library string, dirs []string) string {
	if filepath.IsAbs(library) {
		return library
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, library)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
