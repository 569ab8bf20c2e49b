// Package softhsm makes test cards: SoftHSM tokens that behave like a smart
// card in a reader.
//
// A test card is a directory of its own with a token, its keys and
// certificates, and a PKCS#11 library to give to a program as its module. The
// library is a small shim in front of SoftHSM that counts every call, takes the
// card away and puts it back on command, and lets wrong PINs use up tries,
// none of which SoftHSM can do. It also takes on the quirks of real modules
// ([Card.SetQuirks]) and goes wrong on command ([Card.Fault]). What it counts and how it stands is shared by
// all processes that use the card.
//
//	card, err := softhsm.Create(dir, softhsm.Spec{PIN: "1234", Key: softhsm.P384})
//	public, err := card.PublicKey([]byte{softhsm.AuthenticationID})
//	// ... issue a certificate for public ...
//	err = card.ImportCertificate([]byte{softhsm.AuthenticationID}, "authentication", der)
//	// use card.Module() as the PKCS#11 module, then:
//	err = card.Pull()
//	counts, err := card.Counts() // counts["signatures"], counts["C_Login"], ...
//
// The package touches no configuration outside of the card's directory, and
// needs no environment variable. A test card protects nothing: its PIN lies
// beside it. It is for tests and demonstrations, never for a person's key.
package softhsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// KeyType names a kind of key pair that a test card can make.
type KeyType string

// The key types of FINEID cards, old and new.
const (
	RSA2048 KeyType = "rsa2048"
	RSA3072 KeyType = "rsa3072"
	P384    KeyType = "p384"
)

// The CKA_ID of the two keys of a FINEID card (FINEID S4-1).
const (
	AuthenticationID byte = 0x45
	SignatureID      byte = 0x46
)

// The PIN lengths that the shim accepts, as FINEID cards do.
const (
	minPIN = 4
	maxPIN = 12
)

// ErrNoCard says that a directory holds no test card.
var ErrNoCard = errors.New("no test card here")

// ErrExists says that a directory already holds a test card.
var ErrExists = errors.New("there is a test card already")

// Spec says what card to make. Zero fields take the default given.
type Spec struct {
	Label string  // token label, at most 32 bytes; "kortti test card"
	PIN   string  // 4 to 12 characters; "1234"
	SOPIN string  // 4 to 12 characters; "12345678"
	Key   KeyType // of the authentication key, which Create makes; P384
	Tries int     // wrong PINs in a row that lock the card; 5
	NoPSS bool    // an RSA token that knows PKCS #1 v1.5 signatures only
}

// Card is a test card. Its methods may be called concurrently and from several
// processes.
type Card struct {
	dir  string // absolute
	spec Spec
}

// The files of a card's directory. The shim knows the first three by name.
const (
	stateFile   = "state"
	configFile  = "softhsm2.conf"
	softhsmFile = "softhsm2.so"
	moduleFile  = "kortti-testcard.so"
	tokenDir    = "tokens"
	safeFile    = "token.safe" // the shim's copy of what SoftHSM writes to
	recordFile  = "card.json"  // written last: a directory without it holds no card
)

// Create makes a card in dir, which is made if missing, with an authentication
// key ([AuthenticationID]) and no certificate yet. It compiles the shim if this
// user's cache does not have it. An error leaves nothing behind; it wraps
// [ErrExists] if dir holds a card.
func Create(dir string, spec Spec) (*Card, error) {
	spec, err := spec.complete()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("test card: %w", err)
	}
	library, err := findSoftHSM()
	if err != nil {
		return nil, err
	}
	shim, err := buildShim()
	if err != nil {
		return nil, err
	}
	card := &Card{dir: dir, spec: spec}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the test card's directory: %w", err)
	}
	// The state file is the claim: of two that make a card in one directory,
	// one wins.
	if err := createState(card.path(stateFile), spec.Tries, spec.PIN); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%w in %s", ErrExists, dir)
		}
		return nil, fmt.Errorf("make the test card: %w", err)
	}
	if err := card.fill(library, shim); err != nil {
		return nil, errors.Join(fmt.Errorf("make the test card in %s: %w", dir, err), card.remove())
	}
	return card, nil
}

