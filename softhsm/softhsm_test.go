package softhsm_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/softhsm"
	"github.com/miekg/pkcs11"
)

// The test binary started again with this variable signs once with the card
// whose directory it names, as another process would.
const signerVariable = "KORTTI_TEST_SIGN_WITH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(signerVariable); dir != "" {
		if err := signOnce(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func signOnce(dir string) error {
	card, err := softhsm.Open(dir)
	if err != nil {
		return err
	}
	user, err := openCard(card)
	if err != nil {
		return err
	}
	if err := user.module.Login(user.session, pkcs11.CKU_USER, card.Spec().PIN); err != nil {
		return err
	}
	_, err = user.sign(digest[:48], pkcs11.CKM_ECDSA, nil)
	return errors.Join(err, user.close())
}

func TestKeysOnTheCardSign(t *testing.T) {
	for _, kind := range []softhsm.KeyType{softhsm.RSA2048, softhsm.RSA3072, softhsm.P384} {
		t.Run(string(kind), func(t *testing.T) {
			card := create(t, softhsm.Spec{Key: kind})
			user := use(t, card)
			check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
			verify(t, card, user, kind)
		})
	}
}

func TestCountsAreExact(t *testing.T) {
	card := create(t, softhsm.Spec{})
	counts := mustCounts(t, card)
	for name, n := range counts {
		if n != 0 {
			t.Errorf("a new card counts %d of %s", n, name)
		}
	}
	if len(counts) != 68+9 {
		t.Errorf("%d counters, want one for each of 68 functions and 9 results", len(counts))
	}
	user := use(t, card)
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	for range 7 {
		verify(t, card, user, softhsm.P384)
	}
	// miekg/pkcs11 asks for the size before each signature.
	want(t, card, softhsm.Counts{"C_Initialize": 1, "C_OpenSession": 1, "C_Login": 1, "logins_ok": 1,
		"C_SignInit": 7, "C_Sign": 14, "signatures": 7, "logins_refused": 0})
}

func TestPullAndInsert(t *testing.T) {
	card := create(t, softhsm.Spec{})
	user := use(t, card)
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	verify(t, card, user, softhsm.P384)

	check(t, card.Pull())
	if slots, err := user.module.GetSlotList(true); err != nil || len(slots) != 0 {
		t.Errorf("pulled: slots with a token are %v (%v), want none", slots, err)
	}
	if slots, err := user.module.GetSlotList(false); err != nil || len(slots) != 1 {
		t.Errorf("pulled: slots are %v (%v), want the empty one", slots, err)
	}
	if info, err := user.module.GetSlotInfo(0); err != nil || info.Flags&pkcs11.CKF_TOKEN_PRESENT != 0 {
		t.Errorf("pulled: slot info says present (%v)", err)
	}
	_, err := user.module.GetTokenInfo(0)
	wantCode(t, err, pkcs11.CKR_TOKEN_NOT_PRESENT)
	_, err = user.module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION)
	wantCode(t, err, pkcs11.CKR_TOKEN_NOT_PRESENT)
	wantCode(t, user.module.SignInit(user.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, user.key), pkcs11.CKR_DEVICE_REMOVED)

	check(t, card.Insert())
	wantCode(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"), pkcs11.CKR_SESSION_HANDLE_INVALID)
	old := user.session
	user.session, err = user.module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION)
	check(t, err)
	if user.session == old {
		t.Error("the session after insertion has the handle of the one before")
	}
	if user.findKey() == nil {
		t.Error("the private key is visible after insertion without a login")
	}
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	verify(t, card, user, softhsm.P384)
	_, err = user.module.GetSessionInfo(old)
	wantCode(t, err, pkcs11.CKR_SESSION_HANDLE_INVALID)
}

// A process that makes no call while the card is out must not keep its session.
func TestPullBetweenCallsIsNoticed(t *testing.T) {
	card := create(t, softhsm.Spec{})
	user := use(t, card)
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	check(t, user.findKey())
	check(t, card.Pull())
	check(t, card.Insert())
	_, err := user.sign(digest[:48], pkcs11.CKM_ECDSA, nil)
	wantCode(t, err, pkcs11.CKR_SESSION_HANDLE_INVALID)
}

