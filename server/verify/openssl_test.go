package verify_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/evidence"
	"github.com/kortti-id/kortti/server/revoke/crl"
	"github.com/kortti-id/kortti/server/verify"
)

// laxer are the certificates that this package accepts and OpenSSL refuses: what
// OpenSSL says, of which, and why they are accepted all the same.
var laxer = []struct {
	verdict string
	of      func(c, ca *x509.Certificate, now time.Time) bool
	why     string
}{
	{"refused: unsuitable certificate purpose", func(c, _ *x509.Certificate, _ time.Time) bool {
		return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) || slices.ContainsFunc(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 2}.Equal)
	}, "anyExtendedKeyUsage names every use (RFC 5280 section 4.2.1.12), and smart card logon is the use that is asked for (FINEID S2); OpenSSL's sslclient knows clientAuth only"},
	{"refused: certificate has expired", func(c, _ *x509.Certificate, now time.Time) bool { return c.NotAfter.Equal(now) },
		"a certificate is valid through the second of notAfter, inclusive (RFC 5280 section 4.1.2.5); OpenSSL ends it there"},
	{"refused: unable to get local issuer certificate", func(c, ca *x509.Certificate, _ time.Time) bool {
		return len(c.AuthorityKeyId) == 0 || len(ca.AuthorityKeyId) == 0
	}, "an authorityKeyIdentifier names the issuer otherwise than by key, which serves to find a chain and not to judge it (RFC 5280 section 4.2.1.1)"},
}

// recorded tells whether a difference has its reason.
func recorded(verdict string, der []byte, ca *x509.Certificate, now time.Time) bool {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return false
	}
	for _, l := range laxer {
		if l.verdict == verdict && l.of(c, ca, now) {
			return true
		}
	}
	return false
}

// rounds is how many certificates are compared; KORTTI_DIFFERENTIAL names more.
func rounds(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv("KORTTI_DIFFERENTIAL")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seedOf is the same in each short run: new differences are for the long ones to
// find.
func seedOf() uint64 {
	if os.Getenv("KORTTI_DIFFERENTIAL") == "" {
		return 1
	}
	return uint64(time.Now().UnixNano())
}

// signed is any structure of X.509: what is signed, how, and the signature.
type signed struct {
	Content   asn1.RawValue
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

// resign changes what is signed and signs it with the issuer's key (P-384).
func resign(t testing.TB, der []byte, key crypto.Signer, change func([]byte) []byte) []byte {
	t.Helper()
	var s signed
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		t.Fatal(err)
	}
	content := change(bytes.Clone(s.Content.FullBytes))
	h := crypto.SHA384.New()
	h.Write(content)
	signature, err := key.Sign(rand.Reader, h.Sum(nil), crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	s.Content, s.Signature = asn1.RawValue{FullBytes: content}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err = asn1.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// flip changes up to three bytes.
func flip(r *mathrand.Rand) func([]byte) []byte {
	return func(b []byte) []byte {
		for range 1 + r.IntN(3) {
			i := 4 + r.IntN(len(b)-4)
			switch r.IntN(4) {
			case 0:
				b[i] ^= 1 << r.IntN(8)
			case 1:
				b[i] = byte(r.IntN(256))
			case 2:
				b[i]++
			case 3:
				b[i]--
			}
		}
		return b
	}
}

// oddLeaf is a certificate with anything in it that a CA might do.
func oddLeaf(r *mathrand.Rand, now time.Time) fineidtest.Leaf {
	pick := func(n int) bool { return r.IntN(n) == 0 }
	leaf := fineidtest.Leaf{}
	if pick(2) {
		leaf.KeyUsage = x509.KeyUsage(1 + r.IntN(1<<9-1))
	}
	usages := []asn1.ObjectIdentifier{
		{1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 2}, {1, 3, 6, 1, 5, 5, 7, 3, 4}, {1, 3, 6, 1, 5, 5, 7, 3, 9},
		{2, 5, 29, 37, 0}, {1, 3, 6, 1, 4, 1, 311, 20, 2, 2},
	}
	for _, usage := range usages {
		if pick(6) {
			leaf.ExtKeyUsage = append(leaf.ExtKeyUsage, usage)
		}
	}
	if pick(4) {
		leaf.NotBefore, leaf.NotAfter = now.Add(time.Duration(r.IntN(5)-2)*time.Second), now.Add(time.Duration(r.IntN(5)-1)*time.Second)
	}
	for _, e := range []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}},
		{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xFF}},                   // basicConstraints: a CA
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0x03, 0x11, 0x01, 0x00}},                                   // something else
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0x00}},                                                     // not a CA
		{Id: asn1.ObjectIdentifier{2, 5, 29, 36}, Critical: true, Value: []byte{0x30, 0x03, 0x80, 0x01, 0x00}},                   // policyConstraints
		{Id: asn1.ObjectIdentifier{2, 5, 29, 54}, Critical: true, Value: []byte{0x02, 0x01, 0x00}},                               // inhibitAnyPolicy
		{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: []byte{0x30, 0x06, 0xA0, 0x04, 0x30, 0x02, 0x82, 0x00}}, // nameConstraints
		{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Value: []byte{0x30, 0x00}},                                                     // policies twice, and empty
	} {
		if pick(9) {
			leaf.ExtraExtensions = append(leaf.ExtraExtensions, e)
		}
	}
	leaf.CriticalSAN = pick(5)
	if pick(5) {
		leaf.UPN = "a@example.fi"
	}
	return leaf
}

