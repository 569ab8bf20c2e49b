package card

import (
	"context"
	"crypto"
	"errors"
)

// Manager watches modules, readers and cards, and unlocks and locks cards.
type Manager struct{}

var errNotYet = errors.New("not written yet")

// RunIfChild must be the first line of main and of TestMain.
func RunIfChild() {}

// NewManager starts reading the configured modules.
func NewManager(Config) (*Manager, error) { return nil, errNotYet }

// Close locks all cards and ends all children.
func (*Manager) Close() error { return nil }

// Snapshot returns what is known now. It never blocks on a module.
func (*Manager) Snapshot() Snapshot { return Snapshot{} }

// Subscribe returns a stream of events and the function that ends it.
func (*Manager) Subscribe() (<-chan Event, func()) { return nil, func() {} }

// Wait returns when every module has been read once.
func (*Manager) Wait(context.Context) error { return errNotYet }

// Refresh reads every module again.
func (*Manager) Refresh(context.Context) error { return errNotYet }

// Unlock logs in once with pin, which it takes over and wipes.
func (*Manager) Unlock(context.Context, Fingerprint, *PIN, UnlockOptions) error { return errNotYet }

// Lock ends the unlocked state of a card, or of all ("").
func (*Manager) Lock(card string, reason string) error { return errNotYet }

// Signer returns the key of an unlocked card's certificate.
func (*Manager) Signer(Fingerprint, string) (crypto.MessageSigner, error) { return nil, errNotYet }

// Counters returns the counts since the start.
func (*Manager) Counters() Counters { return Counters{} }
