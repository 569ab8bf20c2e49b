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