// opensslVerify gives what OpenSSL says of each file; "" = OK.
func opensslVerify(t *testing.T, files []string, args ...string) map[string]string {
	t.Helper()
	verdicts := map[string]string{}
	for part := range slices.Chunk(files, 500) {
		cmd := exec.Command("openssl", slices.Concat([]string{"verify"}, args, part)...)
		var good, bad bytes.Buffer
		cmd.Stdout, cmd.Stderr = &good, &bad
		err := cmd.Run() // a refusal is exit code 2
		if good.Len()+bad.Len() == 0 {
			t.Fatalf("openssl: %v (the test needs the openssl package)", err)
		}
		for text := range strings.Lines(good.String()) {
			if name, ok := strings.CutSuffix(strings.TrimSpace(text), ": OK"); ok {
				verdicts[name] = ""
			}
		}
		reason := ""
		for text := range strings.Lines(bad.String()) {
			text = strings.TrimSpace(text)
			if _, words, ok := strings.Cut(text, "depth lookup: "); ok {
				reason = words
			} else if name, ok := strings.CutSuffix(strings.TrimPrefix(text, "error "), ": verification failed"); ok {
				verdicts[name], reason = "refused: "+reason, ""
			}
		}
	}
	for _, file := range files {
		if _, ok := verdicts[file]; !ok {
			verdicts[file] = "not read"
		}
	}
	return verdicts
}

