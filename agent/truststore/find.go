package truststore

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Machine is where stores are looked for. The zero value of all but Home and
// Files is the running system.
type Machine struct {
	// Home is the person's home folder, an absolute path.
	Home string
	// Files is a folder of the caller's for the certificates that the commands
	// name; it is made where needed.
	Files string
	// System is the system's own store; nil means the one that is found.
	System *Store
	// Look finds a program by name, as exec.LookPath does.
	Look func(name string) (string, error)
}

func (m *Machine) look(name string) (string, error) {
	if m.Look != nil {
		return m.Look(name)
	}
	return exec.LookPath(name)
}

// Find lists the stores, the system's last. Those that are there come with
// Present set; where a browser is installed but has none yet, the one that it
// would use comes without.
func (m *Machine) Find() []Store {
	stores := m.chromium()
	stores = append(stores, m.packaged()...)
	stores = append(stores, m.firefox()...)
	stores = m.distinct(stores)
	if m.System != nil {
		return append(stores, *m.System)
	}
	return append(stores, systemStore())
}

// distinct drops stores that are the same folder by another path, as that of
// a snap's current revision is.
func (m *Machine) distinct(stores []Store) []Store {
	seen := map[string]bool{}
	return slices.DeleteFunc(stores, func(s Store) bool {
		path := s.Path
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		again := seen[path]
		seen[path] = true
		return again
	})
}

const (
	chromiumName = "Chromium"
	firefoxName  = "Firefox"

	oldPath = ".pki/nssdb"             // below the home folder
	newPath = ".local/share/pki/nssdb" // of Chromium since 2025, where the old one is not there
)

// kin are the browsers that share Chromium's databases.
var kin = []struct{ name, config, program string }{
	{chromiumName, ".config/chromium", "chromium"},
	{chromiumName, ".config/chromium", "chromium-browser"},
	{"Chrome", ".config/google-chrome", "google-chrome"},
	{"Chrome", ".config/google-chrome", "google-chrome-stable"},
	{"Brave", ".config/BraveSoftware", "brave-browser"},
	{"Edge", ".config/microsoft-edge", "microsoft-edge"},
	{"Vivaldi", ".config/vivaldi", "vivaldi"},
	{"Opera", ".config/opera", "opera"},
}

// chromium finds the databases that Chromium and its kin share, the old place
// and the new one. Where both exist they use the old one.
func (m *Machine) chromium() []Store {
	var names []string
	for _, k := range kin {
		if (m.isFolder(k.config) || m.installed(k.program)) && !slices.Contains(names, k.name) {
			names = append(names, k.name)
		}
	}
	owner := strings.Join(names, ", ")
	if owner == "" {
		owner = chromiumName + " and its kin"
	}
	return m.pair(filepath.Join(m.Home, oldPath), filepath.Join(m.Home, newPath), owner, len(names) > 0)
}

// pair is what there is of an old and a new database of the same browsers; where
// there is none but make is set, the old one, which old and new browsers know.
func (m *Machine) pair(old, renewed, owner string, make bool) (stores []Store) {
	has := hasDatabase(old)
	if has {
		stores = append(stores, Store{Kind: NSS, Path: old, Owner: owner, Browser: chromiumName, Present: true})
	}
	if hasDatabase(renewed) {
		stores = append(stores, Store{Kind: NSS, Path: renewed, Owner: owner, Browser: chromiumName, Present: true, Shadowed: has})
	}
	if len(stores) == 0 && make {
		stores = append(stores, Store{Kind: NSS, Path: old, Owner: owner, Browser: chromiumName})
	}
	return stores
}

// known are the snaps and flatpaks of Chromium's kin.
var known = map[string]string{
	"chromium": chromiumName, "brave": "Brave", "opera": "Opera", "vivaldi": "Vivaldi",
	"org.chromium.Chromium": chromiumName, "io.github.ungoogled_software.ungoogled_chromium": "ungoogled Chromium",
	"com.google.Chrome": "Chrome", "com.google.ChromeDev": "Chrome Dev", "com.brave.Browser": "Brave",
	"com.microsoft.Edge": "Edge", "com.vivaldi.Vivaldi": "Vivaldi", "com.opera.Opera": "Opera",
}

// packaged finds the databases in the homes of snaps and flatpaks: those of
// browsers that are known, and any other that has one. A snap has a home for
// each of the few revisions that are kept; current is a link to one of them.
func (m *Machine) packaged() (stores []Store) {
	for _, current := range m.glob("snap/*/current") {
		name := filepath.Base(filepath.Dir(current))
		stores = append(stores, m.pair(filepath.Join(current, oldPath), filepath.Join(current, newPath), ownerName(name)+" (snap)", known[name] != "")...)
	}
	for _, revision := range m.glob("snap/*/*") {
		name := filepath.Base(filepath.Dir(revision))
		owner := ownerName(name) + " (snap, revision " + filepath.Base(revision) + ")"
		stores = append(stores, m.pair(filepath.Join(revision, oldPath), filepath.Join(revision, newPath), owner, false)...)
	}
	for _, home := range m.glob(".var/app/*") {
		name := filepath.Base(home)
		stores = append(stores, m.pair(filepath.Join(home, oldPath), filepath.Join(home, "data/pki/nssdb"), ownerName(name)+" (flatpak)", known[name] != "")...)
	}
	return stores
}

func ownerName(id string) string {
	if name := known[id]; name != "" {
		return name
	}
	return id
}

// installed says whether a program is, other than as a snap: those do not use
// the person's own home folder.
func (m *Machine) installed(program string) bool {
	path, err := m.look(program)
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return err == nil && filepath.Base(real) != "snap" && !strings.HasPrefix(path, "/snap/")
}

func (m *Machine) isFolder(below string) bool { return isFolder(filepath.Join(m.Home, below)) }

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// glob lists the folders that match a pattern below the home folder, in order.
func (m *Machine) glob(pattern string) []string {
	// The home folder's own name may hold characters of a pattern.
	found := []string{m.Home}
	for _, part := range strings.Split(pattern, "/") {
		var next []string
		for _, folder := range found {
			if part != "*" {
				next = append(next, filepath.Join(folder, part))
				continue
			}
			entries, _ := os.ReadDir(folder) // what cannot be read holds no store for us
			for _, e := range entries {
				next = append(next, filepath.Join(folder, e.Name()))
			}
		}
		found = next
	}
	return slices.DeleteFunc(found, func(path string) bool { return !isFolder(path) })
}

// hasDatabase says whether a folder holds an NSS database of the present or of
// the old format.
func hasDatabase(folder string) bool {
	return exists(filepath.Join(folder, "cert9.db")) || exists(filepath.Join(folder, "cert8.db"))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
