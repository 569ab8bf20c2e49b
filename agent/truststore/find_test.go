package truststore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// found is a store in one word for each of its facts.
func (m *Machine) found(stores []Store) (list []string) {
	for _, s := range stores {
		below, _ := strings.CutPrefix(s.Path, m.Home+"/")
		text := string(s.Kind) + " " + below + ": " + s.Owner
		if !s.Present {
			text += " -absent"
		}
		if s.Shadowed {
			text += " -shadowed"
		}
		list = append(list, text)
	}
	return list
}

func wantStores(t *testing.T, m *Machine, want ...string) {
	t.Helper()
	got := m.found(m.Find())
	want = append(want, "system : system -absent")
	for _, s := range want {
		if !slices.Contains(got, s) {
			t.Errorf("not found: %s", s)
		}
	}
	for _, s := range got {
		if !slices.Contains(want, s) {
			t.Errorf("found: %s", s)
		}
	}
}

func TestFindNothing(t *testing.T) {
	wantStores(t, newMachine(t))
	wantStores(t, &Machine{Home: "/nonexistent", Look: tools, System: &Store{Kind: System, Owner: "system"}})
}

func TestFindEverything(t *testing.T) {
	m := newMachine(t)
	for _, f := range []string{
		".config/chromium/x", ".config/BraveSoftware/x",
		".pki/nssdb/cert9.db", ".local/share/pki/nssdb/cert9.db",
		"snap/chromium/2987/.pki/nssdb/cert9.db", "snap/chromium/2800/.pki/nssdb/cert9.db",
		"snap/brave/1/x", "snap/hello/5/x", "snap/somebrowser/7/.local/share/pki/nssdb/cert9.db",
		".var/app/org.chromium.Chromium/data/pki/nssdb/cert9.db", ".var/app/com.google.Chrome/x",
		".var/app/org.example.Editor/x", ".var/app/org.example.Browser/.pki/nssdb/cert9.db",
		".mozilla/firefox/a.default/cert9.db", ".mozilla/firefox/old/cert8.db", ".mozilla/firefox/new profile/x",
		".mozilla/firefox/unlisted/cert9.db", "elsewhere/z/cert9.db",
		".config/mozilla/firefox/x.default/cert9.db",
		"snap/firefox/common/.mozilla/firefox/s.default/cert9.db",
		".var/app/org.mozilla.firefox/.mozilla/firefox/f.default/cert9.db",
		".librewolf/l.default/cert9.db",
	} {
		m.write(t, f, "")
	}
	check(t, os.Symlink("2987", filepath.Join(m.Home, "snap/chromium/current")))
	check(t, os.Symlink("1", filepath.Join(m.Home, "snap/brave/current")))
	check(t, os.Symlink("5", filepath.Join(m.Home, "snap/hello/current")))
	check(t, os.Symlink("7", filepath.Join(m.Home, "snap/somebrowser/current")))
	check(t, os.Symlink("nowhere", filepath.Join(m.Home, "snap/firefox/current")))
	m.write(t, ".mozilla/firefox/profiles.ini", "[Install4F96D1932A9F858E]\nDefault=a.default\nLocked=1\n\n"+
		"[Profile1]\nName=old\nIsRelative=1\nPath=old\n[Profile0]\r\nName=Työ\r\nIsRelative=1\r\nPath=a.default\r\nDefault=1\r\n"+
		"[Profile2]\nName=new\nIsRelative=1\nPath=new profile\n[Profile3]\nName=z\nIsRelative=0\nPath="+m.Home+"/elsewhere/z\n"+
		"[Profile4]\nName=gone\nIsRelative=1\nPath=gone\n[General]\nStartWithLastProfile=1\nVersion=2\n")
	m.write(t, ".mozilla/firefox/installs.ini", "[4F96D1932A9F858E]\nDefault=a.default\nLocked=1\n")
	m.write(t, ".config/mozilla/firefox/installs.ini", "[46F492E0ACFF84D4]\nDefault=x.default\n")
	for folder, profile := range map[string]string{
		"snap/firefox/common/.mozilla/firefox": "s.default", ".var/app/org.mozilla.firefox/.mozilla/firefox": "f.default", ".librewolf": "l.default",
	} {
		m.write(t, folder+"/profiles.ini", "[Profile0]\nName=default\nIsRelative=1\nPath="+profile+"\n")
	}
	wantStores(t, m,
		"nss .pki/nssdb: Chromium, Brave",
		"nss .local/share/pki/nssdb: Chromium, Brave -shadowed",
		"nss snap/chromium/current/.pki/nssdb: Chromium (snap)",
		"nss snap/chromium/2800/.pki/nssdb: Chromium (snap, revision 2800)",
		"nss snap/brave/current/.pki/nssdb: Brave (snap) -absent",
		"nss snap/somebrowser/current/.local/share/pki/nssdb: somebrowser (snap)",
		"nss .var/app/org.chromium.Chromium/data/pki/nssdb: Chromium (flatpak)",
		"nss .var/app/com.google.Chrome/.pki/nssdb: Chrome (flatpak) -absent",
		"nss .var/app/org.example.Browser/.pki/nssdb: org.example.Browser (flatpak)",
		"firefox .mozilla/firefox/old: Firefox, profile old",
		"firefox .mozilla/firefox/a.default: Firefox, profile Työ",
		"firefox .mozilla/firefox/new profile: Firefox, profile new -absent",
		"firefox elsewhere/z: Firefox, profile z",
		"firefox .config/mozilla/firefox/x.default: Firefox, profile x.default",
		"firefox snap/firefox/common/.mozilla/firefox/s.default: Firefox (snap), profile default",
		"firefox .var/app/org.mozilla.firefox/.mozilla/firefox/f.default: Firefox (flatpak), profile default",
		"firefox .librewolf/l.default: LibreWolf, profile default",
	)
	for _, s := range m.Find() {
		if want, _, _ := strings.Cut(s.Owner, " ("); s.Kind == Firefox && s.Browser != strings.Split(want, ",")[0] {
			t.Errorf("%s is to be started again for %s", s.Browser, s.Owner)
		}
	}
}

