package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// expiresSoon is how long before its end a certificate is mentioned: a new card
// takes weeks.
const expiresSoon = 60 * 24 * time.Hour

// checkLogin says of every card whether it can log in, and if not, why.
func checkLogin(f *Facts) []control.Finding {
	var findings []control.Finding
	names, slots := f.readersWithCards()
	if len(names) == 0 && len(f.Snapshot.Readers) > 0 && len(f.Snapshot.PCSCReaders) == 0 {
		findings = append(findings, control.Finding{Code: "no-card", Severity: control.SeverityNote, Title: "No card is inserted", Fix: "Insert the card."})
	}
	for _, reader := range names {
		var login []card.Certificate
		var why []string
		for _, r := range slots[reader] {
			for _, c := range r.Card.Certificates {
				if c.Login {
					login = append(login, c)
				} else if authentication(c) {
					why = append(why, c.WhyNot)
				}
			}
		}
		switch {
		case len(login) > 0:
			findings = append(findings, usable(f, reader, login)...)
		case !f.usedElsewhere(slots[reader]):
			findings = append(findings, unusable(f, reader, slots[reader], why))
		}
	}
	return findings
}

// usedElsewhere says whether all of a card's certificates can log in through
// another module's slot, under another reader's name.
func (f *Facts) usedElsewhere(slots []card.Reader) bool {
	for _, r := range slots {
		for _, c := range r.Card.Certificates {
			if _, best, ok := f.Snapshot.Find(c.Fingerprint); ok && best.Login {
				return true
			}
		}
	}
	return false
}

func authentication(c card.Certificate) bool {
	return c.X509 != nil && c.X509.KeyUsage&x509.KeyUsageDigitalSignature != 0 && c.X509.KeyUsage&x509.KeyUsageContentCommitment == 0
}

// usable is the finding of a card that can log in.
func usable(f *Facts, reader string, login []card.Certificate) []control.Finding {
	findings := []control.Finding{{
		Code: "card", Severity: control.SeverityOK,
		Title: fmt.Sprintf("%s can log in (%s)", f.cardIn(reader), login[0].KeyType),
	}}
	for _, c := range login {
		if left := c.X509.NotAfter.Sub(f.Now); left < expiresSoon {
			findings = append(findings, control.Finding{
				Code: "certificate-expires", Severity: control.SeverityWarning,
				Title: fmt.Sprintf("%s: the certificate ends on %s", f.cardIn(reader), c.X509.NotAfter.Local().Format(time.DateOnly)),
				Fix:   "Order a new card in time.",
			})
		}
	}
	return findings
}

// unusable is the finding of a card that cannot log in.
func unusable(f *Facts, reader string, slots []card.Reader, why []string) control.Finding {
	finding := control.Finding{
		Code: "card-no-login", Severity: control.SeverityError, Title: f.cardIn(reader) + " has no certificate that can log in",
		Detail: strings.Join(why, "; "), Fix: "See every certificate with kortti certs.",
	}
	count := 0
	for _, r := range slots {
		count += len(r.Card.Certificates)
		for _, c := range r.Card.Certificates {
			if !authentication(c) {
				continue
			}
			switch {
			case f.Now.After(c.X509.NotAfter):
				finding.Code, finding.Title = "certificate-expired", f.cardIn(reader)+" has expired"
				finding.Detail = "Its certificate for login ended on " + c.X509.NotAfter.Local().Format(time.DateOnly) + "."
				finding.Fix = "Get a new card from its issuer; if the date is wrong, set this computer's clock (now " + f.Now.Local().Format(time.DateTime) + ")."
			case f.Now.Before(c.X509.NotBefore):
				finding.Code, finding.Title = "certificate-not-yet", f.cardIn(reader)+" is not valid yet"
				finding.Detail = "Its certificate for login begins on " + c.X509.NotBefore.Local().Format(time.DateTime) + "."
				finding.Fix = "Set this computer's clock (now " + f.Now.Local().Format(time.DateTime) + "), or wait."
			}
		}
	}
	if count == 0 {
		finding.Detail = "No certificate can be read from it."
		finding.Fix = "If the card is new, activate it with the issuer's program first; otherwise try another module."
	}
	return finding
}

