package card

import (
	"crypto"
	"crypto/tls"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
	"github.com/kortti-id/kortti/softhsm"
)

func TestCertificatesAreShownWithoutAPIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{Label: "HENKILOKORTTI"})
	m := start(t, Config{Modules: []string{c.Module()}})
	card := onlyCard(t, m)
	if card.Label != "HENKILOKORTTI" || card.State != Locked || !card.PIN.Initialized || card.PIN.Max == 0 {
		t.Errorf("card = %+v", card)
	}
	if len(card.Certificates) != 2 {
		t.Fatalf("%d certificates, want the two of the person and not the CA's", len(card.Certificates))
	}
	_, auth, ok := m.Snapshot().Find(c.auth)
	if !ok || !auth.Login || auth.KeyType != "P-384" || !slices.Equal(auth.Schemes, []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}) ||
		auth.MaxVersion != tls.VersionTLS13 || len(auth.Chain) != 1 || !auth.Chain[0].Equal(c.issuer) {
		t.Errorf("authentication certificate = %+v", auth)
	}
	_, signature, ok := m.Snapshot().Find(c.signature)
	if !ok || signature.Login || !strings.Contains(signature.WhyNot, "nonRepudiation") {
		t.Errorf("signature certificate = %+v", signature)
	}
	if n := c.count(t, "C_Login"); n != 0 {
		t.Errorf("%d C_Login, want none", n)
	}
}

func TestLoginByTLS(t *testing.T) {
	for name, test := range map[string]struct {
		spec     softhsm.Spec
		rawOnly  bool
		versions []uint16
	}{
		"P-384":        {softhsm.Spec{Key: softhsm.P384}, false, []uint16{tls.VersionTLS12, tls.VersionTLS13}},
		"RSA-2048":     {softhsm.Spec{Key: softhsm.RSA2048}, false, []uint16{tls.VersionTLS12, tls.VersionTLS13}},
		"RSA PKCS1":    {softhsm.Spec{Key: softhsm.RSA2048, NoPSS: true}, false, []uint16{tls.VersionTLS12}},
		"RSA raw only": {softhsm.Spec{Key: softhsm.RSA2048, NoPSS: true}, true, []uint16{tls.VersionTLS12, tls.VersionTLS13}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCard(t, test.spec)
			if test.rawOnly {
				leaveRawRSA(t, c)
			}
			m := start(t, Config{Modules: []string{c.Module()}})
			if _, err := m.Signer(c.auth, testHost); !errors.Is(err, ErrLocked) {
				t.Fatalf("Signer of a locked card: err = %v", err)
			}
			mustUnlock(t, m, c)
			for _, version := range test.versions {
				if got, err := login(t, m, c, testHost, version); err != nil || got != version {
					t.Fatalf("login: version %x, err = %v", got, err)
				}
			}
			if n := m.Snapshot().Readers; onlyCard(t, m).Certificates[0].MaxVersion != slices.Max(test.versions) {
				t.Errorf("readers = %+v, want TLS up to %x", n, slices.Max(test.versions))
			}
			if made, counted := c.count(t, "signatures"), m.Counters().Signatures; made != uint64(len(test.versions)) || made != counted {
				t.Errorf("the card made %d signatures and the manager counted %d; want %d", made, counted, len(test.versions))
			}
			if n := c.count(t, "C_Login"); n != 1 {
				t.Errorf("%d C_Login, want 1", n)
			}
		})
	}
}

// leaveRawRSA makes a token without PSS one that has raw RSA alone.
func leaveRawRSA(t *testing.T, c *testCard) {
	t.Helper()
	path := filepath.Join(c.Dir(), "softhsm2.conf")
	config, err := os.ReadFile(path)
	check(t, err)
	changed := strings.Replace(string(config), "CKM_RSA_PKCS,", "CKM_RSA_X_509,", 1)
	if changed == string(config) {
		t.Fatalf("%s names no mechanism to replace:\n%s", path, config)
	}
	check(t, os.WriteFile(path, []byte(changed), 0o600))
}

