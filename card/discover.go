package card

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// neverDiscovered are parts of library names that "auto" leaves out: proxies
// and spies stand in front of the modules that are found anyway (and
// pkcs11-spy logs PINs), the trust module has no cards, and SoftHSM is for
// those who name it.
var neverDiscovered = []string{"p11-kit-proxy", "p11-kit-client", "p11-kit-trust", "pkcs11-spy", "softhsm"}

// Discover returns the paths of the PKCS#11 modules that "auto" stands for:
// known products whose modules are installed, then what p11-kit's module files
// name. A module that p11-kit is told to keep from this program (disable-in,
// enable-in) is left out. It loads nothing.
func Discover() []string { return ownFinder().discover() }

// Installed returns the modules of known products that are installed, and
// among them those that "auto" leaves out.
func Installed() []ModuleInfo {
	var found []ModuleInfo
	p := ownFinder()
	for _, v := range p.vendors {
		for _, path := range p.find(v) {
			found = append(found, ModuleInfo{Path: path})
		}
	}
	return found
}

// finder is a platform with a user's own settings.
type finder struct {
	platform
	p11kit p11kit
}

func ownFinder() finder {
	config := os.Getenv("XDG_CONFIG_HOME")
	if home, err := os.UserHomeDir(); !filepath.IsAbs(config) && err == nil {
		config = filepath.Join(home, ".config")
	}
	program := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	return finderOf(platformOf(runtime.GOOS, runtime.GOARCH), config, program)
}

// finderOf adds the user's directory of settings ("" = none) to a platform.
func finderOf(system platform, config, program string) finder {
	kit := p11kit{conf: system.conf, dirs: system.p11kit, program: program}
	if config != "" {
		kit.userConf, kit.userDir = filepath.Join(config, "pkcs11", "pkcs11.conf"), filepath.Join(config, "pkcs11", "modules")
	}
	return finder{system, kit}
}

func (p finder) discover() []string {
	var found []string
	seen := map[string]bool{} // real paths
	add := func(path string) {
		if file := realPath(path); file != "" && !seen[file] && !neverAuto(path) {
			seen[file] = true
			found = append(found, path)
		}
	}
	modules := p.p11kit.modules()
	for _, m := range modules {
		if !m.enabled {
			seen[realPath(p.locate(m.library))] = true
		}
	}
	for _, m := range modules {
		if m.enabled {
			delete(seen, realPath(p.locate(m.library))) // under another name it is for us
		}
	}
	for _, v := range p.vendors {
		for _, path := range p.find(v) {
			add(path)
		}
	}
	for _, m := range modules {
		if m.enabled {
			add(p.locate(m.library))
		}
	}
	return found
}

// realPath returns the path of the file itself, "" if there is none.
func realPath(path string) string {
	if path == "" {
		return ""
	}
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return file
}

func neverAuto(path string) bool {
	name := strings.ToLower(filepath.Base(path))
	return slices.ContainsFunc(neverDiscovered, func(s string) bool { return strings.Contains(name, s) })
}

// find returns the files of a vendor's module that are there, each once.
func (p finder) find(v vendor) []string {
	var found []string
	seen := map[string]bool{}
	for _, file := range v.files {
		candidates := []string{file}
		if !filepath.IsAbs(file) && !strings.Contains(file, `:\`) {
			candidates = nil
			for _, dir := range p.libraries {
				candidates = append(candidates, filepath.Join(dir, file))
			}
		}
		for _, path := range candidates {
			if file := realPath(path); file != "" && !seen[file] {
				seen[file] = true
				found = append(found, path)
			}
		}
	}
	return found
}

// locate returns the path of a library as p11-kit would find it, "" if there is
// none.
func (p finder) locate(library string) string {
	if library == "" || filepath.IsAbs(library) {
		return library
	}
	for _, dir := range p.libraries {
		path := filepath.Join(dir, library)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
