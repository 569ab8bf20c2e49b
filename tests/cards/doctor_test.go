package cards

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// kortti runs the command with a home of its own and the room's OpenSC, and
// returns its output and exit code.
func kortti(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	return korttiWith(t, []string{pcscd.Module}, args...)
}

// korttiWith is kortti with other modules.
func korttiWith(t *testing.T, modules []string, args ...string) (stdout string, code int) {
	t.Helper()
	home := t.TempDir()
	config := filepath.Join(home, ".config", "kortti")
	check(t, os.MkdirAll(config, 0o700))
	check(t, os.WriteFile(filepath.Join(config, "kortti.toml"), fmt.Appendf(nil, "[card]\nmodules = [\"%s\"]\n", strings.Join(modules, `", "`)), 0o600))
	cmd := exec.CommandContext(within(t), pcscd.Program("kortti"), args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	check(t, err)
	t.Logf("kortti %s: exit code %d\n%s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), out, complaints.String())
	return string(out), cmd.ProcessState.ExitCode()
}

// finding returns the doctor's finding with a code.
func finding(t *testing.T, code string) control.Finding {
	t.Helper()
	out, _ := kortti(t, "doctor", "--json")
	var d control.Doctor
	check(t, json.Unmarshal([]byte(out), &d))
	i := slices.IndexFunc(d.Findings, func(f control.Finding) bool { return f.Code == code })
	if i < 0 {
		t.Fatalf("no finding %q in %s", code, out)
	}
	return d.Findings[i]
}

// A current card is read by OpenSC 0.27; of 0.23 the doctor says that it cannot,
// and what can.
func TestDoctorCurrentCard(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.FINEID41})
	c.insert(t, pcscd.Address0)
	waitForCard(t)
	out, code := kortti(t, "doctor")
	if pcscd.Room() == rootfs.Sid {
		if code != 0 || !strings.Contains(out, "S4-1 v4.1 (2025) in "+pcscd.Reader0+" can log in (P-384)") {
			t.Errorf("exit code %d", code)
		}
		out, code = kortti(t, "certs")
		if code != 0 || !strings.Contains(out, "up to TLS 1.3") || !strings.Contains(out, c.auth.String()) {
			t.Errorf("certs: exit code %d", code)
		}
		return
	}
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	f := finding(t, "card-unrecognized")
	if f.Severity != control.SeverityError || !strings.Contains(f.Detail, "FINEID citizen card, S4-1 v4.1") ||
		!strings.Contains(f.Detail, "OpenSC 0.23") || !strings.Contains(f.Fix, "OpenSC 0.27 or newer") || !strings.Contains(f.Fix, "Atostek ID") {
		t.Errorf("finding %+v", f)
	}
	out, code = kortti(t, "cards")
	if code != 3 || !strings.Contains(out, "FINEID citizen card, S4-1 v4.1") || !strings.Contains(out, "not usable") {
		t.Errorf("cards: exit code %d", code)
	}
}

// waitForCard waits until PC/SC sees a card.
func waitForCard(t *testing.T) {
	t.Helper()
	m := start(t, card.Config{})
	waitFor(t, "PC/SC to see the card", func() bool {
		return slices.ContainsFunc(m.Snapshot().PCSCReaders, func(r card.PCSCReader) bool { return r.Present })
	})
}

// A manager tells of a card that its module does not know, and no more when it
// is gone; a card that is known is never told of, however slow it is to read.
func TestUnrecognized(t *testing.T) {
	pcscd.Start(t)
	m := start(t, card.Config{})
	known := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	known.insert(t, pcscd.Address1)
	for shown := false; !shown; {
		s := m.Snapshot()
		if len(s.Unrecognized) > 0 {
			t.Fatalf("a card is being read, and counts as unknown: %+v", s.Unrecognized)
		}
		_, _, shown = s.Find(known.auth)
	}
	if pcscd.Room() == rootfs.Sid {
		return // every card of ours is known there
	}
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.FINEID40})
	c.insert(t, pcscd.Address0)
	waitFor(t, "the card to be unknown", func() bool { return len(m.Snapshot().Unrecognized) == 1 })
	u := m.Snapshot().Unrecognized[0]
	if kind, ok := card.KindOf(u.ATR); u.Reader != pcscd.Reader0 || !ok || !strings.Contains(kind.Name, "v4.0") {
		t.Errorf("unrecognised: %+v, %q", u, kind.Name)
	}
	c.pull()
	waitFor(t, "the unknown card to be gone", func() bool { return len(m.Snapshot().Unrecognized) == 0 })
}

// One card that two modules show is listed once, with both named.
func TestCardThroughTwoModules(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	c.insert(t, pcscd.Address0)
	waitForCard(t)
	library, err := os.ReadFile(pcscd.Module)
	check(t, err)
	second := filepath.Join(t.TempDir(), "second.so")
	check(t, os.WriteFile(second, library, 0o700))
	modules := []string{pcscd.Module, second}
	out, code := korttiWith(t, modules, "cards", "--json")
	var cards control.Cards
	check(t, json.Unmarshal([]byte(out), &cards))
	holding := 0
	for _, r := range cards.Readers {
		if r.Card == nil || !slices.ContainsFunc(r.Card.Certificates, func(cert control.Certificate) bool { return cert.SHA256 == c.auth.String() }) {
			continue
		}
		holding++
		if r.Module != pcscd.Module || !slices.Equal(r.Others, []string{second}) {
			t.Errorf("module %s, others %q", r.Module, r.Others)
		}
	}
	if code != 0 || holding != 1 {
		t.Errorf("exit code %d, the card is listed %d times", code, holding)
	}
	out, _ = korttiWith(t, modules, "cards")
	if !strings.Contains(out, "is used through "+pcscd.Module+"; it is the same card that "+second+" shows") {
		t.Error("the second module is not named")
	}
	out, _ = korttiWith(t, modules, "certs")
	if n := strings.Count(out, c.auth.String()); n != 1 {
		t.Errorf("the certificate is listed %d times", n)
	}
	if out, code = korttiWith(t, modules, "doctor"); code != 0 || !strings.Contains(out, "Nothing is wrong.") {
		t.Errorf("doctor: exit code %d", code)
	}
}

// The doctor follows what the card and the service are: PIN flags, no reader
// service.
func TestDoctorPINAndService(t *testing.T) {
	service := pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDRSA, Tries: 1})
	c.insert(t, pcscd.Address0)
	waitForCard(t)
	if f := finding(t, "pin-final-try"); f.Severity != control.SeverityWarning || f.Fix == "" {
		t.Errorf("finding %+v", f)
	}
	out, _ := kortti(t, "cards")
	if !strings.Contains(out, "LAST try") {
		t.Error("cards does not tell of the last try")
	}
	if got := c.Counts().Verifies; got != 0 {
		t.Errorf("%d PINs were presented", got)
	}
	service.Stop()
	if f := finding(t, "pcsc-service"); f.Severity != control.SeverityError || !strings.Contains(f.Fix, "pcscd") {
		t.Errorf("finding %+v", f)
	}
}