func TestOnlyProofsForTheAgreedHostAreSigned(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	mustUnlock(t, m, c)
	signer, err := m.Signer(c.auth, testHost)
	check(t, err)
	_, err = signer.Sign(nil, make([]byte, 48), crypto.SHA384)
	wantError(t, err, ErrNotAProof)
	_, err = signer.SignMessage(nil, []byte("%PDF-1.7 a contract"), crypto.SHA384)
	wantError(t, err, ErrNotAProof)
	_, err = signer.SignMessage(nil, make([]byte, 1<<20), crypto.SHA384)
	wantError(t, err, ErrNotAProof)
	_, err = login(t, m, c, "muu.example.fi", tls.VersionTLS12)
	wantError(t, err, ErrNotAProof)
	if n := c.count(t, "C_Sign"); n != 0 {
		t.Errorf("the card was asked to sign %d times", n)
	}
	if _, err := login(t, m, c, testHost, tls.VersionTLS12); err != nil {
		t.Errorf("refusals locked the card: %v", err)
	}
	wantError(t, m.Unlock(within(t), c.signature, NewPIN([]byte(rightPIN)), UnlockOptions{}), ErrNotForLogin)
}

func TestWrongPINIsOneLoginAndNeverTwice(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	events, done := m.Subscribe()
	defer done()
	wantError(t, unlock(t, m, c, wrongPIN, UnlockOptions{}), ErrWrongPIN)
	next(t, events, PINRefused)
	if n := c.count(t, "C_Login"); n != 1 {
		t.Fatalf("%d C_Login, want 1", n)
	}
	if !onlyCard(t, m).PIN.CountLow {
		t.Error("the card's PIN state does not show the wrong PIN")
	}
	before := m.Counters().Children
	wantError(t, unlock(t, m, c, wrongPIN, UnlockOptions{}), ErrPINRefusedBefore)
	if n, children := c.count(t, "C_Login"), m.Counters().Children; n != 1 || children != before {
		t.Fatalf("%d C_Login and %d more children, want the same PIN kept from the card", n, children-before)
	}
	mustUnlock(t, m, c)
	check(t, m.Lock("", "test"))
	wantError(t, unlock(t, m, c, wrongPIN, UnlockOptions{}), ErrPINRefusedBefore)
}

func TestFinalTryAndLockedPIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{Tries: 3})
	m := start(t, Config{Modules: []string{c.Module()}})
	wantError(t, unlock(t, m, c, "1111", UnlockOptions{}), ErrWrongPIN)
	wantError(t, unlock(t, m, c, "2222", UnlockOptions{}), ErrWrongPIN)
	if !onlyCard(t, m).PIN.FinalTry {
		t.Error("the final try is not shown")
	}
	wantError(t, unlock(t, m, c, "3333", UnlockOptions{}), ErrFinalTry)
	if n := c.count(t, "C_Login"); n != 2 {
		t.Fatalf("%d C_Login, want 2: the final try was not confirmed", n)
	}
	wantError(t, unlock(t, m, c, "3333", UnlockOptions{ConfirmFinal: true}), ErrPINLocked)
	wantError(t, unlock(t, m, c, rightPIN, UnlockOptions{ConfirmFinal: true}), ErrPINLocked)
	if n := c.count(t, "C_Login"); n != 3 {
		t.Errorf("%d C_Login, want 3: none on a locked PIN", n)
	}
}

// A manager that knows nothing of the card's past must see its flags before it
// logs in, also if its snapshot is old.
func TestFlagsAreReadRightBeforeTheLogin(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{Tries: 2})
	idle := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
	other := start(t, Config{Modules: []string{c.Module()}})
	wantError(t, unlock(t, other, c, "1111", UnlockOptions{}), ErrWrongPIN)
	if onlyCard(t, idle).PIN.FinalTry {
		t.Fatal("the test means the snapshot to be old")
	}
	wantError(t, unlock(t, idle, c, rightPIN, UnlockOptions{}), ErrFinalTry)
	if n := c.count(t, "C_Login"); n != 1 {
		t.Errorf("%d C_Login, want 1", n)
	}
}

