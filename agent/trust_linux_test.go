package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// trustRig is an agent with a home folder of its own, which has a Chromium
// without a database, and a Firefox profile that is protected by a password.
func trustRig(t *testing.T, hosts ...string) (r *rig, home string) {
	t.Helper()
	o := options(t, t.TempDir(), "")
	o.Home = t.TempDir()
	home = o.Home
	check(t, os.MkdirAll(filepath.Join(home, ".config/chromium"), 0o700))
	profile := filepath.Join(home, ".mozilla/firefox/x")
	check(t, os.MkdirAll(profile, 0o700))
	check(t, os.WriteFile(filepath.Join(home, ".mozilla/firefox/profiles.ini"), []byte("[Profile0]\nName=x\nIsRelative=1\nPath=x\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(home, "password"), []byte("secret-1\n"), 0o600))
	certutil(t, "-N", "-d", "sql:"+profile, "-f", filepath.Join(home, "password"))
	r = startWith(t, o, newFakeCards())
	for _, h := range hosts {
		_, err := r.client.PutHost(within(t), control.Host{Name: h})
		check(t, err)
	}
	return r, home
}

func certutil(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("certutil", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("certutil %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// states are what the status says of a store: host and state, sorted.
func (r *rig) states(t *testing.T, path string) (states []string) {
	t.Helper()
	status, err := r.client.TrustStatus(within(t))
	check(t, err)
	for _, s := range status.Stores {
		if s.Path != path {
			continue
		}
		for _, root := range s.Roots {
			states = append(states, root.Host+" "+string(root.State))
		}
	}
	slices.Sort(states)
	return states
}

func outcomes(result control.TrustResult, home string) (list []string) {
	for _, c := range result.Changes {
		if below, ok := strings.CutPrefix(c.Store, home+"/"); ok {
			list = append(list, strings.TrimSpace(below+" "+string(c.Change)+" "+c.Host))
		}
	}
	slices.Sort(list)
	return list
}

func wantList(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// One store's password keeps nobody else's browser from trusting a root.
func TestTrust(t *testing.T) {
	r, home := trustRig(t, "a.test", "b.test:8443", "b.test")
	nss := filepath.Join(home, ".pki/nssdb")
	wantList(t, r.states(t, nss), "a.test missing", "b.test missing")

	plan, err := r.client.ChangeTrust(within(t), control.TrustRequest{Action: control.TrustInstall, All: true, Print: true})
	check(t, err)
	wantList(t, outcomes(plan, home), ".mozilla/firefox/x planned a.test", ".mozilla/firefox/x planned b.test",
		".pki/nssdb planned a.test", ".pki/nssdb planned b.test")
	if len(plan.Commands) != 6 || !slices.Equal(plan.Restart, []string{"Chromium", "Firefox"}) {
		t.Errorf("%+v", plan)
	}

	result, err := r.client.ChangeTrust(within(t), control.TrustRequest{Action: control.TrustInstall, All: true})
	check(t, err)
	wantList(t, outcomes(result, home), ".mozilla/firefox/x failed", ".pki/nssdb installed a.test", ".pki/nssdb installed b.test")
	if !slices.Equal(result.Restart, []string{"Chromium"}) || len(result.Commands) != 0 {
		t.Errorf("%+v", result)
	}
	failed := result.Changes[slices.IndexFunc(result.Changes, func(c control.TrustChange) bool { return c.Change == control.TrustFailed })]
	if !strings.Contains(failed.Error, "primary password") || !strings.Contains(failed.Hint, "--print") {
		t.Errorf("%+v", failed)
	}
	wantList(t, r.states(t, nss), "a.test trusted", "b.test trusted")
	wantList(t, r.states(t, filepath.Join(home, ".mozilla/firefox/x")), "a.test missing", "b.test missing")

	// What is trusted is the root that programs are shown.
	root, err := r.client.Trust(within(t), "b.test:8443")
	check(t, err)
	block, _ := pem.Decode([]byte(root.PEM))
	shown, err := x509.ParseCertificate(block.Bytes)
	check(t, err)
	if !strings.Contains(certutil(t, "-L", "-d", "sql:"+nss), "Kortti b.test "+root.SHA256[:8]) || !shown.IsCA {
		t.Error("another root was installed")
	}

	again, err := r.client.ChangeTrust(within(t), control.TrustRequest{Action: control.TrustInstall, Hosts: []string{"a.test"}})
	check(t, err)
	wantList(t, outcomes(again, home), ".mozilla/firefox/x failed", ".pki/nssdb already a.test")
	if len(again.Restart)+len(again.Running) != 0 {
		t.Errorf("nothing has changed, but %+v", again)
	}
}

// A host that is not listed any more leaves its root in the stores until it is
// uninstalled by name; the others stay.
func TestTrustOfAHostThatIsGone(t *testing.T) {
	r, home := trustRig(t, "a.test", "b.test", "*.c.test")
	nss := filepath.Join(home, ".pki/nssdb")
	change := func(in control.TrustRequest) control.TrustResult {
		t.Helper()
		result, err := r.client.ChangeTrust(within(t), in)
		check(t, err)
		return result
	}
	change(control.TrustRequest{Action: control.TrustInstall, All: true})
	check(t, r.client.DeleteHost(within(t), "a.test"))
	wantList(t, r.states(t, nss), "*.c.test trusted", "a.test stale", "b.test trusted")

	// Listed again it has a new root, which takes the old one's place.
	_, err := r.client.PutHost(within(t), control.Host{Name: "a.test"})
	check(t, err)
	wantList(t, r.states(t, nss), "*.c.test trusted", "a.test missing", "a.test stale", "b.test trusted")
	replaced := change(control.TrustRequest{Action: control.TrustInstall, Hosts: []string{"a.test"}})
	wantList(t, outcomes(replaced, home), ".mozilla/firefox/x failed", ".pki/nssdb installed a.test", ".pki/nssdb removed a.test")
	wantList(t, r.states(t, nss), "*.c.test trusted", "a.test trusted", "b.test trusted")

	check(t, r.client.DeleteHost(within(t), "a.test"))
	gone := change(control.TrustRequest{Action: control.TrustUninstall, Hosts: []string{"a.test"}})
	wantList(t, outcomes(gone, home), ".pki/nssdb removed a.test")
	if !slices.Equal(gone.Restart, []string{"Chromium"}) {
		t.Errorf("%+v", gone)
	}
	wantList(t, r.states(t, nss), "*.c.test trusted", "b.test trusted")
	wantList(t, outcomes(change(control.TrustRequest{Action: control.TrustUninstall, Hosts: []string{"x.c.test"}}), home), ".pki/nssdb removed *.c.test")
	wantList(t, outcomes(change(control.TrustRequest{Action: control.TrustUninstall, All: true}), home), ".pki/nssdb removed b.test")
	wantList(t, r.states(t, nss), "*.c.test missing", "b.test missing")
	files, err := os.ReadDir(filepath.Join(r.options.StateDir, "trust"))
	check(t, err)
	if len(files) != 2 { // of the two hosts that are listed
		t.Errorf("%v", files)
	}
}

func TestTrustMistakes(t *testing.T) {
	r, _ := trustRig(t, "a.test")
	for _, test := range []struct {
		in   control.TrustRequest
		code string
	}{
		{control.TrustRequest{Action: control.TrustInstall}, control.CodeBadRequest},
		{control.TrustRequest{Action: control.TrustInstall, All: true, Hosts: []string{"a.test"}}, control.CodeBadRequest},
		{control.TrustRequest{Action: "remove", All: true}, control.CodeBadRequest},
		{control.TrustRequest{Action: control.TrustInstall, Hosts: []string{"other.test"}}, control.CodeNotFound},
		{control.TrustRequest{Action: control.TrustInstall, Hosts: []string{"https://a.test/"}}, control.CodeBadRequest},
		{control.TrustRequest{Action: control.TrustUninstall, Hosts: []string{"; rm -rf"}}, control.CodeBadRequest},
	} {
		_, err := r.client.ChangeTrust(within(t), test.in)
		wantCode(t, err, test.code)
	}
}

// A root whose file is damaged keeps no other from being installed, and doctor
// knows of all that.
func TestTrustOfADamagedRoot(t *testing.T) {
	r, home := trustRig(t, "a.test", "b.test")
	check(t, os.WriteFile(filepath.Join(r.options.StateDir, "roots", "a.test.pem"), []byte("junk"), 0o600))
	result, err := r.client.ChangeTrust(within(t), control.TrustRequest{Action: control.TrustInstall, All: true})
	check(t, err)
	wantList(t, r.states(t, filepath.Join(home, ".pki/nssdb")), "b.test trusted")
	if !slices.ContainsFunc(result.Changes, func(c control.TrustChange) bool {
		return c.Host == "a.test" && c.Change == control.TrustFailed && c.Hint != ""
	}) {
		t.Errorf("%+v", result)
	}
	answer, err := r.client.Doctor(within(t))
	check(t, err)
	var codes []string
	for _, f := range answer.Findings {
		codes = append(codes, f.Code)
	}
	for _, code := range []string{"root-damaged", "trust-partly"} {
		if !slices.Contains(codes, code) {
			t.Errorf("no finding %s in %q", code, codes)
		}
	}
}

// endingRoot writes the stored root of a host as it is on one of its last days.
func endingRoot(t *testing.T, r *rig, host string, end time.Time) *x509.Certificate {
	t.Helper()
	make := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(t, err)
		if parent == nil {
			parent, parentKey = template, key
		}
		template.NotBefore, template.NotAfter, template.BasicConstraintsValid = end.AddDate(-1, 0, 0), end, true
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		check(t, err)
		c, err := x509.ParseCertificate(der)
		check(t, err)
		return c, key
	}
	root, rootKey := make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Kortti " + host + " 000000000000", Organization: []string{"Kortti"}}, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign, PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{host},
	}, nil, nil)
	leaf, leafKey := make(&x509.Certificate{DNSNames: []string{host}, KeyUsage: x509.KeyUsageDigitalSignature}, root, rootKey)
	key, err := x509.MarshalPKCS8PrivateKey(leafKey)
	check(t, err)
	var text []byte
	for _, b := range []pem.Block{{Type: "CERTIFICATE", Bytes: root.Raw}, {Type: "CERTIFICATE", Bytes: leaf.Raw}, {Type: "PRIVATE KEY", Bytes: key}} {
		text = append(text, pem.EncodeToMemory(&b)...)
	}
	check(t, os.WriteFile(filepath.Join(r.options.StateDir, "roots", host+".pem"), text, 0o600))
	return root
}

// A root in its last 30 days is told of, and goes on to be used until the person
// installs the new one, because no browser trusts that before.
func TestTrustRenewed(t *testing.T) {
	r, home := trustRig(t, "a.test", "b.test")
	nss := filepath.Join(home, ".pki/nssdb")
	old := endingRoot(t, r, "a.test", time.Now().AddDate(0, 0, 20))
	status, err := r.client.Status(within(t))
	check(t, err)
	wantList(t, status.RootsEnding, "a.test")
	answer, err := r.client.Doctor(within(t))
	check(t, err)
	if !slices.ContainsFunc(answer.Findings, func(f control.Finding) bool { return f.Code == "root-ends" }) {
		t.Errorf("doctor does not tell: %+v", answer.Findings)
	}
	shown, err := r.client.Trust(within(t), "a.test")
	check(t, err)
	if block, _ := pem.Decode([]byte(shown.PEM)); !bytes.Equal(block.Bytes, old.Raw) {
		t.Error("renewed before the person was told")
	}
	check(t, os.MkdirAll(nss, 0o700))
	certutil(t, "-N", "-d", "sql:"+nss, "--empty-password")
	file := filepath.Join(home, "old.der")
	check(t, os.WriteFile(file, old.Raw, 0o600))
	certutil(t, "-A", "-d", "sql:"+nss, "-n", "old", "-t", "C,,", "-i", file)
	wantList(t, r.states(t, nss), "a.test trusted", "b.test missing")

	result, err := r.client.ChangeTrust(within(t), control.TrustRequest{Action: control.TrustInstall, Hosts: []string{"a.test"}})
	check(t, err)
	wantList(t, outcomes(result, home), ".mozilla/firefox/x failed", ".pki/nssdb installed a.test", ".pki/nssdb removed a.test")
	wantList(t, r.states(t, nss), "a.test trusted", "b.test missing")
	shown, err = r.client.Trust(within(t), "a.test")
	check(t, err)
	if shown.NotAfter.Before(time.Now().AddDate(0, 11, 0)) {
		t.Errorf("the new one ends on %v", shown.NotAfter)
	}
	status, err = r.client.Status(within(t))
	check(t, err)
	wantList(t, status.RootsEnding)
}