// checkPIN tells what the cards say of their PINs.
func checkPIN(f *Facts) []control.Finding {
	var findings []control.Finding
	for _, r := range f.Snapshot.Readers {
		if r.Card == nil {
			continue
		}
		login := false
		for _, c := range r.Card.Certificates {
			login = login || c.Login
		}
		pin := "the PIN for login"
		severity := control.SeverityError
		if !login { // another module's slot, or the signature PIN's
			pin, severity = fmt.Sprintf("the PIN of slot %q", pinSlot(r)), control.SeverityNote
		}
		in := f.cardIn(r.Name) + ": " + pin
		switch p := r.Card.PIN; {
		case p.Locked:
			findings = append(findings, control.Finding{Code: "pin-locked", Severity: severity, Title: in + " is locked",
				Fix: "Unblock it with the PUK: kortti pin unblock, or the issuer's program."})
		case !p.Initialized:
			findings = append(findings, control.Finding{Code: "pin-not-set", Severity: severity, Title: in + " has never been set",
				Fix: "Activate the card with the issuer's program first."})
		case p.ToBeChanged:
			findings = append(findings, control.Finding{Code: "pin-to-be-changed", Severity: unless(!login, control.SeverityWarning), Title: in + " must be changed first",
				Detail: "A new card says so until it is activated.", Fix: "Activate the card: kortti pin change, or the issuer's program."})
		case p.FinalTry:
			findings = append(findings, control.Finding{Code: "pin-final-try", Severity: unless(!login, control.SeverityWarning), Title: in + " has one try left",
				Detail: "One more wrong PIN locks it.", Fix: "Enter it only if you are sure of it; otherwise unblock it with the PUK: kortti pin unblock."})
		case p.CountLow:
			findings = append(findings, control.Finding{Code: "pin-count-low", Severity: control.SeverityNote, Title: in + " was entered wrongly last time",
				Fix: "Enter it with care: the next right PIN puts the count back."})
		}
	}
	return findings
}

// pinSlot tells a card's slots apart without the holder's name, which some
// modules put into the label: "PIN2" of "NAME (PIN2)".
func pinSlot(r card.Reader) string {
	label := r.Card.Label
	if i := strings.LastIndexByte(label, '('); i >= 0 && strings.HasSuffix(label, ")") {
		return label[i+1 : len(label)-1]
	}
	return fmt.Sprint(r.Ordinal + 1)
}

// checkPSS warns of RSA keys that TLS 1.3 cannot use.
func checkPSS(f *Facts) []control.Finding {
	var findings []control.Finding
	for _, r := range f.Snapshot.Readers {
		if r.Card == nil {
			continue
		}
		for _, c := range r.Card.Certificates {
			if c.Login && c.MaxVersion == tls.VersionTLS12 {
				findings = append(findings, control.Finding{
					Code: "no-pss", Severity: control.SeverityWarning, Title: f.cardIn(r.Name) + " can log in with TLS 1.2 only",
					Detail: moduleName(f.module(r.Module)) + " offers neither RSA-PSS nor raw RSA, which TLS 1.3 needs (RFC 8446, section 4.2.3).",
					Fix:    "Nothing, as long as your sites take TLS 1.2; one that insists on TLS 1.3 needs a newer module or card.",
				})
			}
		}
	}
	return findings
}

// Bounds on what a clock may show, against the time when this program was
// built.
const (
	clockBefore = 24 * time.Hour // builds in other time zones, and a little more
	clockAfter  = 10 * 365 * 24 * time.Hour
)

// checkClock compares the clock with the times of certificates and of this
// program.
func checkClock(f *Facts) []control.Finding {
	finding := control.Finding{
		Code: "clock", Severity: control.SeverityError, Title: "This computer's clock is wrong: it says " + f.Now.Local().Format(time.DateTime),
		Fix: "Set the clock (with systemd: timedatectl set-ntp true).",
	}
	var first time.Time // when the first certificate begins
	for _, r := range f.Snapshot.Readers {
		if r.Card == nil {
			continue
		}
		for _, c := range r.Card.Certificates {
			if c.X509 != nil && (first.IsZero() || c.X509.NotBefore.Before(first)) {
				first = c.X509.NotBefore
			}
		}
	}
	early := !first.IsZero() && f.Now.Before(first)
	switch {
	case !f.Built.IsZero() && f.Now.Before(f.Built.Add(-clockBefore)):
		finding.Detail = "This program was made later, on " + f.Built.Local().Format(time.DateOnly) + "."
	case early:
		finding.Detail = "Every certificate in the readers begins later, the first on " + first.Local().Format(time.DateOnly) + "."
	case !f.Built.IsZero() && f.Now.After(f.Built.Add(clockAfter)):
		finding.Severity = control.SeverityWarning
		finding.Title = "This computer's clock may be wrong: it says " + f.Now.Local().Format(time.DateTime)
		finding.Detail = "This program was made on " + f.Built.Local().Format(time.DateOnly) + ", more than ten years before that."
	default:
		return nil
	}
	return []control.Finding{finding}
}