func TestPINLengthIsCheckedHere(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	for _, pin := range []string{"", "1", strings.Repeat("1", 300)} {
		wantError(t, unlock(t, m, c, pin, UnlockOptions{}), ErrPINLength)
	}
	wantError(t, m.Unlock(within(t), c.auth, nil, UnlockOptions{}), ErrPINLength) // no PIN pad
	if n := c.count(t, "C_Login"); n != 0 {
		t.Errorf("%d C_Login, want none", n)
	}
}

func TestConcurrentUnlocksLogInOnce(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	var wg sync.WaitGroup
	pins := make([]*PIN, 100)
	errs := make([]error, len(pins))
	ctx := within(t)
	for i := range pins {
		pins[i] = NewPIN([]byte(rightPIN))
		wg.Go(func() { errs[i] = m.Unlock(ctx, c.auth, pins[i], UnlockOptions{}) })
	}
	wg.Wait()
	for i := range pins {
		if errs[i] != nil || pins[i].bytes != nil {
			t.Fatalf("unlock %d: err = %v, PIN wiped: %v", i, errs[i], pins[i].bytes == nil)
		}
	}
	if n := c.count(t, "C_Login"); n != 1 {
		t.Errorf("%d C_Login, want 1", n)
	}
}

func TestConcurrentSignatures(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	mustUnlock(t, m, c)
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { errs[i] = sign(t, m, c) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := m.Counters().Signatures; n != uint64(len(errs)) {
		t.Errorf("%d signatures, want %d", n, len(errs))
	}
}

func TestLockEndsTheSigner(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	events, done := m.Subscribe()
	defer done()
	lister := children(t)
	mustUnlock(t, m, c)
	unlocked := onlyCard(t, m)
	pid := slices.DeleteFunc(children(t), func(pid int) bool { return slices.Contains(lister, pid) })
	if len(pid) != 1 || unlocked.State != Unlocked {
		t.Fatalf("unlocked: state %v, signer processes %v", unlocked.State, pid)
	}
	signer, err := m.Signer(c.auth, testHost)
	check(t, err)
	check(t, m.Lock(unlocked.ID, "test"))
	if err := syscall.Kill(pid[0], 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the signer process is still there: %v", err)
	}
	locked := onlyCard(t, m)
	if locked.State != Locked || locked.Epoch <= unlocked.Epoch {
		t.Errorf("after Lock: %v, epoch %d after %d", locked.State, locked.Epoch, unlocked.Epoch)
	}
	if e := next(t, events, WasLocked); e.Epoch != locked.Epoch || e.Reason != "test" {
		t.Errorf("event = %+v", e)
	}
	_, err = signer.SignMessage(nil, []byte("x"), crypto.SHA384)
	wantError(t, err, ErrLocked)
	_, err = m.Signer(c.auth, testHost)
	wantError(t, err, ErrLocked)

	mustUnlock(t, m, c)
	_, err = signer.SignMessage(nil, []byte("x"), crypto.SHA384)
	wantError(t, err, ErrLocked) // a key of the old epoch
	if n := c.count(t, "C_Login"); n != 2 {
		t.Errorf("%d C_Login, want 2", n)
	}
}

func TestLockDuringASignature(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	mustUnlock(t, m, c)
	check(t, c.SetSignDelay(time.Minute))
	failed := make(chan error, 1)
	go func() { failed <- sign(t, m, c) }()
	waitFor(t, "the signature to be under way", func() bool { return c.count(t, "C_SignInit") > 0 })
	check(t, m.Lock("", "test"))
	wantError(t, <-failed, ErrLocked)
}

func TestIdleLock(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, IdleLock: 200 * time.Millisecond})
	events, done := m.Subscribe()
	defer done()
	mustUnlock(t, m, c)
	if e := next(t, events, WasLocked); !strings.Contains(e.Reason, "not used") {
		t.Errorf("event = %+v", e)
	}
	_, err := m.Signer(c.auth, testHost)
	wantError(t, err, ErrLocked)

	m.SetIdleLock(0)
	mustUnlock(t, m, c)
	m.SetIdleLock(time.Millisecond) // also for a card that is unlocked already
	if e := next(t, events, WasLocked); !strings.Contains(e.Reason, "not used") {
		t.Errorf("event = %+v", e)
	}
}

