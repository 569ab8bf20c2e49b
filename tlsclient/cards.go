package tlsclient

import (
	"crypto"
	"crypto/x509"

	"github.com/kortti-id/kortti/card"
)

// FromCards returns the Source of the certificates on the cards of m. Whoever
// makes it forwards the manager's removed and locked events to
// [Transport.End], for each certificate of the card.
func FromCards(m *card.Manager) Source { return cards{m} }

type cards struct{ manager *card.Manager }

func (c cards) Identities() []Identity {
	snapshot := c.manager.Snapshot()
	var out []Identity
	seen := make(map[card.Fingerprint]bool)
	for _, reader := range snapshot.Readers {
		if reader.Card == nil {
			continue
		}
		for _, cert := range reader.Card.Certificates {
			if seen[cert.Fingerprint] {
				continue
			}
			seen[cert.Fingerprint] = true
			if holder, best, ok := snapshot.Find(cert.Fingerprint); ok {
				out = append(out, fromCard(holder, best))
			}
		}
	}
	return out
}

func fromCard(holder *card.Card, c *card.Certificate) Identity {
	return Identity{
		Fingerprint: c.Fingerprint,
		Leaf:        c.X509,
		Chain:       append([]*x509.Certificate{c.X509}, c.Chain...),
		Schemes:     c.Schemes,
		MaxVersion:  c.MaxVersion,
		Usable:      c.Login,
		WhyNot:      c.WhyNot,
		Unlocked:    holder.State == card.Unlocked,
		Epoch:       holder.Epoch,
		Card:        holder.ID,
	}
}

func (c cards) Signer(f card.Fingerprint, host string) (crypto.Signer, error) {
	return c.manager.Signer(f, host)
}
