package cards

import (
	"crypto/rsa"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// cost is what something costs a card and the machine.
type cost struct {
	apdus, pins, signatures, processes uint64
}

// costs are what a card's life costs with the card manager.
type costs struct {
	insertion     cost // of a new card, until it is shown and nobody talks to it any more
	known         cost // its removal and insertion again
	unlock, again cost // for the first time and after a lock
	first         cost // a signature
	tls12, tls13  cost // logins
	lock          cost
}

// toolCosts are what the like costs with pkcs11-tool, each in a process of its
// own. Both run on the same OpenSC, so whatever is more here is our own doing.
type toolCosts struct {
	list, known cost // the tokens and the certificates of the first one
	login       cost // the same certificates with a PIN
	signature   cost // from the card's yes to the PIN until it has signed
}

// count returns what f costs.
func (c *testCard) count(m *card.Manager, f func()) cost {
	before := c.Counts()
	var processes uint64
	if m != nil {
		processes = m.Counters().Children
	}
	f()
	after := c.Counts()
	if m != nil {
		processes = m.Counters().Children - processes
	}
	return cost{after.APDUs - before.APDUs, after.Verifies - before.Verifies, after.Signatures - before.Signatures, processes}
}

// startCounting starts a manager and waits until it has looked around.
func startCounting(t testing.TB) (m *card.Manager, before []int) {
	t.Helper()
	before = children(t)
	m = start(t, card.Config{})
	onlySigners(t, before, 0)
	return m, before
}

// countLife takes a card that the manager has not seen through a life in the
// first reader. The manager's processes are those beyond before.
func countLife(t testing.TB, m *card.Manager, before []int, p virtualcard.Profile) (all costs) {
	t.Helper()
	c := newCard(t, virtualcard.Spec{Profile: p})
	insert := func() {
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		onlySigners(t, before, 0)
	}
	pull := func() {
		c.pull()
		c.gone(t, m)
	}
	login := func(version uint16) func() {
		return func() {
			got, err := c.login(t, m, version)
			check(t, err)
			if got != version {
				t.Fatalf("the login was by TLS %#x, not %#x", got, version)
			}
		}
	}
	lock := func() { check(t, m.Lock("", "test")) }
	all.insertion = c.count(m, insert)
	all.known = c.count(m, func() {
		pull()
		insert()
	})
	all.unlock = c.count(m, func() { c.mustUnlock(t, m) })
	all.first = c.count(m, func() { check(t, c.sign(m)) })
	all.tls12 = c.count(m, login(tls.VersionTLS12))
	all.tls13 = c.count(m, login(tls.VersionTLS13))
	all.lock = c.count(m, lock)
	all.again = c.count(m, func() { c.mustUnlock(t, m) })
	lock()
	pull()
	onlySigners(t, before, 0)
	return all
}

// noCopies has pkcs11-tool read cards as Kortti has OpenSC read them: not by
// OpenSC's copies of their files.
const noCopies = "framework pkcs15 { use_file_caching = no; }"

// countTool does the like with pkcs11-tool. No manager may run, as it would read
// the card too.
func countTool(t testing.TB, p virtualcard.Profile) (all toolCosts) {
	t.Helper()
	c := newCard(t, virtualcard.Spec{Profile: p})
	c.insert(t, pcscd.Address0)
	input := filepath.Join(t.TempDir(), "digest")
	check(t, os.WriteFile(input, make([]byte, 32), 0o600))
	sign := []string{"--sign", "--input-file", input, "--output-file", os.DevNull, "--mechanism"}
	if _, ok := c.leaf.PublicKey.(*rsa.PublicKey); ok {
		sign = append(sign, "RSA-PKCS-PSS", "--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256") // as TLS has it
	} else {
		sign = append(sign, "ECDSA")
	}
	run := func(args ...string) cost {
		return c.count(nil, func() { pkcs11Tool(t, args...) })
	}
	waitForReader(t, "Yes")
	list := []string{"--list-token-slots", "--list-objects", "--type", "cert"}
	login := []string{"--slot", "0", "--login", "--pin", rightPIN, "--list-objects", "--type", "cert"}
	all.list, all.known, all.login = run(list...), run(list...), run(login...)
	var sent [][]byte
	c.SetLog(func(e virtualcard.Exchange) { sent = append(sent, e.Command) })
	signed := run(append([]string{"--slot", "0", "--login", "--pin", rightPIN}, sign...)...)
	c.SetLog(nil)
	all.signature = cost{apdus: signing(sent), pins: signed.pins - all.login.pins, signatures: signed.signatures}
	c.pull()
	waitForReader(t, "No")
	if all.list.apdus == 0 || all.login.pins != 1 || all.signature.signatures != 1 {
		t.Fatalf("pkcs11-tool did not do what is counted: %+v", all)
	}
	return all
}

// signing counts the commands after the last PIN, up to the last of the signature.
func signing(sent [][]byte) (n uint64) {
	const verify, performSecurityOperation, getResponse = 0x20, 0x2A, 0xC0 // ISO 7816-4
	const header = 5                                                       // all of a VERIFY that has no PIN
	at := uint64(0)
	for _, command := range sent {
		switch at++; {
		case command[1] == verify && len(command) > header:
			at, n = 0, 0
		case command[1] == performSecurityOperation, command[1] == getResponse && n > 0 && n == at-1:
			n = at
		}
	}
	return n
}

// A login shows the card one PIN and has it make one signature, a signature takes
// no more commands than the same with pkcs11-tool, and nothing takes many more.
func TestCounts(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		systemSettings(t, noCopies)
		pcscd.Start(t)
		tool := countTool(t, p)
		m, before := startCounting(t)
		ours := countLife(t, m, before, p)
		t.Logf("kortti      %+v", ours)
		t.Logf("pkcs11-tool %+v", tool)
		want := func(what string, got, most uint64) {
			t.Helper()
			if got > most {
				t.Errorf("%s: %d, want %d at most", what, got, most)
			}
		}
		for what, c := range map[string]struct {
			cost
			pins, signatures, processes uint64
		}{
			"insertion": {ours.insertion, 0, 0, 1}, "return": {ours.known, 0, 0, 2}, // removal and insertion
			"unlock": {ours.unlock, 1, 0, 1}, "signature": {ours.first, 0, 1, 0},
			"TLS 1.2": {ours.tls12, 0, 1, 0}, "TLS 1.3": {ours.tls13, 0, 1, 0}, "lock": {ours.lock, 0, 0, 1},
		} {
			if c.cost.pins != c.pins || c.cost.signatures != c.signatures {
				t.Errorf("%s: %d PINs and %d signatures, want %d and %d", what, c.cost.pins, c.cost.signatures, c.pins, c.signatures)
			}
			want(what+": processes", c.cost.processes, c.processes)
		}
		for what, signature := range map[string]cost{"the first signature": ours.first, "a TLS 1.2 login": ours.tls12, "a TLS 1.3 login": ours.tls13} {
			want("commands for "+what, signature.apdus, tool.signature.apdus)
		}
		want("commands for an unlock", ours.unlock.apdus, tool.login.apdus)
		want("commands for another unlock", ours.again.apdus, ours.unlock.apdus)
		want("commands for an insertion", ours.insertion.apdus, tool.list.apdus*3/2)
		want("commands for a known card's return", ours.known.apdus, min(tool.known.apdus*3/2, ours.insertion.apdus))
		want("commands for a lock", ours.lock.apdus, tool.signature.apdus)
	})
}

