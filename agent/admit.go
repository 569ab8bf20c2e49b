package agent

import (
	"context"
	"crypto"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/proxy"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// admit decides whether a program's request to a listed host may go on:
// proxy.Config.Admit.
func (a *Agent) admit(ctx context.Context, r proxy.Asked) (context.Context, error) {
	host, port := splitTarget(r.Host)
	a.settle(ctx)
	who := asker{r, a.cards.Snapshot().Epoch}
	ctx = context.WithValue(ctx, askerKey{}, who)
	if who.Repeats {
		if err := a.holds.look(who); err != nil {
			return ctx, err
		}
	}
	return ctx, a.asking(ctx, func() error { return a.requireConsent(ctx, host, port, a.eligible(host, port)...) })
}

// permit decides whether an admitted request may use the connections of the
// certificate that it has come to: tlsclient.Config.Permit. They are of one time
// that the card was unlocked, which may be over a moment before follow has heard
// of it; and the card may have been put in since the request was admitted.
func (a *Agent) permit(ctx context.Context, host, port string, id tlsclient.Identity) error {
	holder, _, present := a.cards.Snapshot().Find(id.Fingerprint)
	switch {
	case !present:
		a.transport.EndEpoch(id.Fingerprint, id.Epoch, card.ErrRemoved)
		return card.ErrRemoved
	case holder.State != card.Unlocked || holder.Epoch != id.Epoch:
		a.transport.EndEpoch(id.Fingerprint, id.Epoch, card.ErrLocked)
		return card.ErrLocked
	}
	return a.requireConsent(ctx, host, port, id.Fingerprint)
}

// eligible are the certificates that a request may come to use: the one that is
// set or was chosen for the host, or all that can log in. Which of these the
// host accepts is known only after a handshake, which consent comes before.
func (a *Agent) eligible(host, port string) []card.Fingerprint {
	var all []card.Fingerprint
	for _, r := range a.cards.Snapshot().Readers {
		if r.Card == nil {
			continue
		}
		for _, c := range r.Card.Certificates {
			if c.Login {
				all = append(all, c.Fingerprint)
			}
		}
	}
	entry, _ := a.hosts.Lookup(host, port)
	for _, set := range []string{entry.Card, a.choices.get(host)} {
		if f, err := card.ParseFingerprint(set); err == nil && slices.Contains(all, f) {
			return []card.Fingerprint{f}
		}
	}
	return all
}

// requireConsent returns nil when the program of a request may use the
// certificates at the host, and a *mustAsk when the person must be asked.
func (a *Agent) requireConsent(ctx context.Context, host, port string, certs ...card.Fingerprint) error {
	entry, listed := a.hosts.Lookup(host, port)
	if !listed {
		return tlsclient.ErrNotAllowed
	}
	if entry.Consent == config.ConsentAlways || len(a.notAllowed(askerFrom(ctx).program(), host, certs)) == 0 {
		return nil
	}
	return &mustAsk{func(who asker) (prompt.Question, error) {
		program := who.program()
		keys := a.notAllowed(program, host, certs)
		if len(keys) == 0 {
			return prompt.Question{}, errAnswered
		}
		return a.consentQuestion(program, host, keys), nil
	}}
}

// notAllowed are the consents that a program lacks.
func (a *Agent) notAllowed(program consent.Program, host string, certs []card.Fingerprint) []consent.Key {
	var keys []consent.Key
	for _, f := range certs {
		k := consent.Key{Program: program.Key(), Host: host, Certificate: f.String()}
		if !a.consents.Allowed(k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (a *Agent) consentQuestion(program consent.Program, host string, keys []consent.Key) prompt.Question {
	q := prompt.Question{
		Key:    "consent " + program.Key() + " " + host,
		Pause:  "consent " + program.Shown() + " " + host, // a new process or connection is the same to the person
		Prompt: control.Prompt{Kind: control.PromptConsent, Host: host, Program: program.Shown(), ProgramNote: program.Note()},
	}
	var fingerprints []string
	for _, k := range keys {
		fingerprints = append(fingerprints, k.Certificate)
		q.Key += " " + k.Certificate
	}
	q.Candidates = a.certificates(fingerprints)
	if len(q.Candidates) == 1 {
		q.Certificate, q.Name = q.Candidates[0].SHA256, q.Candidates[0].Name
	}
	q.Over = func() bool {
		return !slices.ContainsFunc(keys, func(k consent.Key) bool { return !a.consents.Allowed(k) })
	}
	q.Declined = func(error) {
		a.audit.Write(control.AuditRecord{Decision: audit.ConsentDenied, Host: host, Program: program.Shown(), PID: program.PID})
	}
	q.Try = func(_ context.Context, answer control.Answer) error {
		remember := answer.Remember && program.Rememberable()
		if err := a.consents.Allow(remember, keys...); err != nil {
			return err
		}
		for _, k := range keys {
			record := control.AuditRecord{Decision: audit.Consent, Host: host, Program: program.Shown(), PID: program.PID, Certificate: k.Certificate}
			if !remember {
				record.Reason = "until the card is locked or removed"
			}
			a.audit.Write(record)
		}
		return nil
	}
	return q
}

// certificates are those of the fingerprints that are present, for showing.
func (a *Agent) certificates(fingerprints []string) []control.Certificate {
	snapshot := a.cards.Snapshot()
	var list []control.Certificate
	for _, s := range fingerprints {
		if f, err := card.ParseFingerprint(s); err == nil {
			if _, c, ok := snapshot.Find(f); ok {
				list = append(list, certificateOf(c))
			}
		}
	}
	return list
}

// choose says which certificate the person has chosen where the rules leave
// several, or that they must be asked: tlsclient.Config.Choose.
func (a *Agent) choose(_ context.Context, host string, candidates []tlsclient.Identity, _ tlsclient.Explanation) (card.Fingerprint, error) {
	var fingerprints []string
	for _, c := range candidates {
		fingerprints = append(fingerprints, c.Fingerprint.String())
	}
	if chosen := a.choices.get(host); slices.Contains(fingerprints, chosen) {
		return card.ParseFingerprint(chosen)
	}
	return card.Fingerprint{}, &mustAsk{func(who asker) (prompt.Question, error) {
		q := a.choiceQuestion(who.program(), host, fingerprints)
		if q.Over() {
			return q, errAnswered
		}
		return q, nil
	}}
}

func (a *Agent) choiceQuestion(program consent.Program, host string, fingerprints []string) prompt.Question {
	return prompt.Question{
		Key: "certificate " + host + " " + strings.Join(fingerprints, " "),
		Prompt: control.Prompt{
			Kind: control.PromptCertificate, Host: host, Program: program.Shown(), ProgramNote: program.Note(),
			Candidates: a.certificates(fingerprints),
		},
		Over: func() bool { return slices.Contains(fingerprints, a.choices.get(host)) },
		Try: func(_ context.Context, answer control.Answer) error {
			a.audit.Write(control.AuditRecord{Decision: audit.Chosen, Host: host, Program: program.Shown(), PID: program.PID, Certificate: answer.Certificate})
			return a.choices.put(host, answer.Certificate, answer.Remember)
		},
	}
}

// hostSettings are a listed host's settings: tlsclient.Config.HostSettings.
func (a *Agent) hostSettings(host, port string) tlsclient.HostSettings {
	entry, listed := a.hosts.Lookup(host, port)
	s := tlsclient.HostSettings{Allowed: listed, Address: entry.Address, RootCAs: entry.Roots}
	if f, err := card.ParseFingerprint(entry.Card); err == nil {
		s.Pin = &f
	}
	return s
}

// recorder writes each proof that a card makes into the audit file.
type recorder struct {
	tlsclient.Source
	agent *Agent
}

func (r recorder) Signer(f card.Fingerprint, host string) (crypto.Signer, error) {
	key, err := r.Source.Signer(f, host)
	if proofs, ok := key.(crypto.MessageSigner); ok && err == nil {
		return recordedKey{proofs, r.agent, f.String(), host}, nil
	}
	return key, err
}

type recordedKey struct {
	crypto.MessageSigner
	agent             *Agent
	certificate, host string
}

func (k recordedKey) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := k.MessageSigner.SignMessage(rand, message, opts)
	if err == nil {
		k.agent.audit.Write(control.AuditRecord{Decision: audit.Signature, Host: k.host, Certificate: k.certificate})
		k.agent.events.publish(control.Event{Kind: control.EventSignature, Certificate: k.certificate, Host: k.host})
	}
	return signature, err
}

// splitTarget splits "host" or "host:port"; the port of https is the default.
func splitTarget(hostport string) (host, port string) {
	if host, port, err := net.SplitHostPort(hostport); err == nil {
		return host, port
	}
	return strings.Trim(hostport, "[]"), "443"
}
