//go:build linux

package opensc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// forFINEID4 runs a test with each current citizen card in the room whose
// OpenSC the test is about.
func forFINEID4(t *testing.T, suite rootfs.Suite, test func(*testing.T, virtualcard.Profile)) {
	if pcscd.Room() != suite {
		return
	}
	for _, profile := range []virtualcard.Profile{virtualcard.FINEID40, virtualcard.FINEID41} {
		t.Run(string(profile), func(t *testing.T) { test(t, profile) })
	}
}

// OpenSC 0.23 tries all its drivers and then shows a slot without a token.
func TestFINEID4IsUnknownToOpenSC023(t *testing.T) {
	forFINEID4(t, rootfs.Bookworm, func(t *testing.T, profile virtualcard.Profile) {
		card := insert(t, virtualcard.Spec{Profile: profile})
		name, err := exec.CommandContext(t.Context(), "opensc-tool", "--name").CombinedOutput()
		if !strings.Contains(string(name), "Unsupported card") {
			t.Errorf("%v\n%s", err, name)
		}
		slots := must(t, "--list-slots")
		if !strings.Contains(slots, "(token not recognized)") || strings.Contains(slots, "token label") {
			t.Errorf("slots:\n%s", slots)
		}
		if n := card.Counts(); n.Verifies != 0 || n.Refused != 0 {
			t.Errorf("PINs were presented: %+v", n)
		}
	})
}

// tokenFlags returns the flags of the PIN1 and the PIN2 slot as a new process
// sees them.
func tokenFlags(t *testing.T) (pin1, pin2 string) {
	t.Helper()
	slots := must(t, "--list-slots")
	found := regexp.MustCompile(`token label +: (.*)\n(?:.*\n)*? +token flags +: (.*)\n`).FindAllStringSubmatch(slots, -1)
	if len(found) != 2 || !strings.HasSuffix(found[0][1], " (PIN1)") || !strings.HasSuffix(found[1][1], " (PIN2)") {
		t.Fatalf("the slots are not one for PIN1 and one for PIN2:\n%s", slots)
	}
	return found[0][2], found[1][2]
}

func TestFINEID4SlotsAndCertificates(t *testing.T) {
	forFINEID4(t, rootfs.Sid, func(t *testing.T, profile virtualcard.Profile) {
		serial := map[virtualcard.Profile]string{ // of its own, as OpenSC keeps certificates by it
			virtualcard.FINEID40: "0123456789ABCDEF", virtualcard.FINEID41: "1123456789ABCDEF"}[profile]
		card := insert(t, virtualcard.Spec{Profile: profile, Serial: serial})
		slots := must(t, "--list-slots")
		cert, err := x509.ParseCertificate(card.Authentication().Certificate)
		check(t, err)
		name := cert.Subject.CommonName
		for _, want := range []string{name + " (PIN1)\n", name + " (PIN2)\n", ": Thales\n", ": " + serial + "\n", ": 4/12\n", ": 6/12\n"} {
			if !strings.Contains(slots, want) {
				t.Errorf("the slots do not show %q:\n%s", want, slots)
			}
		}
		for id, want := range map[string]virtualcard.Identity{"01": card.Authentication(), "02": card.Signature()} {
			file := filepath.Join(t.TempDir(), "cert.der")
			must(t, "--read-object", "--type", "cert", "--id", id, "--output-file", file)
			got, err := os.ReadFile(file)
			check(t, err)
			if string(got) != string(want.Certificate) {
				t.Errorf("the certificate with id %s is not the card's", id)
			}
		}
		if n := card.Counts(); n.Verifies != 0 || n.Signatures != 0 {
			t.Errorf("reading alone used PINs or keys: %+v", n)
		}
	})
}