// Only the new place is there: it is the one in use.
func TestFindNewPath(t *testing.T) {
	m := newMachine(t)
	m.write(t, newPath+"/cert9.db", "")
	wantStores(t, m, "nss .local/share/pki/nssdb: Chromium and its kin")
}

// Browsers that are installed but have nothing yet, found by their programs;
// those of snaps have a home folder of their own.
func TestFindInstalled(t *testing.T) {
	m := newMachine(t)
	bin := t.TempDir()
	for _, name := range []string{"google-chrome", "firefox-esr", "snap"} {
		check(t, os.WriteFile(filepath.Join(bin, name), nil, 0o700))
	}
	check(t, os.Symlink("snap", filepath.Join(bin, "chromium")))
	m.Look = func(name string) (string, error) {
		path := filepath.Join(bin, name)
		_, err := os.Stat(path)
		return path, err
	}
	wantStores(t, m, "nss .pki/nssdb: Chrome -absent", "firefox .mozilla/firefox: Firefox -absent")
}

func TestFirefoxThatWasNeverStarted(t *testing.T) {
	m := newMachine(t)
	check(t, os.MkdirAll(filepath.Join(m.Home, "snap/firefox/common"), 0o700))
	check(t, os.MkdirAll(filepath.Join(m.Home, ".var/app/org.mozilla.firefox"), 0o700))
	wantStores(t, m, "firefox snap/firefox/common/.mozilla/firefox: Firefox (snap) -absent",
		"firefox .var/app/org.mozilla.firefox/.mozilla/firefox: Firefox (flatpak) -absent")
}

// A profile that Firefox has made but never opened gets its database.
func TestProfileWithoutDatabase(t *testing.T) {
	m := newMachine(t)
	m.write(t, ".mozilla/firefox/profiles.ini", "[Profile0]\nName=default\nIsRelative=1\nPath=p q\n")
	check(t, os.MkdirAll(filepath.Join(m.Home, ".mozilla/firefox/p q"), 0o755))
	s := m.Find()[0]
	a := newRoot(t, "a.test")
	_, err := m.Install(within(t), s, certs(a), false)
	check(t, err)
	wantList(t, s, line(a))
}

func TestRunningSystemIsFound(t *testing.T) {
	m := newMachine(t)
	m.System = nil
	stores := m.Find()
	if last := stores[len(stores)-1]; last.Kind != System {
		t.Errorf("%+v", last)
	}
}

func FuzzParseProfiles(f *testing.F) {
	f.Add([]byte("[Profile0]\nName=default\nIsRelative=1\nPath=a.default\nDefault=1\n"))
	f.Add([]byte("\ufeff[Install4F]\r\nDefault=a\r\n;x=y\r\n[General]\r\nVersion=2"))
	f.Add([]byte("[4F]\nDefault=../x\n[\n]\nPath=\n=\n[]\nDefault=z"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range parseProfiles(data) {
			if p.path == "" || p.path != filepath.Clean(p.path) || strings.ContainsAny(p.path, "\x00\n") {
				t.Errorf("%q", p)
			}
		}
	})
}
