package truststore

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kortti-id/kortti/agent/roots"
)

// trusted are the flags of a root that servers may chain to, and for nothing
// else: a CA for TLS servers; no mail, no code.
const trusted = "C,,"

// row is a line of certutil's list.
type row struct{ nickname, flags string }

// rowPattern is a line of "certutil -L": the nickname, padded, and three groups
// of flags (certutil(1), trust arguments).
var rowPattern = regexp.MustCompile(`^(.*\S)\s+([pPcCTuw]*,[pPcCTuw]*,[pPcCTuw]*)\s*$`)

func parseList(out []byte) (rows []row) {
	for _, line := range strings.Split(string(out), "\n") {
		if m := rowPattern.FindStringSubmatch(line); m != nil {
			rows = append(rows, row{m[1], m[2]})
		}
	}
	return rows
}

// mayBeLocal tells rows that are worth a closer look: what browsers and certutil
// call our roots begins with the subject's name, and whatever a person called
// one, it is of use only as a trusted CA.
func (r row) mayBeLocal() bool {
	server, _, _ := strings.Cut(r.flags, ",")
	return strings.HasPrefix(r.nickname, roots.NamePrefix) || strings.ContainsAny(server, "CT")
}

func (r row) trusted() bool {
	server, _, _ := strings.Cut(r.flags, ",")
	return strings.Contains(server, "C")
}

// listNSS lists the local roots of a database.
func (m *Machine) listNSS(ctx context.Context, s Store) ([]Entry, error) {
	if !s.Present {
		return nil, nil
	}
	if err := m.checkFormat(s); err != nil {
		return nil, err
	}
	out, err := m.certutil(ctx, "-L", "-d", database(s))
	if err != nil {
		return nil, err
	}
	rows := parseList(out)
	found := &subjects{certificates: map[string][]*x509.Certificate{}, of: map[string]string{}}
	lookUp := func(which func(row) bool) error {
		for _, r := range rows {
			if _, known := found.of[r.nickname]; known || !which(r) {
				continue
			}
			out, err := m.certutil(ctx, "-L", "-d", database(s), "-n", r.nickname, "-a")
			if errors.Is(err, errNoNickname) && !strings.HasPrefix(r.nickname, roots.NamePrefix) {
				continue // none of ours
			}
			if err != nil {
				return err
			}
			found.add(r.nickname, certificates(out))
		}
		return nil
	}
	if err := lookUp(row.mayBeLocal); err != nil {
		return nil, err
	}
	entries, complete := found.local(rows)
	if !complete {
		err = lookUp(func(row) bool { return true })
		entries, _ = found.local(rows)
	}
	return entries, err
}

// subjects are certificates by what they are issued to. NSS finds a nickname's
// certificate, takes its subject, and lists all that have it, whatever their
// nicknames are: so the certificates of one subject have as many rows, but which
// row is whose is not told.
type subjects struct {
	order        []string
	certificates map[string][]*x509.Certificate // by subject
	of           map[string]string              // subjects by nickname
}

func (f *subjects) add(nickname string, list []*x509.Certificate) {
	f.of[nickname] = ""
	for _, c := range list {
		subject := string(c.RawSubject)
		f.of[nickname] = subject
		if f.certificates[subject] == nil {
			f.order = append(f.order, subject)
		}
		if !contains(f.certificates[subject], c) {
			f.certificates[subject] = append(f.certificates[subject], c)
		}
	}
}

// local gives the local roots, each with one of its subject's rows. They count
// as trusted if all of the subject are. It is not complete while rows of a local
// root's subject have not been looked up, because their nicknames are none of ours.
func (f *subjects) local(rows []row) (entries []Entry, complete bool) {
	complete = true
	for _, subject := range f.order {
		list := f.certificates[subject]
		if !roots.IsLocal(list[0]) {
			continue
		}
		var names []string
		trusted := true
		for _, r := range rows {
			if f.of[r.nickname] == subject {
				names, trusted = append(names, r.nickname), trusted && r.trusted()
			}
		}
		complete = complete && len(names) == len(list)
		for i, c := range list[:min(len(list), len(names))] {
			entries = append(entries, Entry{Nickname: names[i], Certificate: c, Trusted: trusted})
		}
	}
	return entries, complete
}

