package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is a CA of the test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t testing.TB, key crypto.Signer, change ...func(*x509.Certificate)) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA", Country: []string{"FI"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3},
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

var ecKey = sync.OnceValue(func() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

// make signs a list.
func (a authority) make(t testing.TB, list *x509.RevocationList) []byte {
	t.Helper()
	if list.Number == nil {
		list.Number = big.NewInt(7)
	}
	if list.ThisUpdate.IsZero() {
		list.ThisUpdate, list.NextUpdate = time.Unix(1_700_000_000, 0), time.Unix(1_700_086_400, 0)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// some are entries with serial numbers of all lengths, unsorted, each with a
// date and mostly a reason.
func some(n int) (list []x509.RevocationListEntry) {
	for i := range n {
		serial := new(big.Int).Lsh(big.NewInt(int64(n-i)), uint(i%19)*8)
		list = append(list, x509.RevocationListEntry{
			SerialNumber: serial.Add(serial, big.NewInt(1)), RevocationTime: time.Unix(1_600_000_000+int64(i), 0).UTC(), ReasonCode: i % 7,
		})
	}
	return list
}

func TestRead(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key       crypto.Signer
		algorithm x509.SignatureAlgorithm
	}{
		"ECDSA": {ecKey(), x509.ECDSAWithSHA384}, "RSA": {rsaKey, x509.SHA256WithRSA}, "RSA-512": {rsaKey, x509.SHA512WithRSA}, "PSS": {rsaKey, x509.SHA384WithRSAPSS},
	} {
		t.Run(name, func(t *testing.T) {
			ca := newAuthority(t, c.key)
			entries := some(1000)
			der := ca.make(t, &x509.RevocationList{SignatureAlgorithm: c.algorithm, RevokedCertificateEntries: entries})
			l, err := Read(bytes.NewReader(der), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.CheckSignature(ca.cert); err != nil {
				t.Error(err)
			}
			if l.Len() != len(entries) || l.Number.Int64() != 7 || l.Base != nil || l.ThisUpdate.Unix() != 1_700_000_000 || l.NextUpdate.Unix() != 1_700_086_400 || !bytes.Equal(l.KeyID, []byte{1, 2, 3}) {
				t.Errorf("%d entries; %+v", l.Len(), l)
			}
			for _, e := range entries {
				got, ok := l.Lookup(e.SerialNumber)
				if !ok || !got.Date.Equal(e.RevocationTime) || int(got.Reason) != e.ReasonCode {
					t.Fatalf("%x: %+v %v, want %+v", e.SerialNumber, got, ok, e)
				}
				if _, ok := l.Lookup(new(big.Int).Add(e.SerialNumber, big.NewInt(1<<62))); ok {
					t.Fatalf("one beside %x is revoked too", e.SerialNumber)
				}
			}
		})
	}
}

// TestSignatures: every byte of the list is signed, and only an issuer that may
// sign lists counts.
func TestSignatures(t *testing.T) {
	ca := newAuthority(t, ecKey())
	der := ca.make(t, &x509.RevocationList{RevokedCertificateEntries: some(5)})
	for i := range der {
		changed := bytes.Clone(der)
		changed[i] ^= 0x01
		l, err := Read(bytes.NewReader(changed), Limits{})
		if err == nil && l.CheckSignature(ca.cert) == nil {
			t.Errorf("with byte %d changed it is believed", i)
		}
	}
	l, err := Read(bytes.NewReader(der), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"another name": func(c *x509.Certificate) { c.Subject.CommonName = "Other CA" },
		"another key":  func(c *x509.Certificate) { c.SubjectKeyId = []byte{9} },
		"no CA":        func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageDigitalSignature },
		"no lists":     func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign },
	} {
		if l.CheckSignature(newAuthority(t, ecKey(), change).cert) == nil {
			t.Errorf("%s: it is believed", name)
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if l.CheckSignature(newAuthority(t, other).cert) == nil {
		t.Error("another key of the same name is believed")
	}
}

func extension(t *testing.T, oid asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: der}
}

func TestExtensions(t *testing.T) {
	ca := newAuthority(t, ecKey())
	scope := func(der string) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte(der)}
	}
	const url = "http://proxy.fineid.fi/crl/x.crl"
	point := "\xa0" + string(rune(len(url)+4)) + "\xa0" + string(rune(len(url)+2)) + "\x86" + string(rune(len(url))) + url
	entry := func(e pkix.Extension) []x509.RevocationListEntry {
		return []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: time.Unix(1, 0), ExtraExtensions: []pkix.Extension{e}}}
	}
	for name, c := range map[string]struct {
		list x509.RevocationList
		err  string
		ok   func(*List) bool
	}{
		"delta": {x509.RevocationList{ExtraExtensions: []pkix.Extension{extension(t, asn1.ObjectIdentifier{2, 5, 29, 27}, true, 6)}}, "",
			func(l *List) bool { return l.Base.Int64() == 6 && l.Number.Int64() == 7 }},
		"users at a point": {x509.RevocationList{ExtraExtensions: []pkix.Extension{scope("\x30" + string(rune(len(point)+3)) + point + "\x81\x01\xff")}}, "",
			func(l *List) bool {
				return l.Scope.OnlyUsers && !l.Scope.OnlyCAs && len(l.Scope.URLs) == 1 && l.Scope.URLs[0] == url
			}},
		"CAs":                             {x509.RevocationList{ExtraExtensions: []pkix.Extension{scope("\x30\x03\x82\x01\xff")}}, "", func(l *List) bool { return l.Scope.OnlyCAs }},
		"some reasons":                    {x509.RevocationList{ExtraExtensions: []pkix.Extension{scope("\x30\x04\x83\x02\x01\x06")}}, "", func(l *List) bool { return l.Scope.OnlySomeReasons }},
		"attributes":                      {x509.RevocationList{ExtraExtensions: []pkix.Extension{scope("\x30\x03\x85\x01\xff")}}, "", func(l *List) bool { return l.Scope.OnlyAttributes }},
		"indirect":                        {x509.RevocationList{ExtraExtensions: []pkix.Extension{scope("\x30\x03\x84\x01\xff")}}, "indirect", nil},
		"a FALSE that is written":         {x509.RevocationList{ExtraExtensions: []pkix.Extension{scope("\x30\x03\x81\x01\x00")}}, "not DER", nil},
		"an unknown critical one":         {x509.RevocationList{ExtraExtensions: []pkix.Extension{extension(t, asn1.ObjectIdentifier{1, 2, 3}, true, 1)}}, "must not be used", nil},
		"an unknown one":                  {x509.RevocationList{ExtraExtensions: []pkix.Extension{extension(t, asn1.ObjectIdentifier{1, 2, 3}, false, 1)}}, "", nil},
		"a number twice":                  {x509.RevocationList{ExtraExtensions: []pkix.Extension{extension(t, asn1.ObjectIdentifier{2, 5, 29, 20}, false, 1)}}, "not DER", nil},
		"an entry's unknown critical one": {x509.RevocationList{RevokedCertificateEntries: entry(extension(t, asn1.ObjectIdentifier{1, 2, 3}, true, 1))}, "must not be used", nil},
		"an entry's issuer":               {x509.RevocationList{RevokedCertificateEntries: entry(extension(t, asn1.ObjectIdentifier{2, 5, 29, 29}, true, []int{}))}, "indirect", nil},
		"an entry's invalidity date":      {x509.RevocationList{RevokedCertificateEntries: entry(extension(t, asn1.ObjectIdentifier{2, 5, 29, 24}, false, 1))}, "", nil},
		"nothing revoked":                 {x509.RevocationList{}, "", func(l *List) bool { return l.Len() == 0 }},
	} {
		l, err := Read(bytes.NewReader(ca.make(t, &c.list)), Limits{})
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)), c.err == "" && err != nil:
			t.Errorf("%s: %v, want %q", name, err, c.err)
		case err == nil && l.CheckSignature(ca.cert) != nil, err == nil && c.ok != nil && !c.ok(l):
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func TestLimits(t *testing.T) {
	ca := newAuthority(t, ecKey())
	der := ca.make(t, &x509.RevocationList{RevokedCertificateEntries: some(100)})
	for name, c := range map[string]struct {
		der    []byte
		limits Limits
		err    string
	}{
		"bytes":             {der, Limits{Bytes: int64(len(der)) - 5}, "at most"},
		"entries":           {der, Limits{Entries: 99}, "more than 99"},
		"just enough":       {der, Limits{Bytes: int64(len(der)), Entries: 100}, ""},
		"something behind":  {append(bytes.Clone(der), 0), Limits{}, "something follows"},
		"cut":               {der[:len(der)-1], Limits{}, "ends early"},
		"nothing":           {nil, Limits{}, "ends early"},
		"a claim of 4 GB":   {[]byte("\x30\x84\xff\xff\xff\xff\x30"), Limits{}, "at most"},
		"PEM":               {[]byte("-----BEGIN X509 CRL-----"), Limits{}, "not DER"},
		"indefinite length": {[]byte("\x30\x80\x30\x80"), Limits{}, "not DER"},
	} {
		if _, err := Read(bytes.NewReader(c.der), c.limits); c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
}

// FuzzRead: what is read, the standard library reads too, and finds the same.
func FuzzRead(f *testing.F) {
	ca := newAuthority(f, ecKey())
	f.Add(ca.make(f, &x509.RevocationList{RevokedCertificateEntries: some(30)}))
	f.Add(ca.make(f, &x509.RevocationList{}))
	f.Fuzz(func(t *testing.T, der []byte) {
		l, err := Read(bytes.NewReader(der), Limits{Bytes: 1 << 20, Entries: 1000})
		if err != nil {
			return
		}
		std, err := x509.ParseRevocationList(der)
		if err != nil {
			return // it is stricter with names and dates
		}
		if !bytes.Equal(std.RawIssuer, l.Issuer) || !std.ThisUpdate.Equal(l.ThisUpdate) || !std.NextUpdate.Equal(l.NextUpdate) {
			t.Fatalf("%+v, want %+v", l, std)
		}
		for _, e := range std.RevokedCertificateEntries {
			got, ok := l.Lookup(e.SerialNumber)
			if !ok || got.Date.After(e.RevocationTime) && e.RevocationTime.Unix() >= 0 {
				t.Fatalf("%x: %+v %v, want %+v", e.SerialNumber, got, ok, e)
			}
		}
	})
}

var million = sync.OnceValue(func() []byte {
	key := ecKey()
	a := authority{key: key}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for i := range 1_000_000 {
		serial := make([]byte, 16)
		rand.Read(serial)
		serial[0] = serial[0]&0x7f | 1
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: new(big.Int).SetBytes(serial), RevocationTime: time.Unix(1_600_000_000+int64(i), 0), ReasonCode: 1,
		})
	}
	if err == nil {
		der, err = x509.CreateRevocationList(rand.Reader, list, a.cert, key)
	}
	if err != nil {
		panic(err)
	}
	return der
})

// BenchmarkMillion reads a list of a million entries beside the standard library,
// and says how much of the heap each then holds.
func BenchmarkMillion(b *testing.B) {
	der := million()
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	b.Run("here", func(b *testing.B) {
		before := heap()
		var l *List
		for b.Loop() {
			var err error
			if l, err = Read(bytes.NewReader(der), Limits{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((heap()-before)/1e6, "MB-held")
		runtime.KeepAlive(l)
	})
	b.Run("standard", func(b *testing.B) {
		before := heap()
		var l *x509.RevocationList
		for b.Loop() {
			var err error
			if l, err = x509.ParseRevocationList(der); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((heap()-before)/1e6, "MB-held")
		runtime.KeepAlive(l)
	})
	b.Run("lookup", func(b *testing.B) {
		l, err := Read(bytes.NewReader(der), Limits{})
		if err != nil {
			b.Fatal(err)
		}
		std, err := x509.ParseRevocationList(der)
		if err != nil {
			b.Fatal(err)
		}
		i := 0
		for b.Loop() {
			if _, ok := l.Lookup(std.RevokedCertificateEntries[i%1_000_000].SerialNumber); !ok {
				b.Fatal("not found")
			}
			i += 7919
		}
	})
}