func TestPullAndInsert(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Second})
	events, done := m.Subscribe()
	defer done()
	mustUnlock(t, m, c)
	first := onlyCard(t, m)
	signer, err := m.Signer(c.auth, testHost)
	check(t, err)

	pulled := time.Now()
	check(t, c.Pull())
	if e := next(t, events, Removed); time.Since(pulled) > 2*time.Second || e.Epoch <= first.Epoch {
		t.Errorf("removal noticed after %v, event %+v", time.Since(pulled), e)
	}
	_, err = signer.SignMessage(nil, []byte("x"), crypto.SHA384)
	wantError(t, err, ErrRemoved)
	_, err = m.Signer(c.auth, testHost)
	wantError(t, err, ErrNoCard)
	wantError(t, unlock(t, m, c, rightPIN, UnlockOptions{}), ErrNoCard)

	check(t, c.Insert())
	next(t, events, Inserted)
	again := onlyCard(t, m)
	if again.ID != first.ID || again.State != Locked || again.Epoch <= first.Epoch {
		t.Errorf("after insertion: %+v", again)
	}
	_, err = m.Signer(c.auth, testHost)
	wantError(t, err, ErrLocked)
	if n := c.count(t, "C_Login"); n != 1 {
		t.Errorf("%d C_Login, want 1: insertion needs a new PIN", n)
	}
	mustUnlock(t, m, c)
	if _, err := login(t, m, c, testHost, tls.VersionTLS13); err != nil {
		t.Error(err)
	}
}

// A card that is back before anyone looked must not stay unlocked.
func TestPullAndInsertBetweenTwoLooks(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
	mustUnlock(t, m, c)
	check(t, c.Pull())
	check(t, c.Insert())
	wantError(t, sign(t, m, c), ErrRemoved)
	if n := c.count(t, "C_Login"); n != 1 {
		t.Errorf("%d C_Login, want 1", n)
	}
}

func TestASwappedCardNeverGetsThePIN(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
	// The certificate that the manager knows is replaced behind its back.
	m.mu.Lock()
	e := m.modules[0].slots[0].entry
	other := newTestCard(t, softhsm.Spec{})
	for i := range e.card.Certificates {
		e.card.Certificates[i].Fingerprint = other.auth
	}
	m.publish()
	m.mu.Unlock()
	err := m.Unlock(within(t), other.auth, NewPIN([]byte(rightPIN)), UnlockOptions{})
	wantError(t, err, ErrRemoved)
	if n := c.count(t, "C_Login"); n != 0 {
		t.Errorf("%d C_Login, want none", n)
	}
}

func TestModulesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	c := newTestCard(t, softhsm.Spec{})
	limits := defaultLimits
	limits.load = time.Second
	library, err := filepath.Glob("/lib/*/libm.so.6")
	check(t, err)
	for name, test := range map[string]struct {
		path string
		err  error
		text string
	}{
		"missing":       {filepath.Join(dir, "missing.so"), ErrModule, "no such file"},
		"not a library": {"/etc/passwd", ErrModule, "invalid ELF header"},
		"no PKCS#11":    {library[0], ErrModule, "it has no C_GetFunctionList"},
		"fails":         {faulty(t, dir, "fails"), ErrModule, "0x5"},
		"crashes":       {faulty(t, dir, "CRASH"), ErrModuleCrashed, "SIGABRT"},
		"hangs":         {faulty(t, dir, "HANG"), ErrModuleHung, "within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			m := startWith(t, Config{Modules: []string{test.path, c.Module()}}, limits)
			infos := m.Snapshot().Modules
			wantError(t, infos[0].Err, test.err)
			if !strings.Contains(infos[0].Err.Error(), test.text) || !strings.Contains(infos[0].Err.Error(), test.path) {
				t.Errorf("err = %v, want it to name %s and say %q", infos[0].Err, test.path, test.text)
			}
			if infos[1].Err != nil || infos[1].Description == "" {
				t.Errorf("the good module: %+v", infos[1])
			}
			mustUnlock(t, m, c)
		})
	}
}

// faulty builds testdata/faulty.c with a macro set.
func faulty(t *testing.T, dir, macro string) string {
	t.Helper()
	path := filepath.Join(dir, macro+".so")
	out, err := exec.Command("cc", "-shared", "-fPIC", "-D"+macro, "-o", path, "testdata/faulty.c").CombinedOutput()
	if err != nil {
		t.Fatalf("build a faulty module: %v\n%s", err, out)
	}
	return path
}

func TestACrashedListerIsReplaced(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	events, done := m.Subscribe()
	defer done()
	for _, pid := range children(t) { // the PC/SC watcher too
		check(t, syscall.Kill(pid, syscall.SIGSEGV))
	}
	next(t, events, ModuleFailed)
	next(t, events, Inserted)
	mustUnlock(t, m, c)
}

func TestACrashedSignerLocksTheCard(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
	events, done := m.Subscribe()
	defer done()
	lister := children(t)
	mustUnlock(t, m, c)
	signer, err := m.Signer(c.auth, testHost)
	check(t, err)
	for _, pid := range children(t) {
		if !slices.Contains(lister, pid) {
			check(t, syscall.Kill(pid, syscall.SIGSEGV))
		}
	}
	next(t, events, WasLocked)
	_, err = signer.SignMessage(nil, []byte("x"), crypto.SHA384)
	wantError(t, err, ErrModuleCrashed)
	mustUnlock(t, m, c)
}

// SoftHSM sometimes cannot read a token while another process logs in to it.
func TestATokenThatCannotBeReadJustNowStays(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
	mustUnlock(t, m, c)
	before := onlyCard(t, m)
	var infos []wire.SlotInfo
	for _, r := range m.Snapshot().Readers {
		infos = append(infos, wire.SlotInfo{
			Description: r.Name, Present: true,
			Unread: &wire.Fault{Kind: wire.PKCS11, Function: "C_GetTokenInfo", Code: 5},
		})
	}
	m.modules[0].update(infos, nil)
	if after := onlyCard(t, m); after.State != Unlocked || after.Epoch != before.Epoch {
		t.Errorf("card = %+v", after)
	}
	check(t, sign(t, m, c))
}

func TestTwoCardsAreIndependent(t *testing.T) {
	a, b := newTestCard(t, softhsm.Spec{Label: "A"}), newTestCard(t, softhsm.Spec{Label: "B", Key: softhsm.RSA2048})
	m := start(t, Config{Modules: []string{a.Module(), b.Module(), a.Module()}})
	if n := len(m.Snapshot().Modules); n != 2 {
		t.Fatalf("%d modules, want a module named twice to be loaded once", n)
	}
	mustUnlock(t, m, a)
	mustUnlock(t, m, b)
	card, _, _ := m.Snapshot().Find(a.auth)
	check(t, m.Lock(card.ID, "test"))
	_, err := m.Signer(a.auth, testHost)
	wantError(t, err, ErrLocked)
	if _, err := login(t, m, b, testHost, tls.VersionTLS13); err != nil {
		t.Error(err)
	}
}

