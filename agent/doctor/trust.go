package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/truststore"
)

// checkTrust tells which listed hosts' local roots the browsers do not have, or
// will soon be without, and what is left over in their stores; only a running
// agent knows.
func checkTrust(f *Facts) []control.Finding {
	if f.Trust == nil {
		return nil
	}
	var findings []control.Finding
	for _, check := range []func(*Facts) []control.Finding{checkStores, checkRoots, checkRootsInStores, checkLeftovers, checkTwoDatabases} {
		findings = append(findings, check(f)...)
	}
	if len(findings) == 0 && len(f.Trust.Roots) > 0 && len(f.browserStores()) > 0 {
		findings = append(findings, control.Finding{Code: "trust", Severity: control.SeverityOK, Title: "The browsers trust the local roots of all listed hosts"})
	}
	return findings
}

// checkStores names stores that cannot be read, each reason once.
func checkStores(f *Facts) (findings []control.Finding) {
	if len(f.Trust.Roots) == 0 {
		return nil // nothing would be put there
	}
	places := map[string][]string{}
	var order []control.TrustStore
	for _, s := range f.Trust.Stores {
		if s.Error == "" {
			continue
		}
		if places[s.Error] == nil {
			order = append(order, s)
		}
		places[s.Error] = append(places[s.Error], s.Owner+" ("+s.Path+")")
	}
	for _, s := range order {
		findings = append(findings, control.Finding{
			Code: "trust-store", Severity: control.SeverityWarning, Title: "Trust stores of browsers cannot be read: " + s.Error,
			Detail: strings.Join(places[s.Error], ", "), Fix: s.Hint,
		})
	}
	return findings
}

// checkRoots tells of roots that are damaged or end soon.
func checkRoots(f *Facts) (findings []control.Finding) {
	for _, r := range f.Trust.Roots {
		switch {
		case r.Error != "":
			findings = append(findings, control.Finding{
				Code: "root-damaged", Severity: control.SeverityError, Title: "The local root of " + r.Host + " cannot be used", Detail: r.Error,
				Fix: fmt.Sprintf("Take the host off the list and list it again: kortti hosts remove %s", truststore.Quote(r.Host)),
			})
		case !f.Now.Before(r.RenewAt):
			findings = append(findings, control.Finding{
				Code: "root-ends", Severity: control.SeverityWarning,
				Title: fmt.Sprintf("The local root of %s ends on %s", r.Host, r.NotAfter.Local().Format(time.DateOnly)),
				Fix:   fmt.Sprintf("Install a new one and start the browser again: kortti trust install %s", truststore.Quote(r.Host)),
			})
		}
	}
	return findings
}

// browserStores are the stores of browsers that can be read.
func (f *Facts) browserStores() (stores []control.TrustStore) {
	for _, s := range f.Trust.Stores {
		if s.Kind != "system" && s.Error == "" {
			stores = append(stores, s)
		}
	}
	return stores
}

// checkRootsInStores tells of listed hosts that no browser, or not every one,
// trusts. Those that only programs such as curl use need none.
func checkRootsInStores(f *Facts) (findings []control.Finding) {
	stores := f.browserStores()
	var nowhere []string
	partly := map[string][]string{} // by store: hosts
	var order []string
	for _, root := range f.Trust.Roots {
		var without []string
		for _, s := range stores {
			if !slices.ContainsFunc(s.Roots, func(r control.TrustedRoot) bool {
				return r.SHA256 == root.SHA256 && (r.State == control.TrustTrusted || r.State == control.TrustDuplicate)
			}) {
				without = append(without, s.Owner)
			}
		}
		if root.Error != "" || len(without) == 0 {
			continue
		}
		if len(without) == len(stores) {
			nowhere = append(nowhere, root.Host)
			continue
		}
		for _, owner := range without {
			if partly[owner] == nil {
				order = append(order, owner)
			}
			partly[owner] = append(partly[owner], root.Host)
		}
	}
	if len(nowhere) > 0 {
		findings = append(findings, control.Finding{
			Code: "trust-missing", Severity: control.SeverityWarning, Title: "No browser trusts the local root of " + strings.Join(nowhere, ", "),
			Fix: "Install it and start the browser again: kortti trust install " + truststore.Quote(nowhere...),
		})
	}
	for _, owner := range order {
		findings = append(findings, control.Finding{
			Code: "trust-partly", Severity: control.SeverityNote, Title: owner + " does not trust the local root of " + strings.Join(partly[owner], ", "),
			Fix: "If you use it: kortti trust install " + truststore.Quote(partly[owner]...),
		})
	}
	return findings
}

// checkLeftovers tells of roots in stores, the system's too, that nothing uses.
func checkLeftovers(f *Facts) []control.Finding {
	var hosts, places []string
	flags := ""
	for _, s := range f.Trust.Stores {
		for _, r := range s.Roots {
			if r.State != control.TrustStale {
				continue
			}
			if s.Kind == "system" {
				flags = " --system"
			}
			hosts, places = append(hosts, r.Host), append(places, s.Owner)
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	listed := func(host string) bool {
		return slices.ContainsFunc(f.Trust.Roots, func(r control.Root) bool { return r.Host == host })
	}
	renewed, gone := []string{}, []string{}
	for _, host := range hosts {
		if listed(host) {
			renewed = append(renewed, host)
		} else {
			gone = append(gone, host)
		}
	}
	var fix []string
	if len(renewed) > 0 {
		fix = append(fix, "kortti trust install "+truststore.Quote(renewed...)+flags)
	}
	if len(gone) > 0 {
		fix = append(fix, "kortti trust uninstall "+truststore.Quote(gone...)+flags)
	}
	slices.Sort(places)
	return []control.Finding{{
		Code: "trust-stale", Severity: control.SeverityNote, Title: "Local roots that are not in use any more are left for " + strings.Join(hosts, ", "),
		Detail: "In the stores of " + strings.Join(slices.Compact(places), "; ") + ". Their keys are gone, so nobody can use them.",
		Fix:    "Remove them with: " + strings.Join(fix, " and: "),
	}}
}

// checkTwoDatabases tells that Chromium has two databases and uses one: a root
// that was put into the other by hand is not seen.
func checkTwoDatabases(f *Facts) (findings []control.Finding) {
	for _, s := range f.Trust.Stores {
		if s.Shadowed {
			findings = append(findings, control.Finding{
				Code: "trust-two-databases", Severity: control.SeverityNote, Title: s.Owner + " has two trust databases and uses the one in .pki/nssdb",
				Detail: "The other one is " + s.Path + "; kortti trust keeps both in step.",
			})
		}
	}
	return findings
}