func TestPullDuringSignature(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.SetSignDelay(time.Hour))
	user := use(t, card)
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	check(t, user.findKey())
	done := make(chan error)
	go func() {
		_, err := user.sign(digest[:48], pkcs11.CKM_ECDSA, nil)
		done <- err
	}()
	for mustCounts(t, card)["C_Sign"] < 2 { // the size was asked, the signature is being made
		time.Sleep(time.Millisecond)
	}
	check(t, card.Pull())
	wantCode(t, <-done, pkcs11.CKR_DEVICE_REMOVED)
	want(t, card, softhsm.Counts{"signatures": 0})
}

func TestSignDelay(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.SetSignDelay(100*time.Millisecond))
	user := use(t, card)
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	start := time.Now()
	verify(t, card, user, softhsm.P384)
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Errorf("a signature took %v", d)
	}
}

func TestWrongPINsLockTheCard(t *testing.T) {
	card := create(t, softhsm.Spec{Tries: 3})
	user := use(t, card)
	const pinFlags = pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_LOCKED
	steps := []struct {
		pin   string
		code  pkcs11.Error
		flags uint
		left  int
	}{
		{"9999", pkcs11.CKR_PIN_INCORRECT, pkcs11.CKF_USER_PIN_COUNT_LOW, 2},
		{"12", pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKF_USER_PIN_COUNT_LOW, 2},
		{"1234567890123", pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKF_USER_PIN_COUNT_LOW, 2},
		{"1234", pkcs11.CKR_OK, 0, 3},
		{"1234", pkcs11.CKR_USER_ALREADY_LOGGED_IN, 0, 3},
		{"9999", pkcs11.CKR_PIN_INCORRECT, pkcs11.CKF_USER_PIN_COUNT_LOW, 2},
		{"9999", pkcs11.CKR_PIN_INCORRECT, pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, 1},
		{"9999", pkcs11.CKR_PIN_LOCKED, pkcs11.CKF_USER_PIN_LOCKED, 0},
		{"1234", pkcs11.CKR_PIN_LOCKED, pkcs11.CKF_USER_PIN_LOCKED, 0},
	}
	for i, s := range steps {
		if i == 5 {
			check(t, user.module.Logout(user.session))
		}
		wantCode(t, user.module.Login(user.session, pkcs11.CKU_USER, s.pin), s.code)
		info, err := user.module.GetTokenInfo(0)
		check(t, err)
		if info.Flags&pinFlags != s.flags {
			t.Errorf("step %d: PIN flags %#x, want %#x", i, info.Flags&pinFlags, s.flags)
		}
		if left, err := card.TriesLeft(); err != nil || left != s.left {
			t.Errorf("step %d: %d tries left (%v), want %d", i, left, err, s.left)
		}
	}
	want(t, card, softhsm.Counts{"C_Login": 9, "logins_ok": 1, "logins_refused": 4, "logins_locked": 1, "logins_other": 3})

	// The security officer unblocks.
	check(t, user.module.Login(user.rw(t), pkcs11.CKU_SO, "12345678"))
	check(t, user.module.InitPIN(user.session, "4321"))
	check(t, user.module.Logout(user.session))
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "4321"))
}

func TestChangingThePINCountsTries(t *testing.T) {
	card := create(t, softhsm.Spec{Tries: 2})
	user := use(t, card)
	session := user.rw(t)
	wantCode(t, user.module.SetPIN(session, "9999", "4321"), pkcs11.CKR_PIN_INCORRECT)
	wantCode(t, user.module.SetPIN(session, "1234", "12"), pkcs11.CKR_PIN_LEN_RANGE)
	check(t, user.module.SetPIN(session, "1234", "4321"))
	if left, err := card.TriesLeft(); err != nil || left != 2 {
		t.Errorf("%d tries left after the change (%v), want all 2", left, err)
	}
	check(t, user.module.Login(session, pkcs11.CKU_USER, "4321"))
}