func TestOneCardThroughTwoModulesIsOfferedOnce(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	// The shim finds its card beside itself: a copy of the directory is the
	// same card to one who compares certificates.
	dir := filepath.Join(t.TempDir(), "copy")
	out, err := exec.Command("cp", "-r", c.Dir(), dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := start(t, Config{Modules: []string{c.Module(), filepath.Join(dir, filepath.Base(c.Module()))}})
	offered := 0
	for _, r := range m.Snapshot().Readers {
		if r.Card == nil {
			continue
		}
		for _, cert := range r.Card.Certificates {
			if cert.Login {
				offered++
			}
		}
	}
	if offered != 1 {
		t.Errorf("the certificate is offered %d times, want once", offered)
	}
}

func TestRefreshSeesANewCertificate(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}, Poll: time.Hour})
	check(t, c.Pull())
	check(t, m.Refresh(within(t)))
	if _, _, ok := m.Snapshot().Find(c.auth); ok {
		t.Error("Refresh did not see that the card is gone")
	}
	check(t, c.Insert())
	check(t, m.Refresh(within(t)))
	mustUnlock(t, m, c)
	check(t, m.Refresh(within(t)))
	if onlyCard(t, m).State != Unlocked {
		t.Error("Refresh locked the card")
	}
}

func TestChildrenAreSealed(t *testing.T) {
	t.Setenv("LD_DEBUG_OUTPUT", filepath.Join(t.TempDir(), "x"))
	t.Setenv("PKCS11SPY", "/tmp/spy")
	t.Setenv("OPENSC_DEBUG", "9")
	for _, variable := range cleanEnvironment() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "LD_") || name == "PKCS11SPY" || name == "OPENSC_DEBUG" || name == "P11_KIT_DEBUG" {
			t.Errorf("children get %s", name)
		}
	}
	out, err := exec.Command(testExecutable(t), "kortti-card-child", "module").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "started by kortti itself") {
		t.Errorf("a child started by hand: %v, %q", err, out)
	}
}

func testExecutable(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/proc/self/exe")
	check(t, err)
	return path
}

func TestCloseEndsEverything(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	events, _ := m.Subscribe()
	mustUnlock(t, m, c)
	check(t, m.Close())
	check(t, m.Close())
	for range events { // must be closed
	}
	wantError(t, unlock(t, m, c, rightPIN, UnlockOptions{}), ErrClosed)
	wantError(t, m.Refresh(within(t)), ErrClosed)
	late, done := m.Subscribe()
	defer done()
	if _, open := <-late; open {
		t.Error("a subscription after Close is open")
	}
}

func TestSlowSubscriberDelaysNobody(t *testing.T) {
	c := newTestCard(t, softhsm.Spec{})
	m := start(t, Config{Modules: []string{c.Module()}})
	events, done := m.Subscribe()
	defer done()
	mustUnlock(t, m, c)
	for range 50 {
		m.mu.Lock()
		m.emit(Event{Kind: SignatureMade, Card: "x"})
		m.mu.Unlock()
	}
	check(t, m.Lock("", "last"))
	if e := next(t, events, WasLocked); e.Reason != "last" {
		t.Errorf("event = %+v", e)
	}
}

func TestAutoThatFindsNothingIsSaid(t *testing.T) {
	m := start(t, Config{Modules: []string{"auto"}})
	for _, info := range m.Snapshot().Modules {
		if info.Path == "auto" {
			wantError(t, info.Err, ErrModule)
		}
	}
	if len(m.Snapshot().Modules) == 0 {
		t.Error("nothing is said of modules")
	}
}

func TestNothingConfigured(t *testing.T) {
	for _, modules := range [][]string{nil, {"libsofthsm2.so"}} {
		if _, err := NewManager(Config{Modules: modules}); err == nil {
			t.Errorf("modules %q were taken", modules)
		}
	}
}
