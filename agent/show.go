package agent

import (
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid"
)

// CardsOf writes a snapshot in the control API's types.
func CardsOf(s card.Snapshot) control.Cards {
	out := control.Cards{Modules: []control.Module{}, Readers: []control.Reader{}}
	for _, m := range s.Modules {
		shown := control.Module{Path: m.Path, Description: m.Description}
		if m.Err != nil {
			shown.Error, shown.Hint = m.Err.Error(), card.Hint(m.Err)
		}
		out.Modules = append(out.Modules, shown)
	}
	for _, r := range s.Readers {
		shown := control.Reader{Name: r.Name, Module: r.Module}
		if r.Card != nil {
			c := cardOf(r.Card)
			shown.Card = &c
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
			Pad: c.PIN.PinPad, CountLow: c.PIN.CountLow, FinalTry: c.PIN.FinalTry, Locked: c.PIN.Locked,
			Min: c.PIN.Min, Max: c.PIN.Max,
		},
		Certificates: []control.Certificate{},
	}
	for i := range c.Certificates {
		out.Certificates = append(out.Certificates, certificateOf(&c.Certificates[i]))
	}
	return out
}

func certificateOf(c *card.Certificate) control.Certificate {
	out := control.Certificate{
		SHA256: c.Fingerprint.String(), Key: c.KeyType, Login: c.Login, WhyNot: c.WhyNot,
		Purpose: fineid.PurposeOther.String(),
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