// complete fills in the defaults and refuses what no card can be.
func (s Spec) complete() (Spec, error) {
	if s.Label == "" {
		s.Label = "kortti test card"
	}
	if s.PIN == "" {
		s.PIN = "1234"
	}
	if s.SOPIN == "" {
		s.SOPIN = "12345678"
	}
	if s.Key == "" {
		s.Key = P384
	}
	if s.Tries == 0 {
		s.Tries = 5
	}
	switch {
	case len(s.Label) > 32:
		return s, fmt.Errorf("test card label %q is longer than 32 bytes", s.Label)
	case len(s.PIN) < minPIN || len(s.PIN) > maxPIN || len(s.SOPIN) < minPIN || len(s.SOPIN) > maxPIN:
		return s, fmt.Errorf("a test card's PINs have %d to %d characters", minPIN, maxPIN)
	case !slices.Contains([]KeyType{RSA2048, RSA3072, P384}, s.Key):
		return s, fmt.Errorf("unknown key type %q: use %s, %s or %s", s.Key, RSA2048, RSA3072, P384)
	case s.Tries < 1:
		return s, fmt.Errorf("a test card needs at least one PIN try, not %d", s.Tries)
	case s.NoPSS && s.Key == P384:
		return s, errors.New("a token without PSS is one with RSA keys: choose an RSA key type")
	}
	return s, nil
}

// fill puts everything but the state into the card's directory.
func (c *Card) fill(library, shim string) error {
	if err := os.Mkdir(c.path(tokenDir), 0o700); err != nil {
		return err
	}
	config := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n",
		c.path(tokenDir))
	if c.spec.NoPSS {
		config += "slots.mechanisms = CKM_RSA_PKCS,CKM_RSA_PKCS_KEY_PAIR_GEN\n"
	}
	if err := os.WriteFile(c.path(configFile), []byte(config), 0o600); err != nil {
		return err
	}
	if err := copyFile(c.path(softhsmFile), library); err != nil {
		return err
	}
	if err := copyFile(c.path(moduleFile), shim); err != nil {
		return err
	}
	if err := c.initToken(); err != nil {
		return err
	}
	key, err := c.generate(c.spec.Key, []byte{AuthenticationID}, "authentication key")
	if err != nil {
		return err
	}
	if err := c.ResetCounts(); err != nil {
		return err
	}
	return c.writeRecord(record{Spec: c.spec, Keys: []keyRecord{key}})
}

// Open opens the card that [Create] made in dir. The error wraps [ErrNoCard] if
// there is none.
func Open(dir string) (*Card, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("test card: %w", err)
	}
	card := &Card{dir: dir}
	r, err := card.readRecord()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoCard, dir)
	}
	if err != nil {
		return nil, err
	}
	card.spec = r.Spec
	return card, nil
}

// List opens the cards whose directories lie in root, by name. Directories
// without a card are passed over, and a root that does not exist holds none. An
// error names the cards that cannot be read; the others are returned with it.
func List(root string) ([]*Card, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list test cards: %w", err)
	}
	var cards []*Card
	var bad []error
	for _, e := range entries {
		card, err := Open(filepath.Join(root, e.Name()))
		switch {
		case err == nil:
			cards = append(cards, card)
		case !e.IsDir() || errors.Is(err, ErrNoCard):
		default:
			bad = append(bad, err)
		}
	}
	return cards, errors.Join(bad...)
}

// Delete pulls the card, so that programs which use it see it gone, and removes
// it. Other files in its directory, and the directory with them, stay.
func (c *Card) Delete() error {
	if err := c.Pull(); err != nil {
		return err
	}
	return c.remove()
}

func (c *Card) remove() error {
	var bad []error
	for _, name := range []string{recordFile, moduleFile, softhsmFile, configFile, tokenDir, safeFile, stateFile} {
		bad = append(bad, os.RemoveAll(c.path(name)))
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("remove the test card: %w", err)
	}
	entries, err := os.ReadDir(c.dir)
	if err == nil && len(entries) == 0 {
		err = os.Remove(c.dir)
	}
	if err != nil {
		return fmt.Errorf("remove the test card's directory: %w", err)
	}
	return nil
}

// Name returns the name of the card's directory.
func (c *Card) Name() string { return filepath.Base(c.dir) }

// Dir returns the absolute path of the card's directory.
func (c *Card) Dir() string { return c.dir }

// Spec returns what the card was made as, with the defaults filled in. A PIN
// changed since by other programs is not known here.
func (c *Card) Spec() Spec { return c.spec }

// Module returns the absolute path of the PKCS#11 library of this card. It
// works in any process and environment, and shows one slot, number 0.
func (c *Card) Module() string { return c.path(moduleFile) }

func (c *Card) path(name string) string { return filepath.Join(c.dir, name) }

// record is the file card.json: what was made. Public keys are kept here too,
// so that they can be had without a login, which the card would count.
type record struct {
	Spec Spec
	Keys []keyRecord
}

type keyRecord struct {
	ID     []byte
	Type   KeyType
	Label  string
	Public []byte // PKIX, DER
}

func (c *Card) readRecord() (record, error) {
	var r record
	data, err := os.ReadFile(c.path(recordFile))
	if err != nil {
		return r, fmt.Errorf("read the test card: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read the test card %s: %w", c.path(recordFile), err)
	}
	return r, nil
}

func (c *Card) writeRecord(r record) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write the test card: %w", err)
	}
	return writeFile(c.path(recordFile), data, 0o600)
}
