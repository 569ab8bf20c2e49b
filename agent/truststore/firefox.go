package truststore

import (
	"bufio"
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mozilla are the folders, below the home folder, in which Firefox and its kin
// have profiles.ini.
var mozilla = []struct{ name, folder string }{
	{firefoxName, ".mozilla/firefox"},
	{firefoxName, ".config/mozilla/firefox"}, // new installations since Firefox 147
	{firefoxName + " (snap)", "snap/firefox/common/.mozilla/firefox"},
	{firefoxName + " (snap)", "snap/firefox/common/.config/mozilla/firefox"},
	{firefoxName + " (flatpak)", ".var/app/org.mozilla.firefox/.mozilla/firefox"},
	{firefoxName + " (flatpak)", ".var/app/org.mozilla.firefox/config/mozilla/firefox"},
	{"LibreWolf", ".librewolf"},
	{"LibreWolf", ".config/librewolf/librewolf"},
	{"LibreWolf (flatpak)", ".var/app/io.gitlab.librewolf-community/.librewolf"},
	{"Waterfox", ".waterfox"},
	{"Waterfox (flatpak)", ".var/app/net.waterfox.waterfox/.waterfox"},
	{"Floorp", ".floorp"},
	{"Zen", ".zen"},
}

// firefox finds the profiles. A Firefox that is installed but was never started
// comes as a store that is not present.
func (m *Machine) firefox() (stores []Store) {
	for _, at := range mozilla {
		folder := filepath.Join(m.Home, at.folder)
		for _, p := range readProfiles(folder) {
			browser, _, _ := strings.Cut(at.name, " (")
			stores = append(stores, Store{
				Kind: Firefox, Path: p.path, Owner: at.name + ", profile " + p.name, Browser: browser,
				Present: hasDatabase(p.path),
			})
		}
	}
	of := func(owner string) bool {
		return slices.ContainsFunc(stores, func(s Store) bool { return strings.HasPrefix(s.Owner, owner+",") })
	}
	for _, at := range []struct {
		owner, folder string
		installed     bool
	}{
		{firefoxName, ".mozilla/firefox", m.installed("firefox") || m.installed("firefox-esr")},
		{firefoxName + " (snap)", "snap/firefox/common/.mozilla/firefox", m.isFolder("snap/firefox")},
		{firefoxName + " (flatpak)", ".var/app/org.mozilla.firefox/.mozilla/firefox", m.isFolder(".var/app/org.mozilla.firefox")},
	} {
		if at.installed && !of(at.owner) {
			stores = append(stores, Store{Kind: Firefox, Path: filepath.Join(m.Home, at.folder), Owner: at.owner, Browser: firefoxName})
		}
	}
	return stores
}

// NeverStarted says that the browser has no profile yet in which a database
// could be made.
func (s Store) NeverStarted() bool {
	return s.Kind == Firefox && !s.Present && !strings.Contains(s.Owner, ", profile ")
}

// profile is a Firefox profile: a folder that exists.
type profile struct{ name, path string }

// readProfiles lists the profiles that profiles.ini and installs.ini name, in
// that order. What they name without it being there is left out.
func readProfiles(folder string) []profile {
	var found []profile
	for _, file := range []string{"profiles.ini", "installs.ini"} {
		data, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			continue // not there: no Firefox, or one of before Firefox 67
		}
		for _, p := range parseProfiles(data) {
			if !filepath.IsAbs(p.path) {
				p.path = filepath.Join(folder, p.path)
			}
			i := slices.IndexFunc(found, func(q profile) bool { return q.path == p.path })
			switch {
			case i >= 0:
				found[i].name = cmp.Or(found[i].name, p.name)
			case isFolder(p.path):
				found = append(found, p)
			}
		}
	}
	for i := range found {
		found[i].name = cmp.Or(found[i].name, filepath.Base(found[i].path))
	}
	return found
}

// parseProfiles reads profiles.ini ([Profile0] Name, IsRelative, Path and
// [Install…] Default) or installs.ini ([…] Default). Paths are as they stand
// there: absolute, or below the file's folder. An installation has no name.
func parseProfiles(data []byte) (found []profile) {
	var section string
	values := map[string]string{}
	end := func() {
		path := values["Path"]
		if !strings.HasPrefix(section, "Profile") {
			path = values["Default"] // of an installation; in a profile it is a flag
		}
		if path != "" && section != "" && section != "General" && !strings.ContainsRune(path, 0) {
			found = append(found, profile{values["Name"], filepath.Clean(path)})
		}
		clear(values)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			end()
			section = line[1 : len(line)-1]
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, ";") && !strings.HasPrefix(line, "#") {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	end()
	return found
}
