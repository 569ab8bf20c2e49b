package softhsm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/softhsm"
	"github.com/miekg/pkcs11"
)

func TestFaultsThatEndTheProcess(t *testing.T) {
	for want, fault := range map[string]softhsm.Fault{
		"signal: segmentation fault": {Function: "C_Sign", Action: softhsm.Segfault},
		"signal: aborted":            {Function: "C_Initialize", Action: softhsm.Abort},
		"exit status 7":              {Function: "C_FindObjects", Action: softhsm.Exit, Value: 7},
	} {
		card := create(t, softhsm.Spec{})
		check(t, card.Fault(fault))
		err := elsewhere(card).Run()
		// Go's runtime turns a crash in C code into a report and exit status 2.
		if err == nil || err.Error() != want && err.Error() != "exit status 2" {
			t.Errorf("%+v: %v, want %s", fault, err, want)
		}
	}
}

func TestAHangEndsWhenItsFaultIsCleared(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.Fault(softhsm.Fault{Function: "C_Login", Action: softhsm.Hang}))
	child := elsewhere(card)
	check(t, child.Start())
	for mustCounts(t, card)["C_Login"] == 0 {
		time.Sleep(time.Millisecond)
	}
	want(t, card, softhsm.Counts{"C_Login": 1, "logins_ok": 0, "C_Sign": 0})
	check(t, card.ClearFaults())
	check(t, child.Wait())
	want(t, card, softhsm.Counts{"C_Login": 1, "logins_ok": 1, "signatures": 1})
}

func TestFaultsOfSomeCalls(t *testing.T) {
	card := create(t, softhsm.Spec{})
	u := use(t, card)
	check(t, card.Fault(softhsm.Fault{Function: "C_GetSessionInfo", Action: softhsm.Answer, Value: pkcs11.CKR_DEVICE_ERROR, First: 2, Times: 2}))
	for call, code := range []pkcs11.Error{pkcs11.CKR_OK, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_OK} {
		_, err := u.module.GetSessionInfo(u.session)
		if got, _ := err.(pkcs11.Error); got != code {
			t.Errorf("call %d: %v, want %v", call+1, err, code)
		}
	}
	check(t, card.Fault(softhsm.Fault{Function: "C_GetSessionInfo", Action: softhsm.Delay, Value: 30, Times: 1}))
	start := time.Now()
	_, err := u.module.GetSessionInfo(u.session)
	if took := time.Since(start); err != nil || took < 30*time.Millisecond {
		t.Errorf("a delayed call took %v and answered %v", took, err)
	}
	check(t, card.Fault(softhsm.Fault{Function: "C_GetSessionInfo", Action: softhsm.Forget, Times: 1}))
	_, err = u.module.GetSessionInfo(u.session)
	wantCode(t, err, pkcs11.CKR_SESSION_HANDLE_INVALID)
	if in, err := card.Present(); err != nil || !in {
		t.Errorf("a card whose sessions were forgotten is present: %v, %v", in, err)
	}
}

func TestDistortedAnswers(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.ImportCertificate([]byte{softhsm.AuthenticationID}, "c", certificate(t, publicKey(t, card))))
	u := use(t, card)
	check(t, card.Fault(softhsm.Fault{Function: "C_GetMechanismList", Action: softhsm.Deliver, Value: 2}))
	list, err := u.module.GetMechanismList(0)
	if err != nil || len(list) != 2 {
		t.Errorf("%d mechanisms, %v; want 2", len(list), err)
	}
	check(t, card.Fault(softhsm.Fault{Function: "C_GetSlotList", Action: softhsm.Announce, Value: 0}))
	_, err = u.module.GetSlotList(true)
	wantCode(t, err, pkcs11.CKR_BUFFER_TOO_SMALL)
	check(t, card.Fault(softhsm.Fault{Function: "C_GetTokenInfo", Action: softhsm.Scramble, Value: 'x'}))
	info, err := u.module.GetTokenInfo(0)
	if err != nil || info.Label != strings.Repeat("x", 32) {
		t.Errorf("token info %+v, %v", info, err)
	}
	check(t, card.ClearFaults())
	if info, err = u.module.GetTokenInfo(0); err != nil || info.Label != "kortti test card" {
		t.Errorf("token info %+v, %v", info, err)
	}
}

func TestFaultsThatAreNone(t *testing.T) {
	card := create(t, softhsm.Spec{})
	for _, fault := range []softhsm.Fault{
		{Function: "C_Sing", Action: softhsm.Hang}, {Function: "", Action: softhsm.Hang}, {Function: "C_Sign"},
		{Function: "C_Sign", Action: softhsm.Scramble + 1}, {Function: "C_Sign", Action: softhsm.Hang, First: -1},
	} {
		if err := card.Fault(fault); err == nil {
			t.Errorf("%+v was taken", fault)
		}
	}
	for range 16 {
		check(t, card.Fault(softhsm.Fault{Function: "C_Sign", Action: softhsm.Hang}))
	}
	if err := card.Fault(softhsm.Fault{Function: "C_Sign", Action: softhsm.Hang}); err == nil {
		t.Error("a 17th fault was taken")
	}
}

func TestPrinting(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.Fault(softhsm.Fault{Function: "C_Login", Action: softhsm.Print, Value: 3}))
	out, err := elsewhere(card).CombinedOutput()
	check(t, err)
	if n := strings.Count(string(out), "kortti test card"); n != 6 {
		t.Errorf("%d lines, want 6:\n%s", n, out)
	}
}