// Nothing is accepted that OpenSSL refuses, but for what has a recorded reason.
func TestOpenSSLAgrees(t *testing.T) {
	pki := newPKI(t)
	seed := seedOf()
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	now := time.Now().Truncate(time.Second)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// A tenth of them lie below an issuing CA that is itself changed.
	oddCA := func() *x509.Certificate {
		der := resign(t, pki.CitizenEC.Certificate.Raw, pki.Root.Key, flip(r))
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil
		}
		return c
	}
	c := config(pki)
	c.Now = func() time.Time { return now }
	sound := newVerifier(t, c)
	type group struct {
		ca    *x509.Certificate // the issuing CA
		args  []string
		files []string
	}
	base := []string{"-attime", fmt.Sprint(now.Unix()), "-purpose", "sslclient", "-CAfile", write("roots.pem", pki.RootsPEM())}
	groups := map[string]*group{"": {ca: pki.CitizenEC.Certificate, args: append(slices.Clone(base), "-untrusted", write("issuing.pem", pki.IssuingPEM()))}}
	accepted := map[string][]byte{} // by file; nil = refused
	seen := 0
	n := rounds(t, 1500)
	for i := range n {
		issued, err := pki.Issue(pki.CitizenEC, oddLeaf(r, now))
		if err != nil {
			continue
		}
		der, in, v := issued.Certificate.Raw, "", sound
		switch r.IntN(10) {
		case 0, 1, 2, 3, 4:
			der = resign(t, der, pki.CitizenEC.Key, flip(r))
		case 5:
			ca := oddCA()
			if ca == nil {
				continue
			}
			in = fmt.Sprint(i)
			odd := c
			odd.Issuing = []*x509.Certificate{ca}
			if v, err = verify.New(odd); err != nil {
				continue
			}
			groups[in] = &group{ca: ca, args: append(slices.Clone(base), "-untrusted",
				write(in+".ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})))}
		}
		file := write(fmt.Sprintf("%d.pem", i), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		groups[in].files = append(groups[in].files, file)
		_, _, err = v.Verify(t.Context(), evidence.Evidence{Leaf: der})
		if seen++; err == nil {
			accepted[file] = der
		}
	}
	both, ours, theirs := 0, 0, 0
	for _, g := range groups {
		for file, verdict := range opensslVerify(t, g.files, g.args...) {
			der := accepted[file]
			switch {
			case der != nil && verdict == "":
				both++
			case der != nil:
				ours++
				if !recorded(verdict, der, g.ca, now) {
					t.Errorf("seed %d: accepted, and OpenSSL says %q of\n%x", seed, verdict, der)
				}
			case verdict == "":
				theirs++
			}
		}
	}
	t.Logf("%d certificates: both accept %d, OpenSSL alone %d, we alone %d (with a reason)", seen, both, theirs, ours)
	if both == 0 || theirs == 0 || both+theirs == seen {
		t.Error("the certificates are too much alike to tell anything")
	}
}

// A list that is believed and does not name a certificate does so for OpenSSL too.
func TestOpenSSLAgreesOnLists(t *testing.T) {
	pki := newPKI(t)
	seed := seedOf()
	r := mathrand.New(mathrand.NewPCG(seed, 1))
	now := time.Now().Truncate(time.Second)
	dir := t.TempDir()
	ca := pki.CitizenEC
	roots, issuing := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "issuing.pem")
	leafFile, listFile := filepath.Join(dir, "leaf.pem"), filepath.Join(dir, "list.pem")
	for file, content := range map[string][]byte{roots: pki.RootsPEM(), issuing: pki.IssuingPEM()} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf := issue(t, pki, ca, fineidtest.Leaf{})
	if err := os.WriteFile(leafFile, leaf.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	good, revoked := 0, 0
	for i := range rounds(t, 120) {
		list := &x509.RevocationList{Number: leaf.Certificate.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
		for range r.IntN(4) {
			other := issue(t, pki, ca, fineidtest.Leaf{})
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: other.Certificate.SerialNumber, RevocationTime: now, ReasonCode: r.IntN(2)})
		}
		if i%3 == 0 {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: leaf.Certificate.SerialNumber, RevocationTime: now, ReasonCode: r.IntN(2)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, ca.Certificate, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		if i%5 != 0 {
			der = resign(t, der, ca.Key, flip(r))
		}
		read, err := crl.Read(bytes.NewReader(der), crl.Limits{})
		if err != nil || read.CheckSignature(ca.Certificate) != nil || read.Base != nil || len(read.Scope.URLs) > 0 ||
			now.Before(read.ThisUpdate) || !now.Before(read.NextUpdate) {
			continue // not believed
		}
		if _, on := read.Lookup(leaf.Certificate.SerialNumber); on {
			revoked++
			continue
		}
		good++
		if err := os.WriteFile(listFile, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		verdict := opensslVerify(t, []string{leafFile}, "-attime", fmt.Sprint(now.Unix()), "-CAfile", roots, "-untrusted", issuing, "-crl_check", "-CRLfile", listFile)[leafFile]
		if verdict != "" {
			t.Errorf("seed %d: not on the list for us, and OpenSSL says %q of\n%x", seed, verdict, der)
		}
	}
	t.Logf("%d lists without the certificate, %d with it", good, revoked)
	if good == 0 || revoked == 0 {
		t.Error("the lists are too much alike to tell anything")
	}
}
