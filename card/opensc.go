package card

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/card/internal/openscconf"
	"github.com/kortti-id/kortti/card/internal/wire"
)

// openscRole is what a child that loads OpenSC is for.
type openscRole int

// The roles. All but a lister get a PIN.
const (
	openscLister openscRole = iota
	openscSigner
	openscChanger   // changes a PIN that is known
	openscUnblocker // sets a new PIN with the PUK
)

// loadRequest returns the request by which a child loads the module at path, and
// its body: for OpenSC the configuration that the child is to use in place of the
// system's, else nothing. The child leaves the PC/SC readers in ignored alone,
// names as PC/SC has them.
func (m *Manager) loadRequest(path string, role openscRole, ignored []string) (wire.Request, []byte) {
	request := wire.Request{Op: wire.Load, Path: path}
	if !isOpenSC(path) {
		return request, nil
	}
	name, _ := openscFile(path)
	settings, err := readOpenSC(name)
	if err != nil {
		m.config.Log.Warn("OpenSC's configuration cannot be used; OpenSC's own standard settings hold", "file", name, "error", err)
		settings = &openscconf.File{}
	}
	m.mu.Lock()
	var wanted []string
	for _, r := range m.readers {
		if !slices.Contains(ignored, r.Name) {
			wanted = append(wanted, r.Name)
		}
	}
	m.mu.Unlock()
	ignoreReaders(settings, ignored, wanted)
	// OpenSC's copies of a card's files go by its serial number, which stays when
	// a card gets new certificates.
	mustSet(settings, pkcs15Block, "use_file_caching", "no", openscApps(path))
	if role != openscLister {
		keepNoPIN(settings, openscApps(path))
	}
	switch role { // what C_SetPIN means
	case openscChanger:
		mustSet(settings, pkcs11Block, "user_pin_unblock_style", "none", openscApps(path))
	case openscUnblocker:
		mustSet(settings, pkcs11Block, "user_pin_unblock_style", "set_pin_in_unlogged_session", openscApps(path))
	}
	return request, settings.Write()
}

// otherReaders returns the PC/SC readers but the one that is a slot's reader.
func (m *Manager) otherReaders(description string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var others []string
	for _, r := range m.readers {
		if !isReader(r.Name, description) {
			others = append(others, r.Name)
		}
	}
	return others
}

// ignoreReaders adds to the readers that OpenSC leaves alone, so that it sends
// nothing to a card that another child works with. OpenSC takes each entry as a
// part of a name: one that is a part of a wanted reader's is left out, as is one
// that the file cannot express.
func ignoreReaders(settings *openscconf.File, ignored, wanted []string) {
	for _, name := range ignored {
		isPart := func(reader string) bool { return strings.Contains(reader, name) }
		if name != "" && !slices.ContainsFunc(wanted, isPart) {
			_ = settings.Add(openscconf.Place{}, "ignored_readers", name)
		}
	}
}

// Blocks of OpenSC's configuration.
var (
	pkcs15Block = openscconf.Place{Block: "framework", Label: "pkcs15"}
	pkcs11Block = openscconf.Place{Block: "pkcs11"}
)

// keepNoPIN has OpenSC neither keep nor log a PIN. By default it keeps it and
// enters it again by itself when another program has reset the card; "atomic",
// where the system has it, does so before every operation; and a debug log holds
// what is sent to the card.
func keepNoPIN(settings *openscconf.File, apps []string) {
	mustSet(settings, pkcs15Block, "use_pin_caching", "false", apps)
	for _, s := range settings.Settings(apps...) {
		switch strings.ToLower(s.Key) {
		case "atomic":
			mustSet(settings, pkcs11Block, "atomic", "false", apps)
		case "debug":
			mustSet(settings, openscconf.Place{}, "debug", "0", apps)
		}
	}
}

// mustSet sets a constant, which the format can express.
func mustSet(settings *openscconf.File, p openscconf.Place, key, value string, apps []string) {
	if err := settings.Set(p, key, value, apps...); err != nil {
		panic(err)
	}
}

// isOpenSC says whether a module is OpenSC's, by the name of its file or of what
// that is a link to.
func isOpenSC(path string) bool {
	named, _ := ModuleInfo{Path: path}.Product()
	product, _ := ModuleInfo{Path: realPath(path)}.Product()
	return named == OpenSC || product == OpenSC
}

// openscApps returns the names of the app blocks that OpenSC looks for in one of
// our children, in its order. OpenSC before 0.24 does not know the first.
func openscApps(module string) []string {
	apps := []string{"opensc-pkcs11", "default"}
	if strings.HasPrefix(filepath.Base(realPath(module)), "onepin-") {
		apps = []string{"onepin-opensc-pkcs11", "default"}
	}
	if program, err := os.Executable(); err == nil {
		apps = slices.Insert(apps, 0, cmp.Or(realPath(program), program))
	}
	return apps
}

// openscFile returns the configuration file that OpenSC uses in our environment,
// and whether the environment names it. Where there is none, it is the one that
// would be used.
func openscFile(module string) (name string, fromEnvironment bool) {
	if name, ok := os.LookupEnv("OPENSC_CONF"); ok {
		return name, true
	}
	candidates := openscFiles(cmp.Or(realPath(module), module))
	for _, name := range candidates {
		if _, err := os.Stat(name); err == nil {
			return name, false
		}
	}
	return candidates[0], false
}

// openscFiles returns where a module's configuration may be; the path is built
// into OpenSC. One that is not the system's own (/usr/local, or macOS's
// /Library/OpenSC) has it beside its library's directory.
func openscFiles(module string) []string {
	for dir := filepath.Dir(module); len(dir) > 1; dir = filepath.Dir(dir) {
		if base := filepath.Base(dir); base == "lib" || base == "lib64" {
			if prefix := filepath.Dir(dir); prefix != "/" && prefix != "/usr" {
				return []string{filepath.Join(prefix, "etc/opensc.conf"), filepath.Join(prefix, "etc/opensc/opensc.conf")}
			}
		}
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "ppc64le": "ppc64le", "s390x": "s390x"}[runtime.GOARCH]
	return []string{
		"/etc/opensc/opensc.conf",          // Debian
		"/etc/opensc-" + machine + ".conf", // Fedora
		"/etc/opensc.conf",
	}
}

// maxOpenSCFile is the largest configuration in bytes that is taken over; the
// commented sample that OpenSC brings has 40 KB.
const maxOpenSCFile = 128 << 10

// readOpenSC reads a configuration; none is as good as an empty one. Where it
// fails OpenSC would use nothing of the file either.
func readOpenSC(name string) (*openscconf.File, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &openscconf.File{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read OpenSC's configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxOpenSCFile+1))
	if err != nil {
		return nil, fmt.Errorf("read OpenSC's configuration: %w", err)
	}
	if len(text) > maxOpenSCFile {
		return nil, fmt.Errorf("read OpenSC's configuration: it is larger than %d bytes", maxOpenSCFile)
	}
	settings, err := openscconf.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read OpenSC's configuration %s: %w", name, err)
	}
	return settings, nil
}
