package card

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// p11kit reads p11-kit's settings (pkcs11.conf(5)) without p11-kit, which would
// load the modules.
type p11kit struct {
	conf, userConf string   // the files with global settings
	dirs           []string // with module files, the more important first
	userDir        string   // the user's own, over all of dirs
	program        string   // what enable-in and disable-in call us
}

// p11module is one module file's setting.
type p11module struct {
	name     string // of the file, without ".module"
	library  string // "" where the module is no library here
	priority int
	enabled  bool // for this program
}

// modules returns the modules that are set up, those with the highest priority
// first.
func (k p11kit) modules() []p11module {
	dirs := k.dirs
	switch k.userMode() {
	case "merge":
		dirs = append([]string{k.userDir}, dirs...)
	case "only", "override":
		dirs = []string{k.userDir}
	}
	settings := map[string]map[string]string{}
	for _, dir := range dirs {
		paths, _ := filepath.Glob(filepath.Join(dir, "*.module")) // fails on a bad pattern only
		for _, path := range paths {
			mergeSettings(settings, strings.TrimSuffix(filepath.Base(path), ".module"), readP11File(path))
		}
	}
	var modules []p11module
	for name, s := range settings {
		priority, _ := strconv.Atoi(s["priority"]) // 0 where it is no number
		modules = append(modules, p11module{name, s["module"], priority, k.enabled(s)})
	}
	slices.SortFunc(modules, func(a, b p11module) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.name, b.name))
	})
	return modules
}

// mergeSettings adds a less important file's settings to those that are there:
// field by field, as p11-kit does.
func mergeSettings(settings map[string]map[string]string, name string, more map[string]string) {
	if settings[name] == nil {
		settings[name] = map[string]string{}
	}
	for key, value := range more {
		if _, ok := settings[name][key]; !ok {
			settings[name][key] = value
		}
	}
}

// userMode says whether the user's own module files count: "none", "merge" or
// "only". The user may turn them off as well.
func (k p11kit) userMode() string {
	if k.userDir == "" {
		return "none"
	}
	mode := cmp.Or(readP11File(k.conf)["user-config"], "merge")
	if mode == "none" {
		return mode
	}
	return cmp.Or(readP11File(k.userConf)["user-config"], mode)
}

// enabled says whether a module is meant for this program. Where both lists
// are given, p11-kit looks at enable-in only.
func (k p11kit) enabled(settings map[string]string) bool {
	lists := func(key string) (named, given bool) {
		list, given := settings[key]
		names := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
		return slices.Contains(names, k.program), given
	}
	if named, given := lists("enable-in"); given {
		return named
	}
	named, _ := lists("disable-in")
	return !named
}

// maxP11File bounds a settings file, in bytes.
const maxP11File = 64 << 10

// readP11File returns a file's settings, none if it cannot be read or is not
// well-formed.
func readP11File(path string) map[string]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	settings, err := parseP11(io.LimitReader(f, maxP11File))
	if err != nil {
		return nil
	}
	return settings
}

var errP11Line = errors.New(`not "name: value"`)

// parseP11 reads lines of "name: value"; "#" begins a comment line. The last of
// several values counts.
func parseP11(r io.Reader) (map[string]string, error) {
	settings := map[string]string{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" || name[0] == '[' {
			return nil, fmt.Errorf("line %d: %w", n, errP11Line)
		}
		settings[name] = strings.TrimSpace(value)
	}
	return settings, lines.Err()
}