func TestProcessesShareTheCard(t *testing.T) {
	card := create(t, softhsm.Spec{})
	const processes = 4
	var group sync.WaitGroup
	for range processes {
		group.Go(func() {
			if out, err := elsewhere(card).CombinedOutput(); err != nil {
				t.Errorf("signing in another process: %v\n%s", err, out)
			}
		})
	}
	group.Wait()
	want(t, card, softhsm.Counts{"C_Initialize": processes, "logins_ok": processes, "signatures": processes, "C_Sign": 2 * processes})

	check(t, card.Pull())
	out, err := elsewhere(card).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CKR_TOKEN_NOT_PRESENT") {
		t.Errorf("another process uses the pulled card: %v\n%s", err, out)
	}
	want(t, card, softhsm.Counts{"signatures": processes})
}

// elsewhere is a process with nothing in its environment that signs once.
func elsewhere(card *softhsm.Card) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{signerVariable + "=" + card.Dir()}
	return cmd
}

func TestTwoCardsInOneProcess(t *testing.T) {
	t.Setenv("SOFTHSM2_CONF", "/nonexistent")
	one, two := create(t, softhsm.Spec{Label: "one"}), create(t, softhsm.Spec{Label: "two", Key: softhsm.RSA2048})
	users := []*user{use(t, one), use(t, two)}
	for i, card := range []*softhsm.Card{one, two} {
		info, err := users[i].module.GetTokenInfo(0)
		check(t, err)
		if info.Label != card.Spec().Label {
			t.Errorf("token label %q, want %q", info.Label, card.Spec().Label)
		}
		check(t, users[i].module.Login(users[i].session, pkcs11.CKU_USER, "1234"))
	}
	check(t, one.Pull())
	verify(t, two, users[1], softhsm.RSA2048)
	want(t, one, softhsm.Counts{"signatures": 0})
	want(t, two, softhsm.Counts{"signatures": 1})
}

func TestConcurrentCreate(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // so that they compile at once too
	root := t.TempDir()
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			if _, err := softhsm.Create(filepath.Join(root, fmt.Sprint("card", i)), softhsm.Spec{}); err != nil {
				t.Errorf("card %d: %v", i, err)
			}
		})
	}
	var won, lost int
	results := make(chan error)
	for range 3 {
		go func() {
			_, err := softhsm.Create(filepath.Join(root, "same"), softhsm.Spec{})
			results <- err
		}()
	}
	for range 3 {
		switch err := <-results; {
		case err == nil:
			won++
		case errors.Is(err, softhsm.ErrExists):
			lost++
		default:
			t.Error(err)
		}
	}
	group.Wait()
	if won != 1 || lost != 2 {
		t.Errorf("of 3 that make a card in one directory %d won and %d lost", won, lost)
	}
	cards, err := softhsm.List(root)
	check(t, err)
	var names []string
	for _, c := range cards {
		names = append(names, c.Name())
	}
	if got := strings.Join(names, " "); got != "card0 card1 card2 card3 same" {
		t.Errorf("List returned %s", got)
	}
}

