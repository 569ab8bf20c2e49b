package virtualcard

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// sameKeys makes the keys of test cards once: RSA keys take their time.
var sameKeys = sync.OnceValues(func() (map[algorithm][2]Identity, error) {
	made := map[algorithm][2]Identity{}
	for _, a := range []algorithm{rsa2048, p384} {
		one, err := complete(Identity{}, a, PIN1)
		if err != nil {
			return nil, err
		}
		two, err := complete(Identity{}, a, PIN2)
		if err != nil {
			return nil, err
		}
		made[a] = [2]Identity{one, two}
	}
	return made, nil
})

// newCard makes a card with the same keys each time.
func newCard(t testing.TB, spec Spec) *Card {
	t.Helper()
	keys, err := sameKeys()
	if err != nil {
		t.Fatal(err)
	}
	p, ok := profileOf(spec.Profile)
	if !ok {
		t.Fatalf("no profile %q", spec.Profile)
	}
	spec.Authentication, spec.Signature = keys[p.algorithm][0], keys[p.algorithm][1]
	c, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends a command and wants a status word; it returns the data.
func send(t testing.TB, c *Card, raw, sw string) []byte {
	t.Helper()
	answer := c.transmit(context.Background(), unhex(t, raw))
	n := len(answer) - 2
	if !bytes.Equal(answer[n:], unhex(t, sw)) {
		t.Fatalf("%s was answered with % X, not with %s", raw, answer[n:], sw)
	}
	return answer[:n]
}

// Commands to MyEID: PINs are padded with FF to eight bytes.
const (
	rightPIN1 = "00 20 00 01 08 31 32 33 34 FF FF FF FF"
	wrongPIN1 = "00 20 00 01 08 31 32 33 35 FF FF FF FF"
	askPIN1   = "00 20 00 01"
	rightPIN2 = "00 20 00 02 08 31 32 33 34 35 36 FF FF"
	useAuthEC = "00 22 41 B6 0A 80 01 04 81 02 4B 01 84 01 00"
	useSignEC = "00 22 41 B6 0A 80 01 04 81 02 4B 02 84 01 00"
	useAuth   = "00 22 41 B6 0A 80 01 02 81 02 4B 01 84 01 00"
	useRaw    = "00 22 41 B6 0A 80 01 00 81 02 4B 01 84 01 00"
)

func signEC(digest []byte) string {
	return "00 2A 9E 9A 30 " + hexOf(digest) + " 00"
}

func hexOf(b []byte) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for _, x := range b {
		out.WriteByte(digits[x>>4])
		out.WriteByte(digits[x&15])
	}
	return out.String()
}

func TestPINCounter(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC, Tries: 3})
	send(t, c, askPIN1, "63C3")
	send(t, c, wrongPIN1, "63C2")
	send(t, c, rightPIN1, "9000")
	send(t, c, askPIN1, "9000")
	if c.TriesLeft(PIN1) != 3 || !c.Verified() {
		t.Errorf("after a right PIN: %d tries, verified %v", c.TriesLeft(PIN1), c.Verified())
	}
	send(t, c, wrongPIN1, "63C2")
	if c.Verified() {
		t.Error("a wrong PIN leaves the PIN verified")
	}
	send(t, c, askPIN1, "63C2")
	send(t, c, wrongPIN1, "63C1")
	send(t, c, wrongPIN1, "6983")
	send(t, c, rightPIN1, "6983")
	send(t, c, askPIN1, "6983")
	if n := c.Counts(); n.Verifies != 6 || n.Refused != 5 || c.TriesLeft(PIN2) != 3 {
		t.Errorf("counts %+v, PIN2 has %d tries", n, c.TriesLeft(PIN2))
	}
	// The PUK and the new PIN, wrong and right.
	send(t, c, "00 2C 00 01 10 3132333435363739 34333231FFFFFFFF", "63C9")
	send(t, c, "00 2C 00 01 10 3132333435363738 34333231FFFFFFFF", "9000")
	if c.TriesLeft(PIN1) != 3 || c.TriesLeft(PUK) != 10 || c.Verified() {
		t.Errorf("unblocked: %d tries, PUK %d, verified %v", c.TriesLeft(PIN1), c.TriesLeft(PUK), c.Verified())
	}
	send(t, c, rightPIN1, "63C2")
	send(t, c, "00 20 00 01 08 34333231FFFFFFFF", "9000")
}

