package virtualcard

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// Commands to FINEID 4: PINs are padded with 00 to twelve bytes.
const (
	fineID4PIN1     = "00 20 00 11 0C 31 32 33 34 00 00 00 00 00 00 00 00"
	fineID4PIN2     = "00 20 00 82 0C 31 32 33 34 35 36 00 00 00 00 00 00"
	fineID4UseAuth  = "00 22 41 B6 06 80 01 54 84 01 01"
	fineID4UseSign  = "00 22 41 B6 06 80 01 54 84 01 02"
	fineID4Sign     = "00 2A 9E 9A 60"
	fineID4Select   = "00 A4 04 0C 0C A0 00 00 00 63 50 4B 43 53 2D 31 35"
	fineID4AskPIN1  = "00 CB 00 FF 05 A0 03 83 01 11 00"
	fineID4PIN1Info = "A0 23 83 01 11 8C 04 F0 00 00 00 9C 04 F0 00 00 00 DF 21 04 05 FF A5 03 DF 27 02 FF FF DF 28 01 0C DF 2F 01 01"
)

func fineID4Hash(digest []byte) string { return "00 2A 90 A0 32 90 30 " + hexOf(digest) }

// The commands and the PIN's information are those of a real card, as a public
// trace of one shows them (web-eid/libelectronic-id).
func TestFINEID4Authenticates(t *testing.T) {
	for _, profile := range []Profile{FINEID40, FINEID41} {
		c := newCard(t, Spec{Profile: profile})
		digest := sha512.Sum384([]byte("what is signed"))
		send(t, c, fineID4Select, "9000")
		send(t, c, "00 A4 08 0C 02 43 31", "9000")
		if got := send(t, c, "00 B0 00 00 B5", "9000"); !bytes.Equal(got, c.Authentication().Certificate[:0xB5]) {
			t.Errorf("%s: the certificate begins % X", profile, got)
		}
		if got := send(t, c, fineID4AskPIN1, "9000"); !bytes.Equal(got, unhex(t, fineID4PIN1Info)) {
			t.Errorf("%s: PIN1: % X", profile, got)
		}
		send(t, c, "00 A4 00 0C 02 3F 00", "9000")
		send(t, c, fineID4UseAuth, "9000")
		send(t, c, fineID4Hash(digest[:]), "9000")
		send(t, c, fineID4Sign, "6982")
		send(t, c, fineID4PIN1, "9000")
		send(t, c, fineID4Sign, "6985") // the digest was for the refused one
		for range 2 {
			send(t, c, fineID4Hash(digest[:]), "9000")
			rs := send(t, c, fineID4Sign, "9000")
			r, s := new(big.Int).SetBytes(rs[:48]), new(big.Int).SetBytes(rs[48:])
			if !ecdsa.Verify(c.Authentication().Key.Public().(*ecdsa.PublicKey), digest[:], r, s) {
				t.Errorf("%s: the signature does not verify", profile)
			}
		}
		if n := c.Counts(); n.Signatures != 2 || n.Verifies != 1 {
			t.Errorf("%s: %+v", profile, n)
		}
	}
}

// The application's selection ends what is local to it: PIN2, not PIN1.
func TestFINEID4PIN2IsLocalAndForOneSignature(t *testing.T) {
	c := newCard(t, Spec{Profile: FINEID41})
	digest := make([]byte, 48)
	send(t, c, fineID4PIN1, "9000")
	send(t, c, fineID4PIN2, "9000")
	send(t, c, fineID4UseSign, "9000")
	send(t, c, fineID4Hash(digest), "9000")
	send(t, c, fineID4Sign, "9000")
	send(t, c, fineID4Hash(digest), "9000")
	send(t, c, fineID4Sign, "6982")
	send(t, c, fineID4PIN2, "9000")
	send(t, c, fineID4Select, "9000")
	send(t, c, fineID4Hash(digest), "9000")
	send(t, c, fineID4Sign, "6982")
	if !c.Verified() {
		t.Error("PIN1 is no longer verified")
	}
	c.power(func(*Counts) {})
	send(t, c, fineID4Hash(digest), "6985")
	if c.Verified() {
		t.Error("PIN1 is verified after power-off")
	}
}

