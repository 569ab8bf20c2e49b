//go:build linux

// Package opensc tries the virtual cards with real middleware: OpenSC's
// programs, over a real smart card service, in Debian 12's version and in the
// one that knows current cards.
package opensc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

func TestMain(m *testing.M) { pcscd.Main(m, rootfs.Bookworm, rootfs.Sid) }

// profiles returns the cards that OpenSC knows in this room.
func profiles() []virtualcard.Profile {
	known := []virtualcard.Profile{virtualcard.MyEIDRSA, virtualcard.MyEIDEC}
	if pcscd.Room() == rootfs.Bookworm {
		known = append(known, virtualcard.FINEIDSetCOS)
	}
	return known
}

// insert makes a card of a profile, and a service that has it in a reader.
func insert(t *testing.T, spec virtualcard.Spec) *virtualcard.Card {
	t.Helper()
	card, err := virtualcard.New(spec)
	check(t, err)
	logged(t, card)
	pcscd.Start(t)
	insertion, err := virtualcard.Insert(t.Context(), pcscd.Address0, card)
	check(t, err)
	t.Cleanup(insertion.Pull)
	for end := time.Now().Add(20 * time.Second); card.Counts().PowerOns == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the service never saw the card")
		}
	}
	return card
}

// logged prints what the card was asked if the test fails.
func logged(t *testing.T, card *virtualcard.Card) {
	var log strings.Builder
	card.SetLog(func(e virtualcard.Exchange) {
		log.WriteString("> " + hex.EncodeToString(e.Command) + "\n< " + hex.EncodeToString(e.Answer) + "\n")
	})
	t.Cleanup(func() {
		card.SetLog(nil)
		if t.Failed() {
			t.Logf("exchanges:\n%s", log.String())
		}
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pkcs11Tool runs OpenSC's pkcs11-tool and returns what it printed and whether
// it was content.
func pkcs11Tool(t *testing.T, args ...string) (output string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "pkcs11-tool", append([]string{"--module", pcscd.Module}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	output, ok := pkcs11Tool(t, args...)
	if !ok {
		t.Fatalf("pkcs11-tool %q:\n%s", args, output)
	}
	return output
}

func TestSlotsAndCertificates(t *testing.T) {
	for _, profile := range profiles() {
		t.Run(string(profile), func(t *testing.T) {
			card := insert(t, virtualcard.Spec{Profile: profile})
			slots := must(t, "--list-slots")
			for _, want := range []string{"(perustunnusluku)", "(allekirjoitustunnusluku)", pcscd.Reader0} {
				if !strings.Contains(slots, want) {
					t.Errorf("the slots do not show %q:\n%s", want, slots)
				}
			}
			for id, want := range map[string]virtualcard.Identity{"45": card.Authentication(), "46": card.Signature()} {
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
}

// digestInfoSHA256 comes before a SHA-256 digest (RFC 8017, 9.2 note 1).
var digestInfoSHA256, _ = hex.DecodeString("3031300d060960864801650304020105000420")

func TestSignatures(t *testing.T) {
	digest := sha256.Sum256([]byte("what is signed"))
	long := sha512.Sum384([]byte("what is signed"))
	for _, profile := range profiles() {
		t.Run(string(profile), func(t *testing.T) {
			card := insert(t, virtualcard.Spec{Profile: profile})
			public := card.Authentication().Key.Public()
			if key, ok := public.(*rsa.PublicKey); ok {
				signature := sign(t, card, "45", "1234", "RSA-PKCS", append(digestInfoSHA256, digest[:]...))
				if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature); err != nil {
					t.Errorf("PKCS #1 v1.5: %v", err)
				}
				block := make([]byte, key.Size())
				copy(block[1:], "as it is")
				signature = sign(t, card, "45", "1234", "RSA-X-509", block)
				m := new(big.Int).SetBytes(signature)
				m.Exp(m, big.NewInt(int64(key.E)), key.N)
				if string(m.FillBytes(make([]byte, key.Size()))) != string(block) {
					t.Error("the raw signature does not verify")
				}
				signature = sign(t, card, "45", "1234", "RSA-PKCS-PSS", digest[:], "--hash-algorithm", "SHA256", "--salt-len", "32")
				if err := rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, nil); err != nil {
					t.Errorf("PSS: %v", err)
				}
				return
			}
			key := public.(*ecdsa.PublicKey)
			for _, d := range [][]byte{digest[:], long[:]} {
				signature := sign(t, card, "45", "1234", "ECDSA", d, "--signature-format", "openssl")
				if !ecdsa.VerifyASN1(key, d, signature) {
					t.Errorf("ECDSA of %d bytes does not verify", len(d))
				}
			}
		})
	}
}

// sign has a key of the card sign input, and checks that it cost one
// signature.
func sign(t *testing.T, card *virtualcard.Card, id, pin, mechanism string, input []byte, more ...string) []byte {
	t.Helper()
	before := card.Counts()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	check(t, os.WriteFile(in, input, 0o600))
	must(t, append([]string{"--sign", "--id", id, "--login", "--pin", pin, "--mechanism", mechanism,
		"--input-file", in, "--output-file", out}, more...)...)
	after := card.Counts()
	if after.Signatures != before.Signatures+1 || after.Refused != before.Refused {
		t.Errorf("%s: %+v, then %+v: not one signature", mechanism, before, after)
	}
	signature, err := os.ReadFile(out)
	check(t, err)
	return signature
}

func TestTheSignatureKeyNeedsItsPINEveryTime(t *testing.T) {
	digest := sha512.Sum384([]byte("what is signed"))
	for _, profile := range profiles() {
		t.Run(string(profile), func(t *testing.T) {
			card := insert(t, virtualcard.Spec{Profile: profile})
			mechanism, input := "RSA-PKCS", digest[:]
			if profile == virtualcard.MyEIDEC {
				mechanism = "ECDSA"
			}
			sign(t, card, "46", "123456", mechanism, input, "--slot-index", "1")
			objects := must(t, "--slot-index", "1", "--login", "--pin", "123456", "--list-objects", "--type", "privkey")
			if !strings.Contains(objects, "always authenticate") {
				t.Errorf("the signature key does not ask for its PIN every time:\n%s", objects)
			}
			if card.Counts().Verifies != 0 {
				t.Error("PIN1 was needed for the signature key")
			}
		})
	}
}

func TestCAsAreOnTheCard(t *testing.T) {
	other, err := virtualcard.New(virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	check(t, err)
	for _, profile := range profiles() {
		t.Run(string(profile), func(t *testing.T) {
			ca := other.Authentication().Certificate
			insert(t, virtualcard.Spec{Profile: profile, CAs: [][]byte{ca}})
			file := filepath.Join(t.TempDir(), "ca.der")
			must(t, "--read-object", "--type", "cert", "--id", "47", "--output-file", file)
			got, err := os.ReadFile(file)
			check(t, err)
			if _, err := x509.ParseCertificate(got); err != nil || string(got) != string(ca) {
				t.Errorf("the CA certificate is not what was put on the card: %v", err)
			}
		})
	}
}

func TestWrongPINsLockAndThePUKUnlocks(t *testing.T) {
	for _, profile := range profiles() {
		t.Run(string(profile), func(t *testing.T) {
			card := insert(t, virtualcard.Spec{Profile: profile, Tries: 3})
			for left := 2; left >= 0; left-- {
				want := "CKR_PIN_INCORRECT"
				if left == 0 {
					want = "CKR_PIN_LOCKED"
				}
				output, ok := pkcs11Tool(t, "--login", "--pin", "9999", "--list-objects", "--type", "privkey")
				if ok || !strings.Contains(output, want) || card.TriesLeft(virtualcard.PIN1) != left {
					t.Fatalf("wanted %s and %d tries left; there are %d:\n%s", want, left, card.TriesLeft(virtualcard.PIN1), output)
				}
			}
			if output, ok := pkcs11Tool(t, "--login", "--pin", "1234", "--list-objects"); ok || !strings.Contains(output, "CKR_PIN_LOCKED") {
				t.Errorf("a locked PIN was accepted:\n%s", output)
			}
			slots := must(t, "--list-slots")
			if queried := strings.Contains(slots, "user PIN locked"); queried != (profile != virtualcard.FINEIDSetCOS) {
				t.Errorf("PIN flags of a new process:\n%s", slots)
			}
			unblock := exec.CommandContext(t.Context(), "pkcs15-tool", "--unblock-pin", "--auth-id", "01",
				"--puk", "12345678", "--new-pin", "4321")
			if output, err := unblock.CombinedOutput(); err != nil {
				t.Fatalf("unblock: %v\n%s", err, output)
			}
			if left := card.TriesLeft(virtualcard.PIN1); left != 3 {
				t.Errorf("%d tries after unblocking", left)
			}
			must(t, "--login", "--pin", "4321", "--list-objects", "--type", "privkey")
			must(t, "--login", "--pin", "4321", "--change-pin", "--new-pin", "1111")
			must(t, "--login", "--pin", "1111", "--list-objects", "--type", "privkey")
		})
	}
}

func TestAMuteCardIsNoToken(t *testing.T) {
	card := insert(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC, Mute: true})
	if output, ok := pkcs11Tool(t, "--list-token-slots"); ok || !strings.Contains(output, "No slots.") {
		t.Errorf("a mute card is a token:\n%s", output)
	}
	if n := card.Counts().APDUs; n != 0 {
		t.Errorf("a mute card was sent %d commands", n)
	}
}
