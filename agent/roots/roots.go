// Package roots makes the certificates with which the proxy speaks TLS to the
// programs on this machine: for each listed host a root of its own with a
// unique name and a critical name constraint to that host. The root signs that
// host's one leaf at once and its key is thrown away, so that nobody can steal
// a key that signs for other hosts; adding a host touches no other one, and
// removal is exact.
//
// What is on disk is one file for each host with the root's certificate, the
// leaf and the leaf's key. A root's key is never written anywhere. The package
// installs nothing in any trust store.
//
//	store, err := roots.Open(dir, nil)
//	root, err := store.Get("asiointi.example.fi")
//	os.Stdout.Write(root.PEM())      // for curl --cacert and for trust stores
//	config.Certificates = []tls.Certificate{root.Leaf}
package roots

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	// Lifetime is how long a root and its leaf are valid. Browsers refuse
	// leaves of more than 398 days.
	Lifetime = 365 * 24 * time.Hour
	// RenewBefore is how long before its end Renew replaces a leaf, root and all.
	RenewBefore = 30 * 24 * time.Hour
	// replaceBefore is how long before its end Get does so, unasked.
	replaceBefore = 24 * time.Hour
)

// ErrCorrupt says that the stored root of a host cannot be used. Nothing is
// made in its place unasked, because the new root would be trusted by no
// program; Delete and Get make a new one.
var ErrCorrupt = errors.New("stored local root is damaged")

// ErrName says that a name is none that a local root can be made for.
var ErrName = errors.New("not a host name that a local root can be made for")

// Root is the local root of one listed host with its one leaf. It must not be
// changed; it is shared.
type Root struct {
	// Host is the listed name: a host, "*." and a domain, or an IP address.
	Host string
	// Certificate is the root.
	Certificate *x509.Certificate
	// Leaf is what the proxy shows to programs, with its key and the root.
	Leaf tls.Certificate
}

// PEM is the root's certificate.
func (r *Root) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: r.Certificate.Raw})
}

// SHA256 is the fingerprint of the root's certificate in lower-case hex.
func (r *Root) SHA256() string {
	sum := sha256.Sum256(r.Certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// NotAfter is the end of the root and of the leaf.
func (r *Root) NotAfter() time.Time { return r.Leaf.Leaf.NotAfter }

// RenewAt is from when on Renew makes a new root and leaf: programs must then be
// given the new root.
func (r *Root) RenewAt() time.Time { return r.NotAfter().Add(-RenewBefore) }

// Store keeps the roots in a directory. It is safe for concurrent use within
// one process; two processes must not write to one directory.
type Store struct {
	dir  string
	made func(root *Root, renewed bool)
	now  func() time.Time

	mu    sync.Mutex       // guards cache and the files
	cache map[string]*Root // by Root.Host
}

// Open makes the directory if need be, for the user alone (0700). The function
// made, which may be nil, is told of every root that Get makes and whether it
// took the place of one that came to its end: the person must install it. It
// must not call the Store.
func Open(dir string, made func(root *Root, renewed bool)) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the local roots: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot use the directory of the local roots: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cannot close the directory of the local roots to others: %w", err)
		}
	}
	if err := tidy(dir); err != nil {
		return nil, fmt.Errorf("cannot tidy the directory of the local roots: %w", err)
	}
	if made == nil {
		made = func(*Root, bool) {}
	}
	return &Store{dir: dir, made: made, now: time.Now, cache: map[string]*Root{}}, nil
}

// tidy removes what a crash in the middle of a write has left: it holds a key.
func tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if left, _ := filepath.Match(unfinished, e.Name()); !left { // the pattern is a good one
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Get returns the root of a listed host, and makes it where there is none or
// where the leaf ends within a day. The name is a host, "*." and a domain
// of at least two labels, or an IP address; a port after it is ignored, as one
// root serves all ports. It returns ErrName or ErrCorrupt, or an error of the
// file system.
func (s *Store) Get(name string) (*Root, error) { return s.get(name, replaceBefore) }

// Renew is Get, but makes a new root already where the leaf ends within
// RenewBefore. It is for when programs are given the root: no program trusts
// the new one before that, so it is not made behind their back.
func (s *Store) Renew(name string) (*Root, error) { return s.get(name, RenewBefore) }

// get makes a new root where the leaf ends within the given time.
func (s *Store) get(name string, before time.Duration) (*Root, error) {
	host, err := normalise(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	root := s.cache[host]
	if root == nil {
		root, err = load(s.file(host), host)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if root != nil && s.now().Before(root.NotAfter().Add(-before)) {
		s.cache[host] = root
		return root, nil
	}
	renewed := root != nil
	root, err = create(host, s.now())
	if err != nil {
		return nil, err
	}
	if err := save(s.file(host), root); err != nil {
		return nil, err
	}
	s.cache[host] = root
	s.made(root, renewed)
	return root, nil
}

// Delete removes the root of a listed host with its leaf and key, damaged or
// not, and nothing else. A host without one is no error.
func (s *Store) Delete(name string) error {
	host, err := normalise(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cache, host)
	if err := os.Remove(s.file(host)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the local root of %s: %w", host, err)
	}
	return nil
}

// Hosts lists the hosts that have a root, damaged ones included, in order.
func (s *Store) Hosts() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the local roots: %w", err)
	}
	var hosts []string
	for _, e := range entries {
		escaped, ok := strings.CutSuffix(e.Name(), fileSuffix)
		if !ok {
			continue
		}
		host, err := url.QueryUnescape(escaped)
		if err != nil {
			continue
		}
		if own, err := normalise(host); err == nil && own == host {
			hosts = append(hosts, host)
		}
	}
	sort.Strings(hosts)
	return hosts, nil
}

const (
	fileSuffix = ".pem"
	unfinished = ".*" + fileSuffix + ".*" // as package atomicfile names them
)

func (s *Store) file(host string) string {
	return filepath.Join(s.dir, url.QueryEscape(host)+fileSuffix)
}
