// Package truststore puts local roots into the places where the browsers of
// one user look for roots, and takes exactly those out again: the NSS databases
// of Chromium and its kin, the profiles of Firefox and its kin, both also of
// snaps and flatpaks, and, only where the caller says so, the system's store.
//
// It writes with certutil (Debian: libnss3-tools), so everything that it does
// can also be printed for the person to do by hand. It never touches a
// certificate that is not a local root (roots.IsLocal), never asks for a
// password, and never becomes root.
//
//	m := truststore.Machine{Home: home, Files: filepath.Join(state, "trust")}
//	for _, store := range m.Find() {
//		result := m.Install(ctx, store, list, false)
//	}
package truststore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"

	"github.com/kortti-id/kortti/agent/roots"
)

// Kind is how a store is written.
type Kind string

// The kinds of store.
const (
	NSS     Kind = "nss"     // the database of Chromium and its kin
	Firefox Kind = "firefox" // a profile of Firefox or its kin
	System  Kind = "system"  // the folder of the system's own additions
)

// Store is a place where programs look for roots.
type Store struct {
	Kind Kind
	// Path is the database's folder, or the folder of the system's additions.
	Path string
	// Owner says for people whose store it is: "Firefox (snap), profile default".
	Owner string
	// Browser is what must be started again after a change; "" for the system.
	Browser string
	// Present is false where the store must be made first. Install makes it,
	// except that of a Firefox that was never started: then Path is the folder
	// where its profiles will be.
	Present bool
	// Shadowed says that the browser looks at another store instead, because
	// that one exists too.
	Shadowed bool

	update []string // System: what makes programs see the folder's content
}

// Entry is a local root in a store.
type Entry struct {
	// Nickname is the store's name for it, or the file's path.
	Nickname    string
	Certificate *x509.Certificate
	// Trusted is false where the store has it without trusting it.
	Trusted bool
}

// Host is the listed host that the root was made for.
func (e Entry) Host() string { return roots.HostOf(e.Certificate) }

// SHA256 is the root's fingerprint in lower-case hex.
func (e Entry) SHA256() string { return fingerprint(e.Certificate) }

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// Errors that callers explain.
var (
	ErrNoTool    = errors.New("the program certutil is not installed")
	ErrPassword  = errors.New("the store is protected by a primary password")
	ErrReadOnly  = errors.New("the store cannot be written to")
	ErrDatabase  = errors.New("the store's database cannot be read")
	ErrOldFormat = errors.New("the store has the format of an old version (cert8.db)")
	ErrNoProfile = errors.New("there is no profile yet")
	ErrLeft      = errors.New("a root is still in the store after it was removed")
	ErrMissing   = errors.New("a root is not in the store after it was added")
	ErrNeedsRoot = errors.New("the system's store can be changed by root only")
	ErrSystem    = errors.New("this system has no known folder for roots of its own")
)

// hints say what to do about each error.
var hints = []struct {
	err  error
	text string
}{
	{ErrNoTool, "Install it: sudo apt install libnss3-tools (Fedora: sudo dnf install nss-tools, Arch: sudo pacman -S nss, openSUSE: sudo zypper install mozilla-nss-tools)."},
	{ErrPassword, "See the commands with --print and run them yourself: certutil then asks for the password."},
	{ErrReadOnly, "Make the folder and its files your own and writable, then try again."},
	{ErrDatabase, "If the browser works, close it and try again; a damaged database must be repaired or removed first."},
	{ErrOldFormat, "Start a current version of the browser once: it renews the database."},
	{ErrNoProfile, "Start Firefox once, then try again."},
	{ErrLeft, "Close the browser and try again."},
	{ErrMissing, "Close the browser and try again."},
	{ErrNeedsRoot, "Run the commands that are shown."},
	{ErrSystem, "Give the root to each program: kortti trust print HOST"},
}

// Hint says what to do about an error of this package, "" if nothing is known.
func Hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	return ""
}