func TestFINEID4TriesAndActivation(t *testing.T) {
	c := newCard(t, Spec{Profile: FINEID40, NotActivated: true})
	const tries, changed = 20, 36 // bytes of the PIN's information
	if info := send(t, c, fineID4AskPIN1, "9000"); info[tries] != 5 || info[changed] != 0 {
		t.Errorf("a new card: % X", info)
	}
	send(t, c, "00 20 00 11 0C 39 39 39 39 00 00 00 00 00 00 00 00", "63C4")
	send(t, c, "00 20 00 11 04 31 32 33 34", "6700")
	if info := send(t, c, fineID4AskPIN1, "9000"); info[tries] != 4 || info[changed] != 0 {
		t.Errorf("a wrong PIN later: % X", info)
	}
	send(t, c, "00 24 00 11 18 313233340000000000000000 343332310000000000000000", "9000")
	if info := send(t, c, fineID4AskPIN1, "9000"); info[tries] != 5 || info[changed] != 1 {
		t.Errorf("after a change: % X", info)
	}
	send(t, c, "00 2C 00 11 18 393939393939393900000000 313131310000000000000000", "63C4")
	send(t, c, "00 2C 00 11 18 313233343536373800000000 313131310000000000000000", "9000")
	send(t, c, "00 20 00 11 0C 31 31 31 31 00 00 00 00 00 00 00 00", "9000")
}

func TestFINEID4RefusesWhatItDoesNotKnow(t *testing.T) {
	c := newCard(t, Spec{Profile: FINEID41})
	for raw, sw := range map[string]string{
		"80 CB 00 FF 05 A0 03 83 01 11 00": "6E00",
		"00 CB 00 FF 05 A0 03 83 01 12 00": "6A88", // no such PIN
		"00 CB 3F FF 05 A0 03 83 01 11 00": "6A88",
		"00 CB 00 FF 04 A0 03 83 01 00":    "6A80",
		"00 CB 00 FF 05 A1 03 83 01 11 00": "6A80",
		"00 22 41 B6 06 80 01 54 84 01 03": "6A88", // no such key
		"00 22 41 B6 06 80 01 45 84 01 01": "6A81", // RSA-PSS
		"00 22 41 A4 06 80 01 54 84 01 01": "6A81",
		"00 22 41 B6 06 80 01 54 99 01 01": "6A80",
		"00 2A 9E 9A 60":                   "6985",
		"00 2E 00 11":                      "6D00", // MyEID's DEAUTHENTICATE
		"00 86 00 00 02 7C 00 00":          "6D00",
	} {
		send(t, c, raw, sw)
	}
	send(t, c, fineID4UseAuth, "9000")
	send(t, c, "00 2A 90 A0 22 90 20"+hexOf(make([]byte, 32)), "6A80") // not of SHA-384
}

// A root is issued by itself; there is room for one and for one issuing CA.
func TestFINEID4CAs(t *testing.T) {
	keys, err := sameKeys()
	if err != nil {
		t.Fatal(err)
	}
	root := certificate(t, keys[p384][0])
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Issuing CA"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	issuing, err := x509.CreateCertificate(rand.Reader, template, root, root.PublicKey, keys[p384][0].Key)
	if err != nil {
		t.Fatal(err)
	}
	c := newCard(t, Spec{Profile: FINEID41, CAs: [][]byte{issuing, root.Raw}})
	for path, der := range map[string][]byte{"43 34": root.Raw, "43 36": issuing} {
		send(t, c, "00 A4 08 0C 02 "+path, "9000")
		if got := send(t, c, "00 B0 00 00 80", "9000"); !bytes.Equal(got, der[:0x80]) {
			t.Errorf("%s holds % X", path, got)
		}
	}
	if _, err := New(Spec{Profile: FINEID41, CAs: [][]byte{root.Raw, root.Raw}}); err == nil {
		t.Error("two roots fit on the card")
	}
}
