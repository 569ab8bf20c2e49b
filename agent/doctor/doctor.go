// Package doctor finds out what keeps a card, its module or the agent from
// working, and says what to do about it.
//
// Every check is a small function from [Facts] to findings; [Gather] collects
// the facts: what a card manager saw in children of its own, which ports are
// taken, how OpenSC is configured, what the environment says. It asks for no
// PIN, loads no PKCS#11 module in this process and changes nothing. Findings
// name readers, files and kinds of cards but no person, so that a report can be
// shown to others.
package doctor

import (
	"net/netip"
	"path/filepath"
	"slices"

	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// Facts are what the checks look at.
type Facts struct {
	Now   time.Time
	Built time.Time // of this program; zero when unknown

	Snapshot  card.Snapshot
	Installed []card.ModuleInfo // modules of known products on this machine, used or not
	OpenSC    card.OpenSCConf   // of the OpenSC that is in use

	Agent   bool           // the agent runs: the proxy's port is its own
	Listen  netip.AddrPort // where the proxy listens, or would
	Servers []Server       // who listens on the ports that are of interest
	Env     map[string]string

	// Screen and Sleep are what the running agent watches; zero when not asked.
	Screen, Sleep control.Watch
	// Trust is what the trust stores hold; nil when not asked.
	Trust *control.TrustStatus
}

// Server is a program that listens on a TCP port of this machine.
type Server struct {
	Port    uint16
	Program string // its path, "" when it cannot be told
}

// server returns who listens on a port, nil if nobody does.
func (f *Facts) server(port uint16) *Server {
	for i := range f.Servers {
		if f.Servers[i].Port == port {
			return &f.Servers[i]
		}
	}
	return nil
}

// checks are run in this order: what others depend on comes first.
var checks = []func(*Facts) []control.Finding{
	checkClock, checkModules, checkSpy, checkService, checkReaders, checkUnrecognized, checkSupport,
	checkLogin, checkPIN, checkPSS, checkOpenSC, checkPorts, checkTrust, checkScreen, checkMiddleware, checkEnvironment,
}

// Examine runs all checks.
func Examine(f *Facts) []control.Finding {
	findings := []control.Finding{}
	for _, check := range checks {
		findings = append(findings, check(f)...)
	}
	return findings
}

// testing says whether only test cards are set up, for which a machine without
// card readers is as it should be.
func (f *Facts) testing() bool {
	return len(f.Snapshot.Modules) > 0 && !slices.ContainsFunc(f.Snapshot.Modules, func(m card.ModuleInfo) bool {
		product, _ := m.Product()
		return product != card.SoftHSM
	})
}

// unless is severity, or a note where cond makes it harmless.
func unless(cond bool, severity control.Severity) control.Severity {
	if cond {
		return control.SeverityNote
	}
	return severity
}

// readersWithCards returns the readers whose slots hold a card, in the
// snapshot's order, and these slots.
func (f *Facts) readersWithCards() (names []string, slots map[string][]card.Reader) {
	slots = map[string][]card.Reader{}
	for _, r := range f.Snapshot.Readers {
		if r.Card == nil {
			continue
		}
		if slots[r.Name] == nil {
			names = append(names, r.Name)
		}
		slots[r.Name] = append(slots[r.Name], r)
	}
	return names, slots
}

// cardIn names a card by its reader and kind.
func (f *Facts) cardIn(reader string) string {
	for _, r := range f.Snapshot.PCSCReaders {
		if kind, ok := card.KindOf(r.ATR); ok && r.Name == reader {
			return "The " + kind.Name + " in " + reader
		}
	}
	return "The card in " + reader
}

// moduleName names a module by product and version, and always by its path.
func moduleName(m card.ModuleInfo) string {
	product, version := m.Product()
	switch {
	case product == "":
		return m.Path
	case version == "":
		return string(product) + " (" + m.Path + ")"
	}
	return string(product) + " " + version + " (" + m.Path + ")"
}

// program names a server's program.
func (s *Server) program() string {
	if s.Program == "" {
		return "a program that cannot be told"
	}
	return filepath.Base(s.Program) + " (" + s.Program + ")"
}