func TestChangePIN(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	send(t, c, "00 24 00 01 10 31323335FFFFFFFF 38383838FFFFFFFF", "63C4")
	send(t, c, "00 24 00 01 10 31323334FFFFFFFF 3838FFFFFFFFFFFF", "6A80")
	if c.TriesLeft(PIN1) != 4 {
		t.Error("a new PIN that is too short cost a try")
	}
	send(t, c, "00 24 00 01 10 31323334FFFFFFFF 38383838FFFFFFFF", "9000")
	send(t, c, rightPIN1, "63C4")
	send(t, c, "00 20 00 01 08 38383838FFFFFFFF", "9000")
}

func TestSecurityStateIsLostWithPower(t *testing.T) {
	for name, lose := range map[string]func(*Card){
		"power":  func(c *Card) { c.power(func(*Counts) {}) },
		"pull":   func(c *Card) { c.take(); c.release() },
		"logout": func(c *Card) { send(t, c, "00 2E 00 00", "9000") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCard(t, Spec{Profile: MyEIDEC})
			send(t, c, wrongPIN1, "63C4")
			send(t, c, rightPIN1, "9000")
			send(t, c, useAuthEC, "9000")
			lose(c)
			if c.Verified() {
				t.Error("PIN1 is still verified")
			}
			digest := sha512.Sum384(nil)
			send(t, c, useAuthEC, "9000")
			send(t, c, signEC(digest[:]), "6982")
			if c.Counts().Signatures != 0 {
				t.Error("the card signed")
			}
		})
	}
}

func TestThePIN2KeySignsOnce(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	digest := sha512.Sum384([]byte("once"))
	send(t, c, rightPIN1, "9000")
	send(t, c, useSignEC, "9000")
	send(t, c, signEC(digest[:]), "6982")
	send(t, c, rightPIN2, "9000")
	signature := send(t, c, signEC(digest[:]), "9000")
	if !ecdsa.VerifyASN1(certificate(t, c.Signature()).PublicKey.(*ecdsa.PublicKey), digest[:], signature) {
		t.Error("the signature does not verify")
	}
	send(t, c, signEC(digest[:]), "6982")
	if n := c.Counts(); n.Signatures != 1 || n.Verifies != 1 {
		t.Errorf("counts %+v", n)
	}
	if !c.Verified() {
		t.Error("PIN1 was used up as well")
	}
}

func TestChainsAndLongAnswers(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDRSA})
	public := certificate(t, c.Authentication()).PublicKey.(*rsa.PublicKey)
	send(t, c, rightPIN1, "9000")
	send(t, c, useRaw, "9000")
	block := make([]byte, 256)
	copy(block[1:], "a block")
	send(t, c, "10 2A 9E 9A C8 "+hexOf(block[:200]), "9000")
	signature := send(t, c, "00 2A 9E 9A 38 "+hexOf(block[200:])+" 00", "9000")
	if len(signature) != 256 {
		t.Fatalf("a signature of %d bytes", len(signature))
	}
	// The same with the answer fetched in parts, as T=0 has it.
	send(t, c, "10 2A 9E 9A C8 "+hexOf(block[:200]), "9000")
	send(t, c, "00 2A 9E 9A 38 "+hexOf(block[200:]), "6100")
	got := send(t, c, "00 C0 00 00 64", "619C")
	got = append(got, send(t, c, "00 C0 00 00 9C", "9000")...)
	if !bytes.Equal(got, signature) {
		t.Error("the parts are not the whole")
	}
	send(t, c, "00 C0 00 00 01", "6985")
	// A chain that another command breaks into is over.
	send(t, c, "10 2A 9E 9A C8 "+hexOf(block[:200]), "9000")
	send(t, c, askPIN1, "6883")
	send(t, c, "00 2A 9E 9A 38 "+hexOf(block[200:])+" 00", "6A80")

	digest := sha512.Sum384([]byte("padded"))
	info := unhex(t, "3041300d060960864801650304020205000430")
	send(t, c, useAuth, "9000")
	signature = send(t, c, "00 2A 9E 9A 43 "+hexOf(append(info, digest[:]...))+" 00", "9000")
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA384, digest[:], signature); err != nil {
		t.Error(err)
	}
}

