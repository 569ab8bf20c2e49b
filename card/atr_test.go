package card

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestKindOf(t *testing.T) {
	for _, test := range []struct {
		atr, name, advice string // parts of name and advice
	}{
		{"3b7f9600008031b865b085050011122460829000", "v4.0", "Install Atostek ID from DVV (dvv.fi), OpenSC 0.27 or newer (Debian 12's OpenSC 0.23 is too old) or ReFineID."},
		{"3b7f9600008031b865b085051024122460829000", "v4.1", "OpenSC 0.27"},
		{"3b7f9600008031b865b085052099122460829000", "newer than this program", "Install Atostek ID from DVV (dvv.fi)."},
		{"3B7F9600008031B865B08504021B1200F6829000", "v3.1", "Install Atostek ID from DVV (dvv.fi) or ReFineID."},
		{"3B7F9600008031B865B0850300EF1200F6829000", "v3.0", "expired"},
		{"3b7b940000806212515646696e454944", "SetCOS (until 2016)", "expired"},
		{"3b7b1800005646696e454944", "early SetCOS", "expired"},
		{"3BDD96008031FE450031B8640429ECC1739401808349", "Cosmo X", "Atostek"},
		{"3BDD96008031FE450031B8640429ECC1739401808248", "Idemia", "Atostek"},
		{"3BDF96008031FE450031B8640429ECC173940180829000DA", "Oberthur", "expired"},
		{"3bf51800008131fe454d794549449a", "MyEID", "apt install opensc-pkcs11"},
		{"3BFD1300008131FE158073C021C057597562694B657940", "YubiKey", "OpenSC"},
		{"3BF81300008131FE15597562696B657934D4", "YubiKey", "OpenSC"},
		{"3b7f9600008031b865b08505001112246082900000", "", ""}, // one byte too many
		{"3b04d794549449", "", ""}, // MyEID's digits, but not at a byte's beginning
		{"", "", ""},
	} {
		atr, err := hex.DecodeString(test.atr)
		check(t, err)
		kind, ok := KindOf(atr)
		if ok != (test.name != "") {
			t.Errorf("KindOf(%s) = %q, %v", test.atr, kind.Name, ok)
			continue
		}
		if ok && (!strings.Contains(kind.Name, test.name) || !strings.Contains(kind.Advice(), test.advice)) {
			t.Errorf("KindOf(%s) = %q: %s", test.atr, kind.Name, kind.Advice())
		}
	}
}

// Every pattern is whole bytes and found by the row it stands in.
func TestKindTable(t *testing.T) {
	for _, k := range kinds {
		example := strings.ReplaceAll(strings.ReplaceAll(k.atr, ".", "7"), "*", "")
		atr, err := hex.DecodeString(example)
		if err != nil {
			t.Errorf("%s: %v", k.atr, err)
			continue
		}
		if got, ok := KindOf(atr); !ok || got.Name != k.kind.Name {
			t.Errorf("%s is shadowed by %q", k.atr, got.Name)
		}
	}
}

func TestServedBy(t *testing.T) {
	atr, err := hex.DecodeString("3b7f9600008031b865b085051024122460829000")
	check(t, err)
	fineid, _ := KindOf(atr)
	setcosATR, err := hex.DecodeString("3b7b940000806212515646696e454944")
	check(t, err)
	old, _ := KindOf(setcosATR)
	for _, test := range []struct {
		kind Kind
		info ModuleInfo
		want bool
	}{
		{fineid, ModuleInfo{Path: "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", Description: "OpenSC smartcard framework (OpenSC Project) 0.23"}, false},
		{fineid, ModuleInfo{Path: "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", Description: "OpenSC smartcard framework (OpenSC Project) 0.27"}, true},
		{fineid, ModuleInfo{Path: "/opt/own.so", Description: "OpenSC smartcard framework (OpenSC Project) 1.0"}, true},
		{fineid, ModuleInfo{Path: "/usr/lib/Atostek-ID-PKCS11.so"}, true},
		{fineid, ModuleInfo{Path: "/usr/lib/softhsm/libsofthsm2.so", Description: "SoftHSM 2.6"}, false},
		{old, ModuleInfo{Path: "/usr/lib/opensc-pkcs11.so", Description: "OpenSC smartcard framework (OpenSC Project) 0.23"}, true},
		{old, ModuleInfo{Path: "/usr/lib/opensc-pkcs11.so", Description: "OpenSC smartcard framework (OpenSC Project) 0.27"}, false},
	} {
		product, version := test.info.Product()
		if got := test.kind.ServedBy(product, version); got != test.want {
			t.Errorf("%s by %s %s: %v, want %v", test.kind.Name, product, version, got, test.want)
		}
	}
}
