package card

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// maxRemembered bounds the cards that are remembered; a desk has a few.
const maxRemembered = 64

// memory remembers the public certificates of cards that were read, so that a
// card that comes back is ready without its certificates being read again: with
// some modules and readers that takes half a minute. What is remembered is never
// trusted: before a PIN is used, the signer finds the certificate on the card
// itself. It lives in this process alone, as certificates name people.
type memory struct {
	mu    sync.Mutex // guards cards
	cards map[[sha256.Size]byte]remembered
}

// remembered is what a full reading of a token's public objects gave.
type remembered struct {
	certificates []wire.Certificate
	mechanisms   []uint
}

func newMemory() *memory { return &memory{cards: map[[sha256.Size]byte]remembered{}} }

// tokenKey stands for a token, as one module names it.
func tokenKey(module string, t wire.TokenInfo) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", module, t.Label, t.Manufacturer, t.Model, t.Serial))
}

// knows says whether a light reading is worth while.
func (m *memory) knows(key [sha256.Size]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.cards[key]
	return ok
}

// keep remembers a full reading.
func (m *memory) keep(key [sha256.Size]byte, token wire.TokenInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.cards) >= maxRemembered {
		clear(m.cards)
	}
	m.cards[key] = remembered{token.Certificates, token.Mechanisms}
}

// complete puts the remembered certificates into a light reading, or says that
// the card has changed.
func (m *memory) complete(key [sha256.Size]byte, token *wire.TokenInfo) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.cards[key]
	same := func(a, b wire.Certificate) bool { return bytes.Equal(a.ID, b.ID) }
	if !ok || !slices.Equal(known.mechanisms, token.Mechanisms) || !slices.EqualFunc(known.certificates, token.Certificates, same) {
		return false
	}
	token.Certificates = known.certificates
	return true
}

// forget drops a card whose contents are not what was remembered.
func (m *memory) forget(key [sha256.Size]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cards, key)
}