func TestDecipherInHalves(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDRSA})
	public := certificate(t, c.Authentication()).PublicKey.(*rsa.PublicKey)
	block := append([]byte{0, 2}, bytes.Repeat([]byte{7}, 256-2-1-6)...)
	block = append(append(block, 0), "secret"...)
	m := new(big.Int).SetBytes(block)
	cryptogram := m.Exp(m, big.NewInt(int64(public.E)), public.N).FillBytes(make([]byte, 256))
	send(t, c, rightPIN1, "9000")
	for algorithm, want := range map[string][]byte{"00": block, "02": []byte("secret")} {
		send(t, c, "00 22 41 B8 0A 80 01 "+algorithm+" 81 02 4B 01 84 01 00", "9000")
		send(t, c, "00 2A 80 86 81 81"+hexOf(cryptogram[:128]), "9000")
		if got := send(t, c, "00 2A 80 86 81 82"+hexOf(cryptogram[128:])+" 00", "9000"); !bytes.Equal(got, want) {
			t.Errorf("algorithm %s: got % X", algorithm, got)
		}
	}
	send(t, c, "00 2A 80 86 81 81"+hexOf(cryptogram[:128]), "9000")
	send(t, c, askPIN1, "9000")
	send(t, c, "00 2A 80 86 81 82"+hexOf(cryptogram[128:])+" 00", "6A80") // the first half is forgotten
}

func TestECDH(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	peer, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, err := certificate(t, c.Authentication()).PublicKey.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(own)
	if err != nil {
		t.Fatal(err)
	}
	point := hexOf(peer.PublicKey().Bytes())
	send(t, c, rightPIN1, "9000")
	send(t, c, "00 22 41 A4 0A 80 01 04 81 02 4B 01 84 01 00", "9000")
	if got := send(t, c, "00 86 00 00 65 7C 63 85 61 "+point+" 00", "9000"); !bytes.Equal(got, want) {
		t.Errorf("got % X", got)
	}
}

func TestFiles(t *testing.T) {
	c := newCard(t, Spec{Profile: FINEIDSetCOS})
	send(t, c, "00 A4 04 0C 0C A0 00 00 00 63 50 4B 43 53 2D 31 35", "9000")
	send(t, c, "00 A4 00 0C 02 43 31", "9000")
	der := c.Authentication().Certificate
	if got := send(t, c, "00 B0 00 04 10", "9000"); !bytes.Equal(got, der[4:20]) {
		t.Errorf("read % X", got)
	}
	send(t, c, "00 B0 7F FF 10", "6B00")
	send(t, c, "00 A4 08 0C 06 50 15 50 16 43 32", "9000")
	if got := send(t, c, "00 B0 00 00 04", "9000"); !bytes.Equal(got, c.Signature().Certificate[:4]) {
		t.Errorf("read % X", got)
	}
	send(t, c, "00 A4 03 0C", "9000") // up, to 5015
	send(t, c, "00 A4 09 0C 02 4B 01", "9000")
	send(t, c, "00 B0 00 00 10", "6986") // a key
	send(t, c, "00 A4 00 0C 02 12 34", "6A82")
	send(t, c, "00 A4 00 0C 02 3F 00", "9000")
	send(t, c, "00 A4 00 00 02 2F 00", "610D") // T=0: the answer waits
	if fci := send(t, c, "00 C0 00 00 00", "9000"); fci[0] != 0x6F || len(fci) != 13 {
		t.Errorf("file control information % X", fci)
	}
	send(t, c, "0C A4 00 0C 02 3F 00", "6882")
	send(t, c, "01 A4 00 0C 02 3F 00", "6881")
	send(t, c, "80 A4 00 0C 02 3F 00", "6E00")
	send(t, c, "00 E0 00 00", "6D00")
	send(t, c, "00 A4 00 0C 05 3F 00", "6700")
}

func TestCertificatesAreOfTheKeysAndFitTheirUse(t *testing.T) {
	for _, profile := range []Profile{MyEIDRSA, MyEIDEC, FINEIDSetCOS, FINEID40, FINEID41} {
		c := newCard(t, Spec{Profile: profile})
		auth, sign := certificate(t, c.Authentication()), certificate(t, c.Signature())
		if auth.KeyUsage&x509.KeyUsageDigitalSignature == 0 || auth.KeyUsage&x509.KeyUsageContentCommitment != 0 {
			t.Errorf("%s: authentication has key usage %b", profile, auth.KeyUsage)
		}
		if sign.KeyUsage != x509.KeyUsageContentCommitment {
			t.Errorf("%s: signature has key usage %b", profile, sign.KeyUsage)
		}
		for _, cert := range []*x509.Certificate{auth, sign} {
			if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
				t.Errorf("%s: %v", profile, err)
			}
		}
	}
}