func TestPINPad(t *testing.T) {
	card := create(t, softhsm.Spec{PIN: "2468", Tries: 2})
	check(t, card.SetQuirks(softhsm.PINPad))
	u := use(t, card)
	info, err := u.module.GetTokenInfo(0)
	check(t, err)
	if info.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH == 0 {
		t.Error("the token shows no PIN pad")
	}
	wantCode(t, u.module.Login(u.session, pkcs11.CKU_USER, "2468"), pkcs11.CKR_ARGUMENTS_BAD)
	check(t, card.SetPad(softhsm.PadCancelled, 0))
	wantCode(t, u.module.Login(u.session, pkcs11.CKU_USER, ""), pkcs11.CKR_FUNCTION_CANCELED)
	check(t, card.SetPad(softhsm.PadWrong, 0))
	wantCode(t, u.module.Login(u.session, pkcs11.CKU_USER, ""), pkcs11.CKR_PIN_INCORRECT)
	if left, err := card.TriesLeft(); err != nil || left != 1 {
		t.Errorf("%d tries left, want 1; %v", left, err)
	}
	check(t, card.SetPad(softhsm.PadRight, 20*time.Millisecond))
	start := time.Now()
	check(t, u.module.Login(u.session, pkcs11.CKU_USER, ""))
	if time.Since(start) < 20*time.Millisecond {
		t.Error("the pad was too quick")
	}
	want(t, card, softhsm.Counts{"logins_pad": 3, "logins_ok": 1, "logins_refused": 1, "logins_other": 2})
}

func TestQuirks(t *testing.T) {
	card := create(t, softhsm.Spec{Key: softhsm.RSA2048})
	check(t, card.SetQuirks(softhsm.NoPSS|softhsm.NoPKCS1|softhsm.WriteProtected|softhsm.NoLabelSearch))
	u := use(t, card)
	list, err := u.module.GetMechanismList(0)
	check(t, err)
	known := map[uint]bool{}
	for _, mechanism := range list {
		known[mechanism.Mechanism] = true
	}
	if known[pkcs11.CKM_RSA_PKCS_PSS] || known[pkcs11.CKM_RSA_PKCS] || !known[pkcs11.CKM_RSA_X_509] {
		t.Errorf("mechanisms %v", known)
	}
	_, err = u.module.OpenSession(0, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	wantCode(t, err, pkcs11.CKR_TOKEN_WRITE_PROTECTED)
	err = u.module.FindObjectsInit(u.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "authentication key")})
	wantCode(t, err, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID)
	check(t, u.module.Login(u.session, pkcs11.CKU_USER, "1234"))
	_, err = u.sign(digest[:51], pkcs11.CKM_RSA_PKCS, nil)
	wantCode(t, err, pkcs11.CKR_MECHANISM_INVALID)
	if signature, err := u.sign(make([]byte, 256), pkcs11.CKM_RSA_X_509, nil); err != nil || len(signature) != 256 {
		t.Errorf("raw RSA: %d bytes, %v", len(signature), err)
	}
}

func TestWholeDigests(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.SetQuirks(softhsm.WholeDigests|softhsm.NULPadding))
	u := use(t, card)
	info, err := u.module.GetTokenInfo(0)
	if err != nil || info.Label != "kortti test card"+strings.Repeat("\x00", 16) {
		t.Errorf("label %q, %v", info.Label, err)
	}
	check(t, u.module.Login(u.session, pkcs11.CKU_USER, "1234"))
	_, err = u.sign(digest[:32], pkcs11.CKM_ECDSA, nil)
	wantCode(t, err, pkcs11.CKR_DATA_LEN_RANGE)
	_, err = u.sign(digest[:48], pkcs11.CKM_ECDSA, nil)
	check(t, err)
}

func TestAlteredObjects(t *testing.T) {
	card := create(t, softhsm.Spec{})
	check(t, card.RemovePublicKeys())
	check(t, card.AddOddKey([]byte{0x50}))
	check(t, card.SetKeyID([]byte{softhsm.AuthenticationID}, []byte{0x77}))
	u := use(t, card)
	check(t, u.module.Login(u.session, pkcs11.CKU_USER, "1234"))
	for class, ids := range map[uint]string{pkcs11.CKO_PUBLIC_KEY: "", pkcs11.CKO_PRIVATE_KEY: "Pw"} {
		check(t, u.module.FindObjectsInit(u.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}))
		found, _, err := u.module.FindObjects(u.session, 10)
		check(t, err)
		check(t, u.module.FindObjectsFinal(u.session))
		got := map[string]bool{}
		for _, object := range found {
			values, err := u.module.GetAttributeValue(u.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
			check(t, err)
			got[string(values[0].Value)] = true
		}
		if len(got) != len(ids) || len(ids) > 0 && (!got[ids[:1]] || !got[ids[1:]]) {
			t.Errorf("class %d: ids %v, want %q", class, got, ids)
		}
	}
	if err := card.SetKeyID([]byte{0x01}, nil); err == nil {
		t.Error("a key that is not there got an id")
	}
}

func publicKey(t *testing.T, card *softhsm.Card) any {
	t.Helper()
	public, err := card.PublicKey([]byte{softhsm.AuthenticationID})
	check(t, err)
	return public
}
