package control

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSecretIsNeverShown(t *testing.T) {
	a := Answer{PIN: Secret("1234")}
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q"} {
		if s := fmt.Sprintf(verb, a.PIN); strings.Contains(s, "1234") {
			t.Errorf("%s shows the PIN: %s", verb, s)
		}
	}
	raw, err := json.Marshal(a)
	if err != nil || strings.Contains(string(raw), "1234") {
		t.Errorf("json.Marshal: %s %v", raw, err)
	}
}

func TestAnswerCarriesThePIN(t *testing.T) {
	for _, pin := range []string{"1234", `a"b\c`, "å\t€\x01", "😀"} {
		raw, err := answerJSON(Answer{PIN: Secret(pin), LeaseToken: "t", ConfirmFinal: true})
		if err != nil {
			t.Fatal(err)
		}
		var a Answer
		if err := json.Unmarshal(raw, &a); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if string(a.PIN) != pin || a.LeaseToken != "t" || !a.ConfirmFinal {
			t.Errorf("%q came back as %q %+v", pin, []byte(a.PIN), a)
		}
	}
	if _, err := answerJSON(Answer{PIN: Secret("\xff")}); err == nil {
		t.Error("a PIN that is not UTF-8 was accepted")
	}
}

func TestAnswerCarriesEverySecret(t *testing.T) {
	yes := true
	for _, a := range []Answer{
		{PIN: Secret("12\"4"), NewPIN: Secret("567")},
		{PUK: Secret("1"), NewPIN: Secret("2"), ConfirmFinal: true, LeaseToken: "t"},
		{NewPIN: Secret("2")}, {Allow: &yes}, {},
	} {
		raw, err := answerJSON(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Answer
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if string(back.PIN) != string(a.PIN) || string(back.PUK) != string(a.PUK) || string(back.NewPIN) != string(a.NewPIN) || back.ConfirmFinal != a.ConfirmFinal {
			t.Errorf("%s", raw)
		}
		puk := back.PUK
		back.Wipe()
		if back.PIN != nil || back.NewPIN != nil || strings.Trim(string(puk), "\x00") != "" {
			t.Error("Wipe left something")
		}
	}
}

// FuzzSecret checks that a secret reads as encoding/json reads a string, and
// that what is written comes back.
func FuzzSecret(f *testing.F) {
	for _, s := range []string{`"1234"`, `"\u00e4\n\"\\"`, `"\ud83d\ude00"`, `"\ud83d"`, `null`, `""`, `"\x"`, `12`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s Secret
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		var want string
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatalf("%q: Secret took what a string refuses: %v", raw, err)
		}
		if string(s) != want || !utf8.Valid(s) {
			t.Fatalf("%q: %q, a string gives %q", raw, []byte(s), want)
		}
		var back Secret
		if err := json.Unmarshal(s.appendJSON(nil), &back); err != nil || string(back) != want {
			t.Fatalf("%q: written and read again: %q %v", raw, []byte(back), err)
		}
	})
}