func certificate(t *testing.T, id Identity) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestWhatCannotBeMade(t *testing.T) {
	keys, err := sameKeys()
	if err != nil {
		t.Fatal(err)
	}
	ec, rsaID := keys[p384][0], keys[rsa2048][0]
	for name, spec := range map[string]Spec{
		"profile":           {Profile: "visa"},
		"RSA key":           {Profile: MyEIDEC, Authentication: rsaID},
		"other certificate": {Profile: MyEIDEC, Authentication: Identity{Key: ec.Key, Certificate: rsaID.Certificate}},
		"no key":            {Profile: MyEIDEC, Authentication: Identity{Certificate: ec.Certificate}},
		"short PIN":         {Profile: MyEIDEC, Authentication: ec, Signature: ec, PIN1: "1"},
		"long PIN":          {Profile: MyEIDEC, Authentication: ec, Signature: ec, PIN2: "1234567890"},
		"tries":             {Profile: MyEIDEC, Authentication: ec, Signature: ec, Tries: 16},
		"serial number":     {Profile: MyEIDEC, Authentication: ec, Signature: ec, Serial: "XY"},
		"CA":                {Profile: MyEIDEC, Authentication: ec, Signature: ec, CAs: [][]byte{{1}}},
	} {
		if _, err := New(spec); err == nil {
			t.Errorf("%s: made", name)
		} else if strings.Contains(err.Error(), "1234567890") {
			t.Errorf("%s: the error shows the PIN: %v", name, err)
		}
	}
}

func TestTheLogHoldsNoPIN(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	var exchanges []Exchange
	c.SetLog(func(e Exchange) { exchanges = append(exchanges, e) })
	send(t, c, rightPIN1, "9000")
	send(t, c, "10 20 00 01 04 31 32 33 34", "9000")
	send(t, c, "00 20 00 01 04 FF FF FF FF", "9000")
	send(t, c, "00 24 00 01 10 31323334FFFFFFFF 38383838FFFFFFFF", "9000")
	send(t, c, "00 2C 00 01 10 3132333435363738 34333231FFFFFFFF", "9000")
	if len(exchanges) != 5 {
		t.Fatalf("%d exchanges", len(exchanges))
	}
	for _, e := range exchanges {
		for _, digits := range []string{"1234", "8888", "4321"} {
			if bytes.Contains(e.Command, []byte(digits)) {
				t.Errorf("% X holds a PIN", e.Command)
			}
		}
	}
}

func FuzzCard(f *testing.F) {
	profiles := []Profile{MyEIDRSA, MyEIDEC, FINEIDSetCOS, FINEID40, FINEID41}
	for i := range profiles {
		for _, seed := range []string{
			askPIN1, rightPIN1, useAuthEC, useRaw,
			"00 A4 04 00 0C A0 00 00 00 63 50 4B 43 53 2D 31 35 00", "00 A4 08 0C 04 50 15 43 31",
			"00 B0 00 00 00", "00 C0 00 00 00", "10 2A 9E 9A 01 00", "00 2A 80 86 02 81 01",
			"00 86 00 00 04 7C 02 85 00", "00 CA 01 A0 00", "00 CB 00 FF 05 A0 03 83 01 11 00",
			"00 22 41 B8 0A 80 01 00 81 02 4B 01 84 01 00", "00 24 00 01 02 31 32",
		} {
			f.Add(byte(i), unhex(f, seed), unhex(f, seed))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, one, two []byte) {
		c := newCard(t, Spec{Profile: profiles[int(which)%len(profiles)]})
		for _, raw := range [][]byte{one, two, one, two} {
			if answer := c.transmit(t.Context(), raw); len(answer) < 2 {
				t.Fatalf("% X was answered with % X", raw, answer)
			}
		}
		for _, ref := range []PINRef{PIN1, PIN2, PUK} {
			if left := c.TriesLeft(ref); left < 0 || left > 15 {
				t.Fatalf("%d tries left", left)
			}
		}
	})
}

func TestADelayedSignatureEndsWithTheContext(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	c.SetSignDelay(time.Hour)
	send(t, c, rightPIN1, "9000")
	send(t, c, useAuthEC, "9000")
	digest := sha512.Sum384(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if answer := c.transmit(ctx, unhex(t, signEC(digest[:]))); answer != nil {
		t.Errorf("answered % X", answer)
	}
}
