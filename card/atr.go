package card

import (
	"encoding/hex"
	"strings"
)

// Kind is a kind of card, told by its answer to reset (ATR, ISO/IEC 7816-3).
// An ATR says which chip and operating system a card has and nothing of what
// is on it: it serves to name the module that a card needs, and nothing else is
// ever decided by it.
type Kind struct {
	Name    string
	Modules []Support // what can read it, the best for a newcomer first
	Expired bool      // every card of this kind is past its validity
}

// Support says that a product's module can read a kind of card.
type Support struct {
	Product Product
	Since   string // the first version that can, MAJOR.MINOR; "" = any
	Until   string // the first that cannot any more; "" = none
}

// covers says whether this version can read the card. A version that nobody
// knows gets the benefit of the doubt.
func (s Support) covers(version string) bool {
	return !(s.Since != "" && olderThan(version, s.Since)) &&
		!(s.Until != "" && version != "" && !olderThan(version, s.Until))
}

// Known by their ATRs: the FINEID cards after DVV's technology note "ATR bytes"
// v1.0 (2024-08-12), the others after OpenSC's tables. Modules: OpenSC 0.27.0
// (2026-03-30) took in the two Thales chips by their exact ATRs and dropped the
// SetCOS cards; it never knew the Gemalto and Idemia ones.
var kinds = []struct {
	atr  string // hexadecimal; "." is any digit, a leading or final "*" anything
	kind Kind
}{
	{"3b7f9600008031b865b085050011122460829000", Kind{Name: "FINEID citizen card, S4-1 v4.0 (2023)", Modules: thales}},
	{"3b7f9600008031b865b085051024122460829000", Kind{Name: "FINEID citizen card, S4-1 v4.1 (2025)", Modules: thales}},
	{"3b7f9600008031b865b08505....122460829000", Kind{Name: "FINEID citizen card, S4-1 v4, a chip newer than this program", Modules: dvvOnly}},
	{"3b7f9600008031b865b08504021b1200f6829000", Kind{Name: "FINEID citizen card, S4-1 v3.1 (2021 to 2023)", Modules: gemalto}},
	{"3b7f9600008031b865b0850300ef1200f6829000", Kind{Name: "FINEID citizen card, S4-1 v3.0 (2017 to 2020)", Modules: dvvOnly, Expired: true}},
	{"3b7b940000806212515646696e454944", Kind{Name: "FINEID citizen card, SetCOS (until 2016)", Modules: setcos, Expired: true}},
	{"3b7b*5646696e454944", Kind{Name: "FINEID citizen card, an early SetCOS", Expired: true}},
	{"3bdd96008031fe450031b8640429ecc1739401808349", Kind{Name: "organisation or health care card, Idemia Cosmo X", Modules: dvvOnly}},
	{"3bdd96008031fe450031b8640429ecc1739401808248", Kind{Name: "organisation or health care card, Idemia (from 2019)", Modules: dvvOnly}},
	{"3bdf96008031fe450031b8640429ecc173940180829000..", Kind{Name: "organisation or health care card, Oberthur (until 2019)", Modules: dvvOnly, Expired: true}},
	{"*4d79454944*", Kind{Name: "MyEID card (Aventra)", Modules: anyOpenSC}},
	{"*597562694b6579*", Kind{Name: "YubiKey", Modules: yubikey}},
	{"*597562696b6579*", Kind{Name: "YubiKey", Modules: yubikey}},
}

var (
	thales    = []Support{{Product: AtostekID}, {Product: OpenSC, Since: "0.27"}, {Product: ReFineID}}
	gemalto   = []Support{{Product: AtostekID}, {Product: ReFineID}}
	dvvOnly   = []Support{{Product: AtostekID}}
	setcos    = []Support{{Product: OpenSC, Until: "0.27"}}
	anyOpenSC = []Support{{Product: OpenSC}}
	yubikey   = []Support{{Product: OpenSC}, {Product: YKCS11}}
)

// KindOf tells a card's kind by its ATR, if it is one that is known.
func KindOf(atr []byte) (Kind, bool) {
	digits := hex.EncodeToString(atr)
	for _, k := range kinds {
		if matchATR(k.atr, digits) {
			return k.kind, true
		}
	}
	return Kind{}, false
}

// matchATR matches digits against a pattern of the table.
func matchATR(pattern, digits string) bool {
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] == '*':
			rest := pattern[i+1:]
			for at := i; at <= len(digits); at += 2 { // whole bytes only
				if matchATR(rest, digits[at:]) {
					return true
				}
			}
			return false
		case i >= len(digits), pattern[i] != '.' && pattern[i] != digits[i]:
			return false
		}
	}
	return len(pattern) == len(digits)
}

// ServedBy says whether a product in this version can read such cards.
func (k Kind) ServedBy(product Product, version string) bool {
	for _, s := range k.Modules {
		if s.Product == product && s.covers(version) {
			return true
		}
	}
	return false
}

// Advice is a sentence that says what to install for such a card.
func (k Kind) Advice() string {
	if k.Expired {
		return "All cards of this kind have expired: get a new card from its issuer."
	}
	var ways []string
	for _, s := range k.Modules {
		switch {
		case s.Product == AtostekID:
			ways = append(ways, "Atostek ID from DVV (dvv.fi)")
		case s.Product == OpenSC && s.Since != "":
			ways = append(ways, "OpenSC "+s.Since+" or newer (Debian 12's OpenSC 0.23 is too old)")
		case s.Product == OpenSC:
			ways = append(ways, "OpenSC (Debian: apt install opensc-pkcs11)")
		default:
			ways = append(ways, string(s.Product))
		}
	}
	if len(ways) == 0 {
		return "No PKCS#11 module is known for it: ask the card's issuer for one."
	}
	last := len(ways) - 1
	if last > 0 {
		ways = []string{strings.Join(ways[:last], ", "), ways[last]}
	}
	return "Install " + strings.Join(ways, " or ") + "."
}
