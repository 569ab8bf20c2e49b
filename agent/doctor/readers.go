package doctor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// checkService says whether the smart card service can be asked.
func checkService(f *Facts) []control.Finding {
	finding := control.Finding{Severity: unless(f.testing(), control.SeverityError)}
	switch problem := f.Snapshot.NoPCSC; {
	case f.Snapshot.PCSC == "":
		finding = control.Finding{Code: "pcsc", Severity: control.SeverityOK, Title: "The smart card service works"}
	case errors.Is(problem, card.ErrNoPCSC):
		finding.Code, finding.Title = "pcsc-library", "The PC/SC library is missing, so no reader can be seen"
		finding.Detail = f.Snapshot.PCSC
		finding.Fix = "Install it (Debian: apt install libpcsclite1 pcscd)."
	case errors.Is(problem, card.ErrNoService):
		finding.Code, finding.Title = "pcsc-service", "The smart card service (pcscd) does not run"
		finding.Fix = "Install it (Debian: apt install pcscd) and start it: systemctl enable --now pcscd.socket"
	case errors.Is(problem, card.ErrServiceRefused):
		finding.Code, finding.Title = "pcsc-refused", "The smart card service (pcscd) does not let this user in"
		finding.Fix = "Work in a local session, not over SSH; or let an administrator allow the user with a polkit rule for org.debian.pcsc-lite.access_pcsc and org.debian.pcsc-lite.access_card."
	default:
		finding.Code, finding.Title, finding.Detail = "pcsc-failed", "The smart card service cannot be asked", f.Snapshot.PCSC
		finding.Fix = "Start it again: systemctl restart pcscd.service"
	}
	return []control.Finding{finding}
}

// checkReaders lists the readers.
func checkReaders(f *Facts) []control.Finding {
	if f.Snapshot.PCSC != "" {
		return nil
	}
	if len(f.Snapshot.PCSCReaders) == 0 {
		return []control.Finding{{
			Code: "no-reader", Severity: unless(f.testing(), control.SeverityError), Title: "No card reader is connected",
			Fix: "Connect a reader. If it is connected, its driver may be missing (Debian: apt install libccid).",
		}}
	}
	var findings []control.Finding
	for _, r := range f.Snapshot.PCSCReaders {
		finding := control.Finding{Code: "reader", Severity: control.SeverityOK, Title: "Reader " + r.Name + ": a card is in it"}
		if !r.Present {
			finding.Severity, finding.Title = control.SeverityNote, "Reader "+r.Name+": no card is in it"
			finding.Fix = "Insert the card."
			if slices.ContainsFunc(f.Snapshot.PCSCReaders, func(r card.PCSCReader) bool { return r.Present }) {
				finding.Severity, finding.Fix = control.SeverityOK, ""
			}
		}
		findings = append(findings, finding)
	}
	return findings
}

// checkUnrecognized explains cards that no module shows.
func checkUnrecognized(f *Facts) []control.Finding {
	var findings []control.Finding
	for _, u := range f.Snapshot.Unrecognized {
		switch {
		case u.Mute:
			findings = append(findings, control.Finding{
				Code: "card-mute", Severity: control.SeverityError, Title: "The card in " + u.Reader + " does not answer",
				Fix: "Take it out, clean its contacts and put it in the right way round; if it stays silent, try another reader and another card.",
			})
		case u.Exclusive:
			findings = append(findings, control.Finding{
				Code: "card-held", Severity: control.SeverityError, Title: "Another program has the card in " + u.Reader + " to itself",
				Fix: "Close the other program that uses the card.",
			})
		default:
			findings = append(findings, unknownCard(f, u))
		}
	}
	return findings
}

func unknownCard(f *Facts, u card.Unrecognized) control.Finding {
	kind, known := card.KindOf(u.ATR)
	finding := control.Finding{
		Code: "card-unrecognized", Severity: control.SeverityError, Title: "No module knows the card in " + u.Reader,
		Detail: "Its ATR is " + hex.EncodeToString(u.ATR) + ", which this program does not know either.",
		Fix:    "Ask the card's issuer which program with a PKCS#11 module reads it.",
	}
	if f.namesReadersItsOwnWay() {
		finding.Severity = control.SeverityNote
		finding.Title = "No module shows a card in " + u.Reader + " by this name"
		finding.Fix = "If the card is listed by kortti cards under another reader's name, all is well."
		return finding
	}
	if !known {
		return finding
	}
	finding.Detail = fmt.Sprintf("It is a %s.", kind.Name)
	finding.Fix = kind.Advice()
	for _, m := range f.Snapshot.Modules {
		product, version := m.Product()
		switch {
		case m.Err != nil || product == card.SoftHSM:
		case !kind.ServedBy(product, version):
			finding.Detail += " " + moduleName(m) + " does not know such cards."
		default:
			finding.Detail += " " + moduleName(m) + " ought to know it."
			finding.Fix = "Take the card out and put it back. If that does not help, update the module; the card itself may be faulty."
		}
	}
	return finding
}

// namesReadersItsOwnWay says whether a module shows a card in a slot that has
// no PC/SC reader's name, so that one cannot tell which cards it shows.
func (f *Facts) namesReadersItsOwnWay() bool {
	for _, r := range f.Snapshot.Readers {
		product, _ := card.ModuleInfo{Path: r.Module}.Product()
		named := slices.ContainsFunc(f.Snapshot.PCSCReaders, func(p card.PCSCReader) bool { return strings.HasPrefix(p.Name, r.Name) })
		if r.Card != nil && product != card.SoftHSM && !named {
			return true
		}
	}
	return false
}

// checkSupport warns of a card that a module shows but cannot serve, as OpenSC
// does with enable_default_driver.
func checkSupport(f *Facts) []control.Finding {
	var findings []control.Finding
	names, slots := f.readersWithCards()
	for _, reader := range names {
		for _, p := range f.Snapshot.PCSCReaders {
			kind, known := card.KindOf(p.ATR)
			if p.Name != reader || !known {
				continue
			}
			served := slices.ContainsFunc(slots[reader], func(r card.Reader) bool {
				product, version := f.module(r.Module).Product()
				return product == "" || kind.ServedBy(product, version)
			})
			if !served {
				findings = append(findings, control.Finding{
					Code: "card-unsupported", Severity: control.SeverityWarning,
					Title:  f.cardIn(reader) + " is shown by a module that is not known to support it",
					Detail: moduleName(f.module(slots[reader][0].Module)) + " may read its certificates and not be able to sign.", Fix: kind.Advice(),
				})
			}
		}
	}
	return findings
}

// module returns what is known of a module by its path.
func (f *Facts) module(path string) card.ModuleInfo {
	for _, m := range f.Snapshot.Modules {
		if m.Path == path {
			return m
		}
	}
	return card.ModuleInfo{Path: path}
}
