package fineid_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/fineid"
)

func TestParseSATU(t *testing.T) {
	// The first four are public values (test cards, the specimen of S2).
	for _, good := range []string{"99900335E", "99902038C", "999004228", "12345678N", "10000123L", "000000000"} {
		satu, err := fineid.ParseSATU(good)
		if err != nil {
			t.Errorf("%s: %v", good, err)
		}
		if satu.String() != good || satu.IsZero() {
			t.Errorf("%s: became %q", good, satu)
		}
	}
	for _, bad := range []string{
		"", "9990033E", "999003355E", "99900335F", "99900335e", "9990O335E", " 9900335E", "99900335E ",
		"99900335\x00", "٩٩٩٠٠", "-9900335E", "+9900335E", "99900334E", "99900353E",
	} {
		satu, err := fineid.ParseSATU(bad)
		if !errors.Is(err, fineid.ErrSATU) || !satu.IsZero() {
			t.Errorf("%q: got %q, error %v; want ErrSATU", bad, satu, err)
		}
		if err != nil && bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: the error repeats the identifier: %v", bad, err)
		}
	}
}

// A swapped pair of digits or one wrong digit is what a check character is
// for; modulo 31 finds all of both.
func TestSATUFindsTypingMistakes(t *testing.T) {
	const good = "99902038C"
	for i := range 8 {
		for d := byte('0'); d <= '9'; d++ {
			typo := []byte(good)
			typo[i] = d
			if _, err := fineid.ParseSATU(string(typo)); err == nil && string(typo) != good {
				t.Errorf("%s was taken", typo)
			}
		}
	}
}

func TestSATUText(t *testing.T) {
	satu, err := fineid.ParseSATU("99900335E")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []fineid.SATU{satu, {}} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got fineid.SATU
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Errorf("%s became %q, error %v", text, got, err)
		}
	}
	var refused fineid.SATU
	if err := json.Unmarshal([]byte(`"99900335F"`), &refused); !errors.Is(err, fineid.ErrSATU) {
		t.Errorf("bad text: error %v, want ErrSATU", err)
	}
}

func TestNoIdentifierInLogs(t *testing.T) {
	satu, err := fineid.ParseSATU("99900335E")
	if err != nil {
		t.Fatal(err)
	}
	id := fineid.Identity{SATU: satu, SerialNumber: "99900335E", Surname: "SPECIMEN", Class: fineid.Citizen, Family: "dvv-citizen"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("seen", "satu", satu, "identity", id)
	if strings.Contains(log.String(), "99900335") || strings.Contains(log.String(), "SPECIMEN") {
		t.Errorf("personal data in the log: %s", &log)
	}
	if !strings.Contains(log.String(), "identity.class=citizen") {
		t.Errorf("class missing in the log: %s", &log)
	}
}

func FuzzParseSATU(f *testing.F) {
	for _, seed := range []string{"99900335E", "12345678N", "000000000", "99900335e", "", "99900335\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		satu, err := fineid.ParseSATU(s)
		if (err == nil) == satu.IsZero() {
			t.Fatalf("%q: value %q with error %v", s, satu, err)
		}
		if err == nil && satu.String() != s {
			t.Fatalf("%q became %q", s, satu)
		}
	})
}

func ExampleParseSATU() {
	satu, err := fineid.ParseSATU("99900335E")
	fmt.Println(satu, err)
	_, err = fineid.ParseSATU("99900336E")
	fmt.Println(err)
	// Output:
	// 99900335E <nil>
	// not a SATU (eight digits and a check character): the check character does not fit the number
}
