package agent

import (
	"slices"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/card"
)

func shownCard(id string, login bool, state card.State, prints ...byte) *card.Card {
	c := &card.Card{ID: id, State: state}
	for _, p := range prints {
		c.Certificates = append(c.Certificates, card.Certificate{Fingerprint: card.Fingerprint{p}, DER: []byte{p}, Login: login})
	}
	return c
}

// A card that two modules show is there once, by the slot that it is used
// through; slots of one module stay what they are.
func TestCardsOfOneCardTwoModules(t *testing.T) {
	for _, test := range []struct {
		name  string
		slots []card.Reader
		want  []string // READER:CARD MODULE+OTHERS
	}{
		{"the first can log in", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", true, card.Locked, 1, 2)},
			{Name: "R", Module: "b", Card: shownCard("2", false, card.Locked, 2, 1)},
		}, []string{"R:1 a+b"}},
		{"the second can", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", false, card.Locked, 1)},
			{Name: "Slot 0", Module: "b", Card: shownCard("2", true, card.Locked, 1)},
		}, []string{"Slot 0:2 b+a"}},
		{"an unlocked one counts most", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", true, card.Locked, 1)},
			{Name: "R", Module: "b", Card: shownCard("2", false, card.Unlocked, 1)},
		}, []string{"R:2 b+a"}},
		{"neither", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", false, card.Locked, 1)},
			{Name: "R", Module: "b", Card: shownCard("2", false, card.Locked, 1)},
			{Name: "R", Module: "c", Card: shownCard("3", false, card.Locked, 1)},
		}, []string{"R:1 a+b,c"}},
		{"two PINs of one module", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", true, card.Locked, 1, 2)},
			{Name: "R", Module: "a", Ordinal: 1, Card: shownCard("2", false, card.Locked, 2)},
		}, []string{"R:1 a", "R:2 a"}},
		{"two cards", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", true, card.Locked, 1)},
			{Name: "S", Module: "b", Card: shownCard("2", true, card.Locked, 2)},
		}, []string{"R:1 a", "S:2 b"}},
		{"no certificates are nobody's", []card.Reader{
			{Name: "R", Module: "a", Card: shownCard("1", false, card.Locked)},
			{Name: "R", Module: "b", Card: shownCard("2", false, card.Locked)},
		}, []string{"R:1 a", "R:2 b"}},
		{"empty slots of one reader", []card.Reader{
			{Name: "R", Module: "a"}, {Name: "R", Module: "a", Ordinal: 1}, {Name: "S", Module: "a"}, {Name: "R", Module: "b"},
		}, []string{"R: a", "S: a"}},
		{"empty for one module", []card.Reader{
			{Name: "R", Module: "a"}, {Name: "R", Module: "b", Card: shownCard("1", true, card.Locked, 1)},
		}, []string{"R:1 b"}},
	} {
		var got []string
		for _, r := range CardsOf(card.Snapshot{Readers: test.slots}).Readers {
			id := ""
			if r.Card != nil {
				id = r.Card.ID
			}
			got = append(got, r.Name+":"+id+" "+strings.TrimSuffix(r.Module+"+"+strings.Join(r.Others, ","), "+"))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// What PC/SC sees and no module shows comes with its kind and what to install.
func TestCardsOfUnrecognized(t *testing.T) {
	atr := []byte{0x3b, 0x7f, 0x96, 0, 0, 0x80, 0x31, 0xb8, 0x65, 0xb0, 0x85, 5, 0x10, 0x24, 0x12, 0x24, 0x60, 0x82, 0x90, 0}
	out := CardsOf(card.Snapshot{
		PCSC:         "",
		PCSCReaders:  []card.PCSCReader{{Name: "R", Present: true, ATR: atr}, {Name: "S", Present: true, Mute: true}, {Name: "T"}},
		Unrecognized: []card.Unrecognized{{Reader: "R", ATR: atr}, {Reader: "S", Mute: true}},
	}).PCSC.Readers
	if len(out) != 3 || !out[0].Unrecognized || !strings.Contains(out[0].Kind, "v4.1") || !strings.Contains(out[0].Fix, "OpenSC 0.27") ||
		!out[1].Unrecognized || !strings.Contains(out[1].Fix, "right way round") || out[2].Unrecognized || out[2].Fix != "" {
		t.Errorf("%+v", out)
	}
}
