package card

import (
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/kortti-id/kortti/softhsm"
)

// A card that comes back is ready without its certificates being read again, as
// often as it likes; Refresh reads it all.
func TestAKnownCardIsNotReadAgain(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: 20 * time.Millisecond})
	events, done := m.Subscribe()
	defer done()
	full := c.count(t, "C_GetAttributeValue")
	before := onlyCard(t, m).Certificates
	for range 3 {
		check(t, c.Pull())
		next(t, events, Removed)
		check(t, c.ResetCounts())
		check(t, c.Insert())
		next(t, events, Inserted)
		if light := c.count(t, "C_GetAttributeValue"); light >= full {
			t.Errorf("%d attributes were read again, %d the first time", light, full)
		}
		if !sameCertificates(before, onlyCard(t, m).Certificates) {
			t.Error("the card's certificates have changed")
		}
	}
	check(t, c.ResetCounts())
	check(t, m.Refresh(within(t)))
	if again := c.count(t, "C_GetAttributeValue"); again < full {
		t.Errorf("%d attributes were read by Refresh, %d the first time", again, full)
	}
}

func TestMemory(t *testing.T) {
	m := newMemory()
	token := wire.TokenInfo{Label: "label", Serial: "serial", Mechanisms: []uint{1}, Certificates: []wire.Certificate{{ID: []byte{1}, DER: []byte{2}}}}
	key := tokenKey("module", token)
	light := func() *wire.TokenInfo {
		return &wire.TokenInfo{Mechanisms: []uint{1}, Certificates: []wire.Certificate{{ID: []byte{1}}}}
	}
	if m.knows(key) || m.complete(key, light()) {
		t.Error("it knows what it was never told")
	}
	m.keep(key, token)
	if got := light(); !m.knows(key) || !m.complete(key, got) || len(got.Certificates[0].DER) != 1 {
		t.Error("it does not know what it was told")
	}
	for what, changed := range map[string]*wire.TokenInfo{
		"another id":       {Mechanisms: []uint{1}, Certificates: []wire.Certificate{{ID: []byte{9}}}},
		"one more":         {Mechanisms: []uint{1}, Certificates: []wire.Certificate{{ID: []byte{1}}, {ID: []byte{2}}}},
		"other mechanisms": {Mechanisms: []uint{2}, Certificates: []wire.Certificate{{ID: []byte{1}}}},
		"nothing on it":    {Mechanisms: []uint{1}},
	} {
		if m.complete(key, changed) {
			t.Errorf("%s: taken for the card that is known", what)
		}
	}
	if tokenKey("other", token) == key {
		t.Error("two modules share what they know")
	}
	m.forget(key)
	if m.knows(key) {
		t.Error("forgotten and still known")
	}
	for i := range 3 * maxRemembered {
		m.keep(tokenKey("module", wire.TokenInfo{Serial: string(rune('a' + i))}), token)
	}
	if len(m.cards) > maxRemembered {
		t.Errorf("%d cards are remembered", len(m.cards))
	}
}