// certificates are those of a PEM text; what is no certificate is left out.
func certificates(text []byte) (list []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			list = append(list, c)
		}
	}
	return list
}

func (m *Machine) checkFormat(s Store) error {
	if !exists(filepath.Join(s.Path, "cert9.db")) && exists(filepath.Join(s.Path, "cert8.db")) {
		return fmt.Errorf("%w: %s", ErrOldFormat, s.Path)
	}
	return nil
}

// database is a folder as certutil wants it: with the format, because the
// environment may say another.
func database(s Store) string { return "sql:" + s.Path }

// checkWrite finds out before anything is changed what would fail half-way:
// under a primary password certutil adds a root and then fails to trust it.
// Listing the keys needs the password and shows whether there is one.
func (m *Machine) checkWrite(ctx context.Context, s Store) error {
	if !s.Present {
		return nil
	}
	if err := writable(s.Path, "cert9.db", "key4.db"); err != nil {
		return err
	}
	out, err := m.certutil(ctx, "-K", "-d", database(s))
	if strings.Contains(string(out), "no keys found") {
		return nil // which certutil calls a failure
	}
	return err
}

// planNSS is what brings a database from what it has to what it should: every
// root of want once and trusted, none that drop names. certutil deletes by
// nickname and one certificate at a time, of several with that nickname
// whichever it likes. So all of a subject go, and those that were to stay come
// back.
func (m *Machine) planNSS(s Store, have []Entry, want []*x509.Certificate, drop func(Entry) bool) ([]Command, error) {
	var plan []Command
	if !s.Present {
		if len(want) == 0 {
			return nil, nil
		}
		plan = append(plan,
			Command{Argv: []string{"mkdir", "-p", "-m", "700", filepath.Dir(s.Path), s.Path}},
			Command{Argv: []string{"certutil", "-N", "-d", database(s), "--empty-password"}})
	}
	add := append([]*x509.Certificate(nil), want...)
	for _, group := range bySubject(have) {
		if keeps(group, want, drop) {
			for _, e := range group {
				add = without(add, e.Certificate)
			}
			continue
		}
		for _, e := range group {
			plan = append(plan, Command{Argv: []string{"certutil", "-D", "-d", database(s), "-n", e.Nickname}})
			if !drop(e) && !contains(add, e.Certificate) {
				add = append(add, e.Certificate)
			}
		}
	}
	for _, c := range add {
		file, err := m.file(c)
		if err != nil {
			return nil, err
		}
		plan = append(plan, Command{Argv: []string{"certutil", "-A", "-d", database(s), "-n", nickname(c), "-t", trusted, "-i", file}})
	}
	return plan, nil
}

// keeps says whether all certificates of a subject may stay as they are.
func keeps(group []Entry, want []*x509.Certificate, drop func(Entry) bool) bool {
	for _, e := range group {
		if drop(e) || !e.Trusted && contains(want, e.Certificate) {
			return false
		}
	}
	return true
}

// bySubject groups entries by what they are issued to, in order.
func bySubject(entries []Entry) (groups [][]Entry) {
	place := map[string]int{}
	for _, e := range entries {
		subject := string(e.Certificate.RawSubject)
		i, known := place[subject]
		if !known {
			i = len(groups)
			place[subject], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], e)
	}
	return groups
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, other := range list {
		if other.Equal(c) {
			return true
		}
	}
	return false
}

func without(list []*x509.Certificate, c *x509.Certificate) (rest []*x509.Certificate) {
	for _, other := range list {
		if !other.Equal(c) {
			rest = append(rest, other)
		}
	}
	return rest
}

// nickname is unique for each root.
func nickname(c *x509.Certificate) string {
	return roots.NamePrefix + roots.HostOf(c) + " " + fingerprint(c)[:8]
}