// BenchmarkCounts reports what a card's life costs: commands to the card (APDUs),
// and in ratio/ how many times those of pkcs11-tool that is; PINs shown to the
// card, signatures and processes. docs/benchmarks.md has a table of it.
func BenchmarkCounts(b *testing.B) {
	for _, p := range profiles() {
		b.Run(string(p), func(b *testing.B) {
			systemSettings(b, noCopies)
			pcscd.Start(b)
			tool := countTool(b, p)
			m, before := startCounting(b)
			var ours costs
			for b.Loop() {
				ours = countLife(b, m, before, p)
			}
			b.ReportMetric(0, "ns/op") // the time is the virtual reader's
			for what, pair := range map[string][2]cost{
				"insertion": {ours.insertion, tool.list}, "return": {ours.known, tool.known},
				"unlock": {ours.unlock, tool.login}, "signature": {ours.tls13, tool.signature},
				"whole": {ours.insertion.plus(ours.unlock).plus(ours.tls13), tool.list.plus(tool.login).plus(tool.signature)},
			} {
				b.ReportMetric(float64(pair[0].apdus), "APDUs/"+what)
				b.ReportMetric(float64(pair[0].apdus)/float64(pair[1].apdus), "ratio/"+what)
			}
			for what, c := range map[string]cost{"insertion": ours.insertion, "return": ours.known, "unlock": ours.unlock, "lock": ours.lock} {
				b.ReportMetric(float64(c.processes), "processes/"+what)
			}
			b.ReportMetric(float64(ours.lock.apdus), "APDUs/lock")
			b.ReportMetric(float64(ours.unlock.plus(ours.tls12).pins), "PINs/login")
			b.ReportMetric(float64(ours.tls12.signatures), "signatures/TLS1.2")
			b.ReportMetric(float64(ours.tls13.signatures), "signatures/TLS1.3")
		})
	}
}

func (c cost) plus(d cost) cost {
	return cost{c.apdus + d.apdus, c.pins + d.pins, c.signatures + d.signatures, c.processes + d.processes}
}
