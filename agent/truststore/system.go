package truststore

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
)

// systems are the folders where an administrator adds roots, with the command
// that makes programs see them. The more particular stand first: Debian's folder
// is made by packages elsewhere too.
var systems = []struct {
	owner, folder string
	update        []string
}{
	{"system (Fedora)", "/etc/pki/ca-trust/source/anchors", []string{"update-ca-trust", "extract"}},
	{"system (Arch)", "/etc/ca-certificates/trust-source/anchors", []string{"update-ca-trust", "extract"}},
	{"system (openSUSE)", "/etc/pki/trust/anchors", []string{"update-ca-certificates"}},
	// --fresh takes the links to files that are gone along.
	{"system (Debian)", "/usr/local/share/ca-certificates", []string{"update-ca-certificates", "--fresh"}},
}

// systemStore is the running system's. It is not Present where none is known.
func systemStore() Store {
	for _, s := range systems {
		if isFolder(s.folder) {
			return Store{Kind: System, Path: s.folder, Owner: s.owner, Present: true, update: s.update}
		}
	}
	return Store{Kind: System, Owner: "system"}
}

// listSystem lists the local roots among the administrator's additions,
// whatever their files are called.
func listSystem(s Store) (list []Entry, err error) {
	if !s.Present {
		return nil, nil
	}
	files, err := os.ReadDir(s.Path)
	if err != nil {
		return nil, fmt.Errorf("read the system's store: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(s.Path, f.Name())
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxAnchor {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			continue // no program can read it either
		}
		// A file with more than a root of ours is somebody else's.
		if own := certificates(data); len(own) == 1 && isLocal(own[0]) && bytes.Count(data, []byte("-----BEGIN")) == 1 {
			list = append(list, Entry{Nickname: path, Certificate: own[0], Trusted: true})
		}
	}
	return list, nil
}

// maxAnchor bounds what is read of one file, in bytes.
const maxAnchor = 64 << 10

// planSystem is planNSS for the system's store: files come and go, and then the
// system's bundles are made anew.
func (m *Machine) planSystem(s Store, have []Entry, want []*x509.Certificate, drop func(Entry) bool) ([]Command, error) {
	var plan []Command
	seen := map[string]bool{}
	for _, e := range have {
		if again := seen[e.SHA256()]; drop(e) || again {
			plan = append(plan, Command{Argv: []string{"rm", "-f", e.Nickname}, Root: true})
			continue
		}
		seen[e.SHA256()] = true
	}
	for _, c := range want {
		if seen[fingerprint(c)] {
			continue
		}
		file, err := m.file(c)
		if err != nil {
			return nil, err
		}
		plan = append(plan, Command{Argv: []string{"install", "-m", "644", file, filepath.Join(s.Path, fileName(c))}, Root: true})
	}
	if len(plan) > 0 {
		plan = append(plan, Command{Argv: s.update, Root: true})
	}
	return plan, nil
}
