package agent

import (
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid"
)

// CardsOf writes a snapshot in the control API's types. A card that several
// modules show is there once.
func CardsOf(s card.Snapshot) control.Cards {
	out := control.Cards{Modules: []control.Module{}, Readers: readersOf(s.Readers), PCSC: pcscOf(s)}
	for _, m := range s.Modules {
		shown := control.Module{Path: m.Path, Description: m.Description}
		if m.Err != nil {
			shown.Error, shown.Hint = m.Err.Error(), card.Hint(m.Err)
		}
		out.Modules = append(out.Modules, shown)
	}
	return out
}

// readersOf joins the slots in which modules show the same card, and leaves out
// empty slots of readers that are shown already.
func readersOf(slots []card.Reader) []control.Reader {
	shown := []control.Reader{}
	byReader := map[string]bool{} // a reader's name is shown
	for i, r := range slots {
		if r.Card == nil {
			continue
		}
		byReader[r.Name] = true
		used, others := sameCard(slots, i)
		if used != i {
			continue
		}
		c := cardOf(r.Card)
		shown = append(shown, control.Reader{Name: r.Name, Module: r.Module, Others: others, Card: &c})
	}
	for _, r := range slots {
		if !byReader[r.Name] {
			byReader[r.Name] = true
			shown = append(shown, control.Reader{Name: r.Name, Module: r.Module})
		}
	}
	return shown
}

// sameCard finds the slots, of other modules each, that show the card of slot
// i: those with one of its certificates. It returns the one through which the
// card is used and the modules of the rest.
func sameCard(slots []card.Reader, i int) (used int, others []string) {
	used = i
	for j, r := range slots {
		if j == i || r.Card == nil || r.Module == slots[i].Module || !share(r.Card, slots[i].Card) {
			continue
		}
		if rank(r.Card) > rank(slots[used].Card) || rank(r.Card) == rank(slots[used].Card) && j < used {
			used = j
		}
		if !slices.Contains(others, r.Module) {
			others = append(others, r.Module)
		}
	}
	return used, others
}

func share(a, b *card.Card) bool {
	return slices.ContainsFunc(a.Certificates, func(c card.Certificate) bool {
		return slices.ContainsFunc(b.Certificates, func(d card.Certificate) bool { return c.Fingerprint == d.Fingerprint })
	})
}

// rank orders the ways to one card: the one that is unlocked, then one that can
// log in.
func rank(c *card.Card) int {
	switch {
	case c.State != card.Locked:
		return 2
	case slices.ContainsFunc(c.Certificates, func(c card.Certificate) bool { return c.Login }):
		return 1
	}
	return 0
}

func pcscOf(s card.Snapshot) control.PCSC {
	out := control.PCSC{Error: s.PCSC, Readers: []control.PCSCReader{}}
	for _, r := range s.PCSCReaders {
		shown := control.PCSCReader{Name: r.Name, Present: r.Present, Mute: r.Mute, Exclusive: r.Exclusive, ATR: hex.EncodeToString(r.ATR)}
		kind, known := card.KindOf(r.ATR)
		shown.Kind = kind.Name
		shown.Unrecognized = slices.ContainsFunc(s.Unrecognized, func(u card.Unrecognized) bool { return u.Reader == r.Name })
		switch {
		case !shown.Unrecognized:
		case r.Mute:
			shown.Fix = "Take the card out, clean its contacts and put it in the right way round."
		case r.Exclusive:
			shown.Fix = "Close the other program that uses the card."
		case known:
			shown.Fix = kind.Advice()
		default:
			shown.Fix = "Ask the card's issuer which program with a PKCS#11 module reads it."
		}
		out.Readers = append(out.Readers, shown)
	}
	return out
}

func cardOf(c *card.Card) control.Card {
	out := control.Card{
		ID: c.ID, Label: c.Label, Serial: c.Serial, Manufacturer: c.Manufacturer, Model: c.Model,
		State: control.State(c.State.String()),
		PIN: control.PIN{
			Initialized: c.PIN.Initialized, ToBeChanged: c.PIN.ToBeChanged,
			Pad: c.PIN.PinPad, CountLow: c.PIN.CountLow, FinalTry: c.PIN.FinalTry, Locked: c.PIN.Locked,
			PUKFinalTry: c.PIN.PUKFinalTry, PUKLocked: c.PIN.PUKLocked,
			Min: c.PIN.Min, Max: c.PIN.Max,
		},
		Certificates: []control.Certificate{},
	}
	for i := range c.Certificates {
		shown := certificateOf(&c.Certificates[i])
		shown.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificates[i].DER}))
		out.Certificates = append(out.Certificates, shown)
	}
	return out
}

func certificateOf(c *card.Certificate) control.Certificate {
	out := control.Certificate{
		SHA256: c.Fingerprint.String(), Key: c.KeyType, Login: c.Login, WhyNot: c.WhyNot,
		Purpose: fineid.PurposeOther.String(),
	}
	if c.Login {
		out.TLS = strings.TrimPrefix(tls.VersionName(c.MaxVersion), "TLS ")
	}
	if c.X509 == nil {
		return out
	}
	out.Subject, out.Issuer = fineid.DistinguishedName(c.X509.Subject), c.X509.Issuer.CommonName
	out.Serial = c.X509.SerialNumber.Text(16)
	out.NotBefore, out.NotAfter = c.X509.NotBefore, c.X509.NotAfter
	out.Name = c.X509.Subject.CommonName
	// What is no FINeID certificate is shown by its common name.
	if id, err := fineid.Parse(c.X509); err == nil {
		out.Purpose = id.Purpose.String()
		if name := strings.TrimSpace(id.GivenName + " " + id.Surname); name != "" {
			out.Name = name
		}
	}
	return out
}
