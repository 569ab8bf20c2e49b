package doctor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// trusting are facts of two hosts and of stores that hold their roots.
func trusting() *Facts {
	end := now.AddDate(0, 6, 0)
	held := func() []control.TrustedRoot {
		return []control.TrustedRoot{
			{Host: "a.test", SHA256: "aa", State: control.TrustTrusted}, {Host: "b.test", SHA256: "bb", State: control.TrustTrusted},
		}
	}
	f := healthy()
	f.Trust = &control.TrustStatus{
		Roots: []control.Root{
			{Host: "a.test", SHA256: "aa", NotAfter: end, RenewAt: end.AddDate(0, -1, 0)},
			{Host: "b.test", SHA256: "bb", NotAfter: end, RenewAt: end.AddDate(0, -1, 0)},
		},
		Stores: []control.TrustStore{
			{Kind: "nss", Path: "/home/x/.pki/nssdb", Owner: "Chromium", Present: true, Roots: held()},
			{Kind: "firefox", Path: "/home/x/p", Owner: "Firefox, profile p", Present: true, Roots: held()},
			{Kind: "system", Path: "/etc/x", Owner: "system", Present: true},
		},
	}
	return f
}

func TestTrustFindings(t *testing.T) {
	stale := func(host string) control.TrustedRoot {
		return control.TrustedRoot{Host: host, SHA256: "00", State: control.TrustStale}
	}
	for _, test := range []struct {
		name     string
		spoil    func(s *control.TrustStatus)
		code     string // the one finding; "" for none
		severity control.Severity
		text     string
	}{
		{"all well", func(*control.TrustStatus) {}, "trust", control.SeverityOK, ""},
		{"nothing listed", func(s *control.TrustStatus) {
			s.Roots = nil
			s.Stores[0] = control.TrustStore{Owner: "Chromium", Error: "no certutil"}
			s.Stores[1].Roots = nil
		}, "", "", ""},
		{"in no browser", func(s *control.TrustStatus) {
			s.Stores[0].Roots[0].State, s.Stores[1].Roots[0].State = control.TrustMissing, control.TrustUntrusted
		}, "trust-missing", control.SeverityWarning, "No browser trusts the local root of a.test Install it and start the browser again: kortti trust install a.test"},
		{"no browser", func(s *control.TrustStatus) { s.Stores = s.Stores[2:] }, "", "", ""},
		{"in one browser", func(s *control.TrustStatus) { s.Stores[1].Roots = nil },
			"trust-partly", control.SeverityNote, "Firefox, profile p does not trust the local root of a.test, b.test If you use it: kortti trust install a.test b.test"},
		{"of a host that is gone", func(s *control.TrustStatus) {
			s.Stores[0].Roots = append(s.Stores[0].Roots, stale("c.test"), stale("c.test"))
			s.Stores[1].Roots = append(s.Stores[1].Roots, stale("b.test"))
		}, "trust-stale", control.SeverityNote, "left for b.test, c.test In the stores of Chromium; Firefox, profile p. Their keys are gone, so nobody can use them. Remove them with: kortti trust install b.test and: kortti trust uninstall c.test"},
		{"in the system's store", func(s *control.TrustStatus) { s.Stores[2].Roots = []control.TrustedRoot{stale("c.test")} },
			"trust-stale", control.SeverityNote, "kortti trust uninstall c.test --system"},
		{"two databases", func(s *control.TrustStatus) { s.Stores[1].Shadowed = true }, "trust-two-databases", control.SeverityNote, ".pki/nssdb"},
		{"damaged", func(s *control.TrustStatus) {
			s.Roots[0].Error = "stored local root is damaged"
		}, "root-damaged", control.SeverityError, "kortti hosts remove a.test"},
		{"ends soon", func(s *control.TrustStatus) { s.Roots[1].RenewAt = now }, "root-ends", control.SeverityWarning, "The local root of b.test ends on 2027-05-23"},
		{"cannot be read", func(s *control.TrustStatus) {
			s.Stores[1] = control.TrustStore{Kind: "firefox", Path: "/home/x/p", Owner: "Firefox, profile p", Error: "old", Hint: "Start it."}
		}, "trust-store", control.SeverityWarning, "Firefox, profile p (/home/x/p) Start it."},
		{"no certutil", func(s *control.TrustStatus) {
			for i := range s.Stores[:2] {
				s.Stores[i].Error, s.Stores[i].Hint, s.Stores[i].Roots = "no certutil", "Install it.", nil
			}
		}, "trust-store", control.SeverityWarning, "Chromium (/home/x/.pki/nssdb), Firefox, profile p (/home/x/p) Install it."},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := trusting()
			test.spoil(f.Trust)
			var findings []control.Finding
			for _, finding := range checkTrust(f) {
				if finding.Severity != control.SeverityOK || test.severity == control.SeverityOK {
					findings = append(findings, finding)
				}
			}
			if test.code == "" {
				if len(findings) != 0 {
					t.Errorf("%+v", findings)
				}
				return
			}
			if len(findings) != 1 || findings[0].Code != test.code || findings[0].Severity != test.severity {
				t.Fatalf("%+v, want %s %s", findings, test.severity, test.code)
			}
			all := strings.Join([]string{findings[0].Title, findings[0].Detail, findings[0].Fix}, " ")
			if !strings.Contains(strings.ReplaceAll(all, "  ", " "), test.text) {
				t.Errorf("%q does not say %q", all, test.text)
			}
		})
	}
}

// What doctor says of trust stands among its other findings.
func TestTrustIsExamined(t *testing.T) {
	f := trusting()
	f.Trust.Roots[0].RenewAt = time.Time{}
	if !slices.ContainsFunc(Examine(f), func(f control.Finding) bool { return f.Code == "root-ends" }) {
		t.Error("not examined")
	}
}