func TestFINEID4Signatures(t *testing.T) {
	message := []byte("what is signed")
	sum256, sum384, sum512 := sha256.Sum256(message), sha512.Sum384(message), sha512.Sum512(message)
	forFINEID4(t, rootfs.Sid, func(t *testing.T, profile virtualcard.Profile) {
		card := insert(t, virtualcard.Spec{Profile: profile})
		key := card.Authentication().Key.Public().(*ecdsa.PublicKey)
		for _, one := range []struct {
			mechanism     string
			input, digest []byte
		}{
			{"ECDSA", sum384[:], sum384[:]},
			{"ECDSA", sum256[:], sum256[:]}, // padded at the left
			{"ECDSA", sum512[:], sum512[:]}, // cut to the curve's length
			{"ECDSA-SHA384", message, sum384[:]},
			{"ECDSA-SHA512", message, sum512[:]},
		} {
			signature := sign(t, card, "01", "1234", one.mechanism, one.input, "--signature-format", "openssl")
			if !ecdsa.VerifyASN1(key, one.digest, signature) {
				t.Errorf("%s of %d bytes does not verify", one.mechanism, len(one.input))
			}
		}
		before := card.Counts()
		signature := sign(t, card, "02", "123456", "ECDSA", sum384[:], "--signature-format", "openssl", "--slot-index", "1")
		if !ecdsa.VerifyASN1(card.Signature().Key.Public().(*ecdsa.PublicKey), sum384[:], signature) {
			t.Error("the signature key's signature does not verify")
		}
		if after := card.Counts(); after.Verifies != before.Verifies {
			t.Error("PIN1 was presented for the signature key")
		}
	})
}

func TestFINEID4Agreement(t *testing.T) {
	forFINEID4(t, rootfs.Sid, func(t *testing.T, profile virtualcard.Profile) {
		card := insert(t, virtualcard.Spec{Profile: profile})
		peer, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		check(t, err)
		public, err := x509.MarshalPKIXPublicKey(peer.Public())
		check(t, err)
		dir := t.TempDir()
		in, out := filepath.Join(dir, "peer.der"), filepath.Join(dir, "secret")
		check(t, os.WriteFile(in, public, 0o600))
		must(t, "--login", "--pin", "1234", "--derive", "--id", "01", "--mechanism", "ECDH1-DERIVE",
			"--input-file", in, "--output-file", out)
		got, err := os.ReadFile(out)
		check(t, err)
		mine, err := peer.ECDH()
		check(t, err)
		theirs, err := card.Authentication().Key.Public().(*ecdsa.PublicKey).ECDH()
		check(t, err)
		if want, err := mine.ECDH(theirs); err != nil || string(got) != string(want) {
			t.Errorf("the agreed secrets differ: %v", err)
		}
	})
}

// The flags are of a new process each. OpenSC takes these cards' limit for 3,
// so it says "count low" at 2 tries left of 5 only.
func TestFINEID4WrongPINs(t *testing.T) {
	forFINEID4(t, rootfs.Sid, func(t *testing.T, profile virtualcard.Profile) {
		card := insert(t, virtualcard.Spec{Profile: profile})
		for _, step := range []struct {
			left        int
			error, flag string
		}{
			{4, "CKR_PIN_INCORRECT", ""}, {3, "CKR_PIN_INCORRECT", ""},
			{2, "CKR_PIN_INCORRECT", "user PIN count low"},
			{1, "CKR_PIN_INCORRECT", "final user PIN try"},
			{0, "CKR_PIN_LOCKED", "user PIN locked"},
		} {
			output, ok := pkcs11Tool(t, "--login", "--pin", "9999", "--list-objects", "--type", "privkey")
			if ok || !strings.Contains(output, step.error) || card.TriesLeft(virtualcard.PIN1) != step.left {
				t.Fatalf("wanted %s and %d tries left; there are %d:\n%s", step.error, step.left, card.TriesLeft(virtualcard.PIN1), output)
			}
			wantFlags(t, step.flag)
		}
		before := card.Counts()
		if output, ok := pkcs11Tool(t, "--login", "--pin", "1234", "--list-objects"); ok || !strings.Contains(output, "CKR_PIN_LOCKED") {
			t.Errorf("a locked PIN was accepted:\n%s", output)
		}
		if n := card.TriesLeft(virtualcard.PIN2); n != 5 {
			t.Errorf("%d tries of PIN2 are left", n)
		}
		for _, wrong := range []string{"123", "1234567890123"} {
			if output, ok := pkcs11Tool(t, "--login", "--pin", wrong, "--list-objects"); ok || !strings.Contains(output, "CKR_PIN_LEN_RANGE") {
				t.Errorf("a PIN of %d digits:\n%s", len(wrong), output)
			}
		}
		if after := card.Counts(); after.Verifies > before.Verifies+1 {
			t.Error("a PIN of a wrong length reached the card")
		}
		unblock(t, "12345678", "4321")
		if left := card.TriesLeft(virtualcard.PIN1); left != 5 {
			t.Errorf("%d tries after unblocking", left)
		}
		wantFlags(t, "")
		must(t, "--login", "--pin", "4321", "--change-pin", "--new-pin", "123456789012")
		must(t, "--login", "--pin", "123456789012", "--list-objects", "--type", "privkey")
	})
}

