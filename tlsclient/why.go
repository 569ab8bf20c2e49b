package tlsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"time"
)

// errProbed aborts the handshake of Why once the host has said what it wants.
var errProbed = errors.New("probed")

// Why asks a host ("name" or "name:port") what certificates it accepts and
// explains the choice. It presents no certificate, makes no signature and asks
// no person; hosts that are not allowed to use a certificate may be asked too. A
// host that was seen to ask after requests for some places is asked so.
func (t *Transport) Why(ctx context.Context, host string) (Explanation, error) {
	tg, err := newTarget(host)
	if err != nil {
		return Explanation{}, err
	}
	settings := t.settingsNow(tg)
	result := choice{why: Explanation{Host: tg.host}}
	registry := new(wires)
	defer registry.end(errProbed)
	_, err = t.dial(ctx, dialing{
		target: tg, settings: settings, wires: registry, sessions: new(sessions),
		certificate: func(cri *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			result = choose(tg.host, demandOf(cri), t.identities(), settings, time.Now())
			return nil, errProbed
		},
	})
	if err != nil && !errors.Is(err, errProbed) {
		return result.why, err
	}
	if at, known := t.places.asking(tg); known && err == nil {
		var later choice
		err := t.inquire(ctx, at, func(cri *tls.CertificateRequestInfo) error {
			later = choose(tg.host, demandOf(cri), t.identities(), settings, time.Now())
			return errProbed
		})
		if errors.Is(err, errProbed) {
			return later.why, nil
		}
	}
	return result.why, nil
}

// identities returns what is present now, with complete chains.
func (t *Transport) identities() []Identity {
	ids := t.config.Source.Identities()
	for i := range ids {
		ids[i] = ids[i].complete(t.config.Issuers)
	}
	return ids
}
