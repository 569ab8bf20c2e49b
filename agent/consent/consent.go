// Package consent keeps which programs may use which certificate at which host.
// It guards against sandboxed programs and accidents, not against malware of the
// same user, who could write its file. It asks nobody: that is the prompt's job.
package consent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/internal/atomicfile"
)

// ErrNotFound tells that there is no consent with that ID.
var ErrNotFound = errors.New("no such consent")

// Key is what a consent is for: a program, as Program.Key names it, a host
// without a port, and a certificate's SHA-256 in hex.
type Key struct{ Program, Host, Certificate string }

// ID is a short name for the key, the same at every start.
func (k Key) ID() string {
	sum := sha256.Sum256([]byte(k.Program + "\x00" + k.Host + "\x00" + k.Certificate))
	return hex.EncodeToString(sum[:8])
}

// Program is who asks, as far as it is known.
type Program struct {
	// Path is the proven executable, "" when it could not be proved.
	Path string
	// PID is 0 when the process was not found; Connection then tells the
	// unknown ones apart.
	PID        int
	Connection uint32
}

// unknown is how a program is shown whose executable is not proved.
const unknown = "unknown program"

// fronts run other programs' code under their own name, or pass on what comes
// from elsewhere, as from another machine or a container; consent for one must
// not cover all. Versions may follow the name.
var fronts = []string{
	"python", "node", "nodejs", "deno", "bun", "java", "perl", "ruby", "php", "lua", "guile", "mono", "dotnet",
	"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "pwsh", "tclsh", "wish", "Rscript", "emacs", "gjs", "qemu",
	"ld-linux-x86-64.so", "ld-linux-aarch64.so", "ld-linux.so", "ld-musl-x86_64.so", "ld-musl-aarch64.so",
	"sshd", "sshd-session", "ssh", "pasta", "pasta.avx", "passt", "passt.avx", "slirp4netns", "rootlesskit",
	"socat", "nc", "ncat", "nc.openbsd", "nc.traditional",
}

// Key names the program in consents: by its path or, where the path says too
// little about what runs, by its process or connection.
func (p Program) Key() string {
	switch {
	case p.Rememberable():
		return p.Path
	case p.PID == 0:
		return fmt.Sprintf("%s (connection %d)", p.Shown(), p.Connection)
	}
	return fmt.Sprintf("%s (pid %d)", p.Shown(), p.PID)
}

// Shown is the program's name for people.
func (p Program) Shown() string {
	if p.Path == "" {
		return unknown
	}
	return p.Path
}

// Rememberable tells whether the path stands for one program, so that a consent
// may outlive the process.
func (p Program) Rememberable() bool {
	if p.Path == "" {
		return false
	}
	base := strings.TrimRight(filepath.Base(p.Path), "0123456789.-")
	return !slices.Contains(fronts, base)
}

// Store holds consents: remembered ones in a file, others until the card is
// locked or removed. It is safe for concurrent use.
type Store struct {
	path string

	mu   sync.Mutex // guards all, and the file
	all  map[Key]control.Consent
	save func(path string, data []byte) error
}

// Open reads the file, which may be missing. A damaged file is an error: to
// take it for empty would forget without a word what the person decided.
func Open(path string) (*Store, error) {
	s := &Store{path: path, all: make(map[Key]control.Consent), save: atomicfile.Write}
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the consents: %w", err)
	}
	list, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("read the consents in %s: %w; delete the file to be asked anew", path, err)
	}
	for _, c := range list {
		c.Remembered = true
		s.put(c)
	}
	return s, nil
}

// parse reads the content of the file.
func parse(raw []byte) ([]control.Consent, error) {
	var list []control.Consent
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	for _, c := range list {
		if c.Program == "" || c.Host == "" || c.Card == "" {
			return nil, errors.New("an entry without program, host or card")
		}
	}
	return list, nil
}

// Allowed tells whether there is a consent for the key.
func (s *Store) Allowed(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.all[k]
	return ok
}

// Allow adds consents. Remembered ones are written to the file first; if that
// fails, nothing is allowed.
func (s *Store) Allow(remember bool, keys ...Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(remember, func() {
		for _, k := range keys {
			if !s.all[k].Remembered {
				s.put(control.Consent{Program: k.Program, Host: k.Host, Card: k.Certificate, Since: time.Now().UTC(), Remembered: remember})
			}
		}
	})
}

// List returns the consents, oldest first.
func (s *Store) List() []control.Consent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list(func(control.Consent) bool { return true })
}

// Delete takes back the consent with the ID, or all ("").
func (s *Store) Delete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.list(func(c control.Consent) bool { return id == "" || c.ID == id })
	if id != "" && len(gone) == 0 {
		return fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	return s.change(true, func() {
		for _, c := range gone {
			delete(s.all, keyOf(c))
		}
	})
}

// End ends what was allowed for a certificate until its lock or removal.
func (s *Store) End(certificate string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.all {
		if k.Certificate == certificate && !c.Remembered {
			delete(s.all, k)
		}
	}
}

// change does the change, writes the file when that is asked for, and takes the
// change back when it cannot be written.
func (s *Store) change(write bool, do func()) error {
	before := make(map[Key]control.Consent, len(s.all))
	for k, c := range s.all {
		before[k] = c
	}
	do()
	if !write {
		return nil
	}
	raw, err := json.MarshalIndent(s.list(func(c control.Consent) bool { return c.Remembered }), "", "\t")
	if err == nil {
		err = s.save(s.path, append(raw, '\n'))
	}
	if err != nil {
		s.all = before
	}
	return err
}

func (s *Store) put(c control.Consent) {
	k := keyOf(c)
	c.ID = k.ID()
	s.all[k] = c
}

func (s *Store) list(keep func(control.Consent) bool) []control.Consent {
	list := []control.Consent{}
	for _, c := range s.all {
		if keep(c) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b control.Consent) int {
		if d := a.Since.Compare(b.Since); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

func keyOf(c control.Consent) Key { return Key{c.Program, c.Host, c.Card} }
