package tlsclient

import (
	"encoding/asn1"
	"testing"
)

type attributeSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// commonName encodes a name that is one CN of the given ASN.1 string type.
func commonName(t testing.TB, tag int, cn string) []byte {
	t.Helper()
	der, err := asn1.Marshal([]attributeSET{{{
		Type:  asn1.ObjectIdentifier{2, 5, 4, 3},
		Value: asn1.RawValue{Tag: tag, Bytes: []byte(cn)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCanonicalName(t *testing.T) {
	base := canonicalName(commonName(t, asn1.TagUTF8String, "DVV Root"))
	for _, c := range []struct {
		what string
		der  []byte
		same bool
	}{
		{"another string type", commonName(t, asn1.TagPrintableString, "DVV Root"), true},
		{"another case", commonName(t, asn1.TagUTF8String, "dvv ROOT"), true},
		{"more spaces", commonName(t, asn1.TagUTF8String, " DVV  Root "), true},
		{"another name", commonName(t, asn1.TagUTF8String, "DVV Root 2"), false},
		{"no string", commonName(t, asn1.TagOctetString, "DVV Root"), false},
		{"no name", []byte("DVV Root"), false},
	} {
		if got := canonicalName(c.der) == base; got != c.same {
			t.Errorf("%s: same %v, want %v", c.what, got, c.same)
		}
	}
}

// A server's CA list is outside input: any bytes give a name to compare and one
// to show, and equal bytes are equal names.
func FuzzCanonicalName(f *testing.F) {
	f.Add(commonName(f, asn1.TagUTF8String, "DVV Root"), commonName(f, asn1.TagPrintableString, "dvv root"))
	f.Add([]byte{0x30, 0}, []byte{})
	f.Add([]byte{0x30, 0x80}, []byte{0x31, 0xff})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		n := newNameSet([][]byte{a, b})
		if len(n.list) != 2 || !n.canonical[canonicalName(a)] || !n.canonical[canonicalName(b)] {
			t.Errorf("%x %x: %+v", a, b, n)
		}
		if same := len(n.canonical) == 1; string(a) == string(b) && !same {
			t.Errorf("%x is not equal to itself", a)
		}
	})
}
