package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// hurtful is a setting of opensc.conf(5) that hurts, and why. A setting in
// another place than its own has no effect.
type hurtful struct {
	place, key string
	hurts      func(value string) bool
	detail     string
}

func yes(value string) bool {
	return strings.EqualFold(value, "true") || strings.EqualFold(value, "yes")
}

var hurtfulSettings = []hurtful{
	{"reader_driver pcsc", "disconnect_action", func(v string) bool { return v == "reset" || v == "unpower" },
		"Every program that ends with OpenSC resets the card, and so locks it for all others."},
	{"reader_driver pcsc", "reconnect_action", func(v string) bool { return v == "unpower" }, "Cards lose their PIN whenever another program was there."},
	{"reader_driver pcsc", "connect_exclusive", yes, "OpenSC takes the card for one program alone: no other can use it, and a lock cannot be confirmed."},
	{"pkcs11", "lock_login", yes, "A program that has logged in keeps all others from the card."},
	{"framework pkcs15", "use_file_caching", func(v string) bool { return yes(v) || v == "public" }, "OpenSC may show the certificates of a card from before it was renewed."},
	{"", "enable_default_driver", yes, "Cards that OpenSC does not know are shown, but cannot sign."},
	{"", "card_drivers", func(v string) bool { return v != "" && v != "internal" }, "OpenSC knows only the cards that are named there."},
	{"", "ignored_readers", func(v string) bool { return v != "" }, "OpenSC leaves these readers alone."},
}

// checkOpenSC looks for settings of OpenSC that hurt, where it is in use.
func checkOpenSC(f *Facts) []control.Finding {
	conf := f.OpenSC
	if conf.Path == "" {
		return nil
	}
	var findings []control.Finding
	if conf.Err != nil {
		findings = append(findings, control.Finding{
			Code: "opensc-conf-unreadable", Severity: control.SeverityWarning, Title: "OpenSC's configuration cannot be read, so its defaults apply",
			Detail: conf.Err.Error(), Fix: "Correct or remove " + conf.Path + ".",
		})
	}
	if conf.Private {
		findings = append(findings, control.Finding{
			Code: "opensc-conf-private", Severity: control.SeverityWarning, Title: "OpenSC goes by a private configuration, " + conf.Path,
			Detail: "OPENSC_CONF names it: what the system's opensc.conf says (drivers, ignored readers) has no effect.",
			Fix:    "Unset OPENSC_CONF, unless it is meant.",
		})
	}
	for _, s := range conf.Settings {
		findings = append(findings, openscSetting(f, s)...)
	}
	if len(findings) == 0 {
		findings = append(findings, control.Finding{Code: "opensc-conf", Severity: control.SeverityOK, Title: "OpenSC's configuration, " + conf.Path + ", has nothing unusual"})
	}
	return findings
}

// openscSetting says what is wrong with one setting.
func openscSetting(f *Facts, s card.OpenSCSetting) []control.Finding {
	value := strings.Join(s.Values, ", ")
	shown := fmt.Sprintf("%s = %s", s.Key, value)
	for _, known := range hurtfulSettings {
		if s.Key != known.key {
			continue
		}
		if s.Hidden || s.Place != known.place {
			where := "app " + s.App
			if s.Place != "" {
				where += ", " + s.Place
			}
			right := "the app block itself"
			if known.place != "" {
				right = "a block " + known.place
			}
			detail := "There (" + where + ") it has no effect: it belongs into " + right + "."
			if s.Place == known.place {
				detail = "There (" + where + ") it has no effect: an earlier block of the same name counts."
			}
			return []control.Finding{{
				Code: "opensc-conf-misplaced", Severity: control.SeverityNote, Title: "OpenSC does not heed " + shown + " in " + f.OpenSC.Path,
				Detail: detail, Fix: "Move it, or remove it.",
			}}
		}
		if !known.hurts(strings.ToLower(value)) {
			return nil
		}
		finding := control.Finding{
			Code: "opensc-conf-" + s.Key, Severity: control.SeverityWarning, Title: "An OpenSC setting may get in the way: " + shown,
			Detail: known.detail, Fix: "Remove it from " + f.OpenSC.Path + ", unless it is meant.",
		}
		if s.Key == "ignored_readers" && !f.ignores(s.Values) {
			finding.Severity = control.SeverityNote
		}
		return []control.Finding{finding}
	}
	return nil
}

// ignores says whether one of the parts of names is in a reader that is there.
func (f *Facts) ignores(parts []string) bool {
	return slices.ContainsFunc(f.Snapshot.PCSCReaders, func(r card.PCSCReader) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(r.Name, part) })
	})
}