func TestOpenListDelete(t *testing.T) {
	root := t.TempDir()
	card, err := softhsm.Create(filepath.Join(root, "a"), softhsm.Spec{})
	check(t, err)
	if card.Spec().Label != "kortti test card" {
		t.Errorf("default label %q", card.Spec().Label)
	}
	check(t, os.Mkdir(filepath.Join(root, "not-a-card"), 0o700))
	if _, err := softhsm.Open(filepath.Join(root, "not-a-card")); !errors.Is(err, softhsm.ErrNoCard) {
		t.Errorf("opening an empty directory: %v", err)
	}
	cards, err := softhsm.List(root)
	if err != nil || len(cards) != 1 || cards[0].Dir() != card.Dir() || cards[0].Spec() != card.Spec() {
		t.Errorf("List: %v, %v", cards, err)
	}
	user := use(t, card)
	check(t, card.Delete())
	wantCode(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"), pkcs11.CKR_DEVICE_REMOVED)
	if _, err := os.Stat(card.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the card's directory is still there: %v", err)
	}
	if err := card.Pull(); !errors.Is(err, softhsm.ErrNoCard) {
		t.Errorf("pulling a deleted card: %v", err)
	}
	if cards, err := softhsm.List(filepath.Join(root, "missing")); err != nil || len(cards) != 0 {
		t.Errorf("List of nothing: %v, %v", cards, err)
	}
	check(t, os.WriteFile(filepath.Join(root, "not-a-card", "card.json"), []byte("{"), 0o600))
	if _, err := softhsm.List(root); err == nil || !strings.Contains(err.Error(), "not-a-card") {
		t.Errorf("List with a broken card: %v", err)
	}
}

func TestCertificatesAndMoreKeys(t *testing.T) {
	card := create(t, softhsm.Spec{})
	public, err := card.AddKey(softhsm.RSA2048, []byte{softhsm.SignatureID}, "signature key")
	check(t, err)
	if _, err := card.AddKey(softhsm.P384, []byte{softhsm.SignatureID}, "again"); err == nil {
		t.Error("a second key got the id of another")
	}
	der := certificate(t, public)
	check(t, card.ImportCertificate([]byte{softhsm.SignatureID}, "signature", der))
	check(t, card.Pull())
	if err := card.ImportCertificate([]byte{softhsm.SignatureID}, "signature", der); err == nil || !strings.Contains(err.Error(), "insert it") {
		t.Errorf("importing to a pulled card: %v", err)
	}
	check(t, card.Insert())
	user := use(t, card)
	check(t, user.module.FindObjectsInit(user.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{softhsm.SignatureID}),
	}))
	found, _, err := user.module.FindObjects(user.session, 2)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d certificates without a login (%v), want 1", len(found), err)
	}
	value, err := user.module.GetAttributeValue(user.session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil || string(value[0].Value) != string(der) {
		t.Errorf("the certificate on the card is another (%v)", err)
	}
}

func TestTokenWithoutPSS(t *testing.T) {
	card := create(t, softhsm.Spec{Key: softhsm.RSA2048, NoPSS: true})
	user := use(t, card)
	mechanisms, err := user.module.GetMechanismList(0)
	check(t, err)
	for _, m := range mechanisms {
		if m.Mechanism == pkcs11.CKM_RSA_PKCS_PSS || m.Mechanism == pkcs11.CKM_RSA_X_509 {
			t.Errorf("the token has mechanism %#x", m.Mechanism)
		}
	}
	check(t, user.module.Login(user.session, pkcs11.CKU_USER, "1234"))
	check(t, user.findKey())
	_, err = user.sign(digest[:32], pkcs11.CKM_RSA_PKCS, nil)
	check(t, err)
}

func TestRefusals(t *testing.T) {
	for name, spec := range map[string]softhsm.Spec{
		"label": {Label: strings.Repeat("ä", 17)}, "short": {PIN: "123"}, "long": {SOPIN: "1234567890123"},
		"key": {Key: "dsa"}, "tries": {Tries: -1}, "no PSS on P-384": {NoPSS: true},
	} {
		dir := filepath.Join(t.TempDir(), "card")
		if _, err := softhsm.Create(dir, spec); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: left %s behind", name, dir)
		}
	}
}

func TestMissingCompilerIsNamed(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	_, err := softhsm.Create(filepath.Join(t.TempDir(), "card"), softhsm.Spec{})
	if !errors.Is(err, softhsm.ErrNotInstalled) || !strings.Contains(err.Error(), "apt install gcc") {
		t.Errorf("without a compiler: %v", err)
	}
}

// miekg/pkcs11 throws the answer away; what counts is that the call returns.
func TestWaitForSlotEventReturns(t *testing.T) {
	card := create(t, softhsm.Spec{})
	user := use(t, card)
	<-user.module.WaitForSlotEvent(pkcs11.CKF_DONT_BLOCK)
	<-user.module.WaitForSlotEvent(0)
	want(t, card, softhsm.Counts{"C_WaitForSlotEvent": 2})
}

func certificate(t *testing.T, public any) []byte {
	t.Helper()
	issuer, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "MEIKÄLÄINEN MAIJA"},
		NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, issuer)
	check(t, err)
	return der
}
