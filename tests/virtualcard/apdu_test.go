package virtualcard

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// unhex reads hexadecimal digits with spaces between them.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	out, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseAPDU(t *testing.T) {
	data300 := strings.Repeat("AB", 300)
	for _, test := range []struct {
		name, raw string
		data      int // bytes, -1: not an APDU
		le        int
	}{
		{"case 1", "00 A4 00 00", 0, noLe},
		{"case 2", "00 B0 00 00 10", 0, 16},
		{"case 2, longest", "00 B0 00 00 00", 0, 256},
		{"case 3", "00 A4 00 00 02 3F 00", 2, noLe},
		{"case 4", "00 A4 00 00 02 3F 00 20", 2, 32},
		{"case 4, longest", "00 A4 00 00 02 3F 00 00", 2, 256},
		{"case 2 extended", "00 B0 00 00 00 01 00", 0, 256},
		{"case 2 extended, longest", "00 B0 00 00 00 00 00", 0, 65536},
		{"case 3 extended", "00 2A 9E 9A 00 01 2C" + data300, 300, noLe},
		{"case 4 extended", "00 2A 9E 9A 00 01 2C" + data300 + "01 00", 300, 256},
		{"empty", "", -1, 0},
		{"too short", "00 A4 00", -1, 0},
		{"data missing", "00 A4 00 00 02 3F", -1, 0},
		{"too long", "00 A4 00 00 02 3F 00 00 00", -1, 0},
		{"half an extended length", "00 A4 00 00 00 01", -1, 0},
		{"extended length of nothing", "00 A4 00 00 00 00 00 00", -1, 0},
		{"extended data missing", "00 A4 00 00 00 00 05 01", -1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := parseAPDU(unhex(t, test.raw))
			if test.data < 0 {
				if err == nil {
					t.Fatalf("parsed as %+v", c)
				}
				return
			}
			if err != nil || len(c.Data) != test.data || c.Le != test.le {
				t.Errorf("got %d bytes of data, Le %d, %v", len(c.Data), c.Le, err)
			}
		})
	}
}

func TestPINsAreMasked(t *testing.T) {
	for raw, want := range map[string]string{
		"00 20 00 01 04 31 32 33 34":       "00 20 00 01 04 FF FF FF FF",
		"10 20 00 01 04 31 32 33 34":       "10 20 00 01 04 FF FF FF FF",
		"00 20 00 01 00 00 04 31 32 33 34": "00 20 00 01 00 00 04 FF FF FF FF",
		"00 24 00 01 02 31 32 00":          "00 24 00 01 02 FF FF 00",
		"00 2C 00 01 02 31 32":             "00 2C 00 01 02 FF FF",
		"00 20 00 01":                      "00 20 00 01",
		"00 20 00 01 31 32 33 34":          "00 20 00 01 FF FF FF FF", // its length is wrong
		"00 A4 00 00 02 3F 00":             "00 A4 00 00 02 3F 00",
		"00 20":                            "00 20",
		"00 22 41 B6 03 80 01 02":          "00 22 41 B6 03 80 01 02",
		"00 20 00 01 01":                   "00 20 00 01 01",
	} {
		if got := masked(unhex(t, raw)); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s is logged as % X", raw, got)
		}
	}
}

func FuzzParseAPDU(f *testing.F) {
	for _, seed := range []string{
		"00A40000", "00B0000010", "00A4000002 3F00", "00A40000023F0000", "00B00000000100",
		"0020000100000431323334", "00CB00FF00000AA0088301110000000000",
	} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseAPDU(raw)
		if err == nil && (len(c.Data) > len(raw) || c.Le != noLe && (c.Le < 1 || c.Le > 65536)) {
			t.Errorf("% X: %d bytes of data, Le %d", raw, len(c.Data), c.Le)
		}
		hidden := masked(raw)
		if len(hidden) != len(raw) || len(raw) >= 4 && !bytes.Equal(hidden[:4], raw[:4]) {
			t.Errorf("% X is logged as % X", raw, hidden)
		}
		if err == nil && c.INS == insVerify && bytes.Contains(hidden[4:], []byte("1234")) {
			t.Errorf("% X is logged with its PIN", raw)
		}
	})
}