// wantFlags checks what the PIN1 slot says of its PIN; "" is nothing.
func wantFlags(t *testing.T, want string) {
	t.Helper()
	got, pin2 := tokenFlags(t)
	for _, flag := range []string{"user PIN count low", "final user PIN try", "user PIN locked", "user PIN to be changed"} {
		if strings.Contains(got, flag) != (flag == want) {
			t.Errorf("PIN1: wanted %q, the flags are %q", want, got)
		}
		if strings.Contains(pin2, flag) && flag != "user PIN to be changed" {
			t.Errorf("PIN2: %q", pin2)
		}
	}
}

func unblock(t *testing.T, puk, pin string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "pkcs15-tool", "--unblock-pin", "--auth-id", "01", "--puk", puk, "--new-pin", pin)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unblock: %v\n%s", err, output)
	}
}

// Through PKCS#11 OpenSC unblocks only if its settings say how. As it comes,
// C_SetPIN without a login sends the PUK as the old PIN, which costs a try.
func TestFINEID4UnblockByPKCS11(t *testing.T) {
	unlock := []string{"--unlock-pin", "--puk", "12345678", "--new-pin", "4321"}
	forFINEID4(t, rootfs.Sid, func(t *testing.T, profile virtualcard.Profile) {
		card := insert(t, virtualcard.Spec{Profile: profile})
		if output, ok := pkcs11Tool(t, unlock...); ok || !strings.Contains(output, "CKR_PIN_INCORRECT") {
			t.Errorf("unblocked with OpenSC's own settings:\n%s", output)
		}
		if n := card.TriesLeft(virtualcard.PIN1); n != 4 {
			t.Errorf("%d tries are left", n)
		}
		config := filepath.Join(t.TempDir(), "opensc.conf")
		check(t, os.WriteFile(config, []byte(
			"app opensc-pkcs11 { pkcs11 { user_pin_unblock_style = set_pin_in_unlogged_session; } }\n"), 0o600))
		t.Setenv("OPENSC_CONF", config)
		must(t, unlock...)
		if n := card.TriesLeft(virtualcard.PIN1); n != 5 {
			t.Errorf("%d tries are left after unblocking", n)
		}
		must(t, "--login", "--pin", "4321", "--list-objects", "--type", "privkey")
	})
}

func TestFINEID4NotActivated(t *testing.T) {
	const flag = "user PIN to be changed"
	forFINEID4(t, rootfs.Sid, func(t *testing.T, profile virtualcard.Profile) {
		insert(t, virtualcard.Spec{Profile: profile, NotActivated: true})
		if pin1, pin2 := tokenFlags(t); !strings.Contains(pin1, flag) || !strings.Contains(pin2, flag) {
			t.Errorf("PIN1: %q, PIN2: %q", pin1, pin2)
		}
		must(t, "--login", "--pin", "1234", "--change-pin", "--new-pin", "4321")
		if pin1, pin2 := tokenFlags(t); strings.Contains(pin1, flag) || !strings.Contains(pin2, flag) {
			t.Errorf("after a change of PIN1: PIN1: %q, PIN2: %q", pin1, pin2)
		}
	})
}
