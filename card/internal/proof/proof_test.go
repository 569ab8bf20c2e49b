package proof

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

const host = "asiointi.example.fi"

// recorder signs for a TLS peer and keeps what it was handed.
type recorder struct {
	crypto.Signer
	messages *[][]byte
	opts     *[]crypto.SignerOpts
}

func (r recorder) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	*r.messages = append(*r.messages, bytes.Clone(message))
	*r.opts = append(*r.opts, opts)
	return crypto.SignMessage(r.Signer, random, message, opts)
}

// identity is a key, its certificate and what TLS had it sign.
type identity struct {
	tls.Certificate
	messages [][]byte
	opts     []crypto.SignerOpts
}

var (
	rsaKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p384   = func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) }
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newIdentity(key crypto.Signer, name string) *identity {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	id := &identity{}
	id.Certificate = tls.Certificate{
		Certificate: [][]byte{der}, Leaf: must(x509.ParseCertificate(der)),
		PrivateKey: recorder{key, &id.messages, &id.opts},
	}
	return id
}

func (id *identity) wanted(t *testing.T) Wanted {
	t.Helper()
	if len(id.opts) != 1 {
		t.Fatalf("TLS asked for %d signatures, want 1", len(id.opts))
	}
	_, pss := id.opts[0].(*rsa.PSSOptions)
	return Wanted{Leaf: id.Leaf, Host: host, Hash: id.opts[0].HashFunc(), PSS: pss}
}

// handshake runs TLS between client and server and returns both sides' records.
func handshake(t *testing.T, version uint16, client *identity, name string, schemes ...tls.SignatureScheme) (server *identity) {
	t.Helper()
	server = newIdentity(p384(), name)
	server.OCSPStaple = []byte("stapled") // TLS 1.2: a CertificateStatus message
	a, b := net.Pipe()
	defer a.Close()
	client.SupportedSignatureAlgorithms = schemes
	done := make(chan error, 1)
	go func() {
		defer b.Close()
		s := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{server.Certificate}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: version})
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("ok"))
		}
		done <- err
	}()
	c := tls.Client(a, &tls.Config{
		ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: version,
		Certificates: []tls.Certificate{client.Certificate},
	})
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Fatalf("client: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("server: %v", err)
	}
	return server
}

func TestCheckTakesRealHandshakes(t *testing.T) {
	for _, test := range []struct {
		name    string
		version uint16
		key     crypto.Signer
		schemes []tls.SignatureScheme
	}{
		{"TLS 1.2 RSA PSS", tls.VersionTLS12, rsaKey(), nil},
		{"TLS 1.2 RSA PKCS1", tls.VersionTLS12, rsaKey(), []tls.SignatureScheme{tls.PKCS1WithSHA384}},
		{"TLS 1.2 P-384", tls.VersionTLS12, p384(), []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}},
		{"TLS 1.3 RSA", tls.VersionTLS13, rsaKey(), nil},
		{"TLS 1.3 P-384", tls.VersionTLS13, p384(), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := newIdentity(test.key, "client")
			server := handshake(t, test.version, client, host, test.schemes...)
			want := client.wanted(t)
			if err := Check(client.messages[0], want); err != nil {
				t.Fatalf("Check of a real proof: %v", err)
			}
			if err := Check(server.messages[0], want); err == nil {
				t.Fatal("Check took what a server signs")
			}
		})
	}
}

func TestCheckRefusesChangedTranscripts(t *testing.T) {
	client := newIdentity(rsaKey(), "client")
	handshake(t, tls.VersionTLS12, client, host)
	message, want := client.messages[0], client.wanted(t)

	with := func(change func(*Wanted)) Wanted { w := want; change(&w); return w }
	changed := func(i int, b byte) []byte { m := bytes.Clone(message); m[i] ^= b; return m }
	for name, test := range map[string]struct {
		message []byte
		want    Wanted
	}{
		"another host":         {message, with(func(w *Wanted) { w.Host = "pankki.example.fi" })},
		"no host":              {message, with(func(w *Wanted) { w.Host = "" })},
		"an address":           {message, with(func(w *Wanted) { w.Host = "192.0.2.1" })},
		"a longer host":        {message, with(func(w *Wanted) { w.Host = "x" + host })},
		"a folded host":        {message, with(func(w *Wanted) { w.Host = "aſiointi.example.fi" })},
		"another leaf":         {message, with(func(w *Wanted) { w.Leaf = newIdentity(rsaKey(), "client").Leaf })},
		"SHA-1":                {message, with(func(w *Wanted) { w.Hash = crypto.SHA1 })},
		"SHA-224":              {message, with(func(w *Wanted) { w.Hash = crypto.SHA224 })},
		"a byte after the end": {append(bytes.Clone(message), 0), want},
		"a message after":      {append(bytes.Clone(message), 20, 0, 0, 1, 0), want},
		"one byte short":       {message[:len(message)-1], want},
		"twice":                {append(bytes.Clone(message), message...), want},
		"TLS 1.1 ClientHello":  {changed(5, 1), want},
		"first type changed":   {changed(0, 1), want},
		"first length changed": {changed(3, 1), want},
	} {
		if err := Check(test.message, test.want); err == nil {
			t.Errorf("%s: Check took it", name)
		}
	}
	if err := Check(message, with(func(w *Wanted) { w.Host = "ASIOINTI.example.fi." })); err != nil {
		t.Errorf("the host in capitals and with a final dot: %v", err)
	}
	for n := range len(message) {
		if Check(message[:n], want) == nil {
			t.Fatalf("Check took the first %d of %d bytes", n, len(message))
		}
	}
	for _, order := range messageOrders(t, message) {
		if Check(order, want) == nil {
			t.Fatal("Check took messages left out, doubled or out of order")
		}
	}
}

// messageOrders returns the transcript with each message left out, doubled and
// swapped with the next.
func messageOrders(t *testing.T, transcript []byte) (orders [][]byte) {
	t.Helper()
	var messages [][]byte
	for rest := transcript; len(rest) > 0; {
		n := 4 + int(rest[1])<<16 + int(rest[2])<<8 + int(rest[3])
		messages = append(messages, rest[:n])
		rest = rest[n:]
	}
	if len(messages) != 9 || messages[3][0] != certificateStatus {
		t.Fatalf("the handshake has %d messages; it should have 9, with a CertificateStatus", len(messages))
	}
	join := func(parts ...[][]byte) []byte {
		var all []byte
		for _, part := range parts {
			all = append(all, bytes.Join(part, nil)...)
		}
		return all
	}
	for i := range messages {
		if messages[i][0] != certificateStatus { // the one that may be missing
			orders = append(orders, join(messages[:i], messages[i+1:]))
		}
		orders = append(orders, join(messages[:i+1], messages[i:]))
		if i+1 < len(messages) {
			orders = append(orders, join(messages[:i], messages[i+1:i+2], messages[i:i+1], messages[i+2:]))
		}
	}
	return orders
}

func TestCheckRefusesWhatIsNoProof(t *testing.T) {
	want := Wanted{Leaf: newIdentity(rsaKey(), "client").Leaf, Host: host, Hash: crypto.SHA256, PSS: true}
	digest := sha256.Sum256([]byte("a contract"))
	info := must(DigestInfo(crypto.SHA256, digest[:]))
	server13 := bytes.Replace(prefix13, []byte("client"), []byte("server"), 1)
	for name, message := range map[string][]byte{
		"nothing":                nil,
		"a digest":               digest[:],
		"a DigestInfo":           info,
		"CMS signed attributes":  append([]byte{0x31, 0x30}, make([]byte, 48)...),
		"a JWT":                  []byte("eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiI5OTkxMjM0NSJ9"),
		"an SSH session":         append([]byte{0, 0, 0, 32}, make([]byte, 80)...),
		"a PDF":                  []byte("%PDF-1.7\n"),
		"server's proof":         append(server13, digest[:]...),
		"no hash":                prefix13,
		"31 bytes of hash":       append(bytes.Clone(prefix13), digest[:31]...),
		"33 bytes of hash":       append(bytes.Clone(prefix13), make([]byte, 33)...),
		"64 bytes of hash":       append(bytes.Clone(prefix13), make([]byte, 64)...),
		"63 spaces":              append(bytes.Clone(prefix13[1:]), digest[:]...),
		"65 spaces":              append([]byte(" "), append(bytes.Clone(prefix13), digest[:]...)...),
		"a ClientHello, nothing": {1, 0, 0, 0},
	} {
		if err := Check(message, want); err == nil {
			t.Errorf("%s: Check took it", name)
		}
	}
}

func TestCheckTiesSchemes(t *testing.T) {
	digest := sha256.Sum256(nil)
	message := append(bytes.Clone(prefix13), digest[:]...)
	r, e := newIdentity(rsaKey(), "r").Leaf, newIdentity(p384(), "e").Leaf
	for _, test := range []struct {
		want Wanted
		ok   bool
	}{
		{Wanted{r, host, crypto.SHA256, true}, true},
		{Wanted{r, host, crypto.SHA512, true}, true},
		{Wanted{r, host, crypto.SHA256, false}, false}, // RFC 8446 §4.2.3
		{Wanted{r, host, crypto.SHA1, true}, false},
		{Wanted{e, host, crypto.SHA384, false}, true},
		{Wanted{e, host, crypto.SHA256, false}, false},
		{Wanted{e, host, crypto.SHA384, true}, false},
	} {
		if err := Check(message, test.want); (err == nil) != test.ok {
			t.Errorf("%T %v PSS=%v: err = %v, want taken: %v", test.want.Leaf.PublicKey, test.want.Hash, test.want.PSS, err, test.ok)
		}
	}
}

func TestPSSVerifies(t *testing.T) {
	for _, bits := range []int{1031, 2041, 2047, 2048, 2049, 3072} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384} {
			h := hash.New()
			h.Write([]byte("message"))
			digest := h.Sum(nil)
			em, err := PSS(rand.Reader, hash, digest, key.N.BitLen())
			if err != nil {
				t.Fatal(err)
			}
			if len(em) != key.Size() {
				t.Fatalf("%d bits: %d bytes, want %d", bits, len(em), key.Size())
			}
			sig := new(big.Int).Exp(new(big.Int).SetBytes(em), key.D, key.N).FillBytes(make([]byte, key.Size()))
			if err := rsa.VerifyPSS(&key.PublicKey, hash, digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
				t.Errorf("%d bits, %v: %v", bits, hash, err)
			}
		}
	}
}

func TestPSSRefuses(t *testing.T) {
	digest := make([]byte, 64)
	if _, err := PSS(rand.Reader, crypto.SHA512, digest, 1024); err == nil {
		t.Error("PSS with SHA-512 in an RSA-1024 key was made")
	}
	if _, err := PSS(rand.Reader, crypto.SHA256, digest, 2048); err == nil {
		t.Error("PSS of a digest of the wrong size was made")
	}
	broken := errors.New("no randomness")
	if _, err := PSS(failing{broken}, crypto.SHA256, digest[:32], 2048); !errors.Is(err, broken) {
		t.Errorf("err = %v, want the random source's", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestECDSASignature(t *testing.T) {
	key := p384().(*ecdsa.PrivateKey)
	digest := make([]byte, 48)
	for range 20 { // some r or s begin with a zero or a high bit
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			t.Fatal(err)
		}
		raw := append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...)
		der, err := ECDSASignature(raw)
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, der) {
			t.Fatalf("r‖s of %x: %v", raw, err)
		}
	}
	for _, raw := range [][]byte{nil, make([]byte, 95)} {
		if _, err := ECDSASignature(raw); err == nil {
			t.Errorf("a signature of %d bytes was taken", len(raw))
		}
	}
}

func FuzzProof(f *testing.F) {
	leaf := newIdentity(p384(), "client")
	want := Wanted{Leaf: leaf.Leaf, Host: host, Hash: crypto.SHA384}
	digest := sha256.Sum256(nil)
	f.Add(append(bytes.Clone(prefix13), digest[:]...))
	f.Add([]byte{1, 0, 0, 0})
	f.Add(transcript(leaf.Leaf.Raw))
	f.Fuzz(func(t *testing.T, message []byte) {
		if Check(message, want) != nil {
			return
		}
		switch {
		case bytes.HasPrefix(message, prefix13) && (len(message) == 130 || len(message) == 146):
		case message[0] == clientHello && bytes.Contains(message, []byte(host)) && bytes.Contains(message, leaf.Leaf.Raw):
		default:
			t.Fatalf("Check took %q", message)
		}
	})
}

// transcript is the smallest TLS 1.2 handshake that Check takes.
func transcript(leaf []byte) []byte {
	n24 := func(b []byte) []byte {
		return append([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
	}
	n16 := func(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
	var out []byte
	add := func(kind byte, body ...[]byte) { out = append(append(out, kind), n24(bytes.Join(body, nil))...) }
	random := make([]byte, 32)
	name := append([]byte{0}, n16([]byte(host))...)
	sni := append([]byte{0, 0}, n16(n16(name))...)
	add(clientHello, []byte{3, 3}, random, []byte{0}, n16([]byte{0xc0, 0x2c}), []byte{1, 0}, n16(sni))
	add(serverHello, []byte{3, 3}, random, []byte{0, 0xc0, 0x2c, 0})
	add(certificate, n24(n24([]byte("server"))))
	add(serverKeyExchange, []byte("key"))
	add(certificateRequest, []byte{1, 64}, n16([]byte{5, 3}), n16(nil))
	add(serverHelloDone)
	add(certificate, n24(n24(leaf)))
	add(clientKeyExchange, []byte("share"))
	return out
}

func TestCheckTakesTheSmallestTranscript(t *testing.T) {
	leaf := newIdentity(p384(), "client").Leaf
	if err := Check(transcript(leaf.Raw), Wanted{Leaf: leaf, Host: host, Hash: crypto.SHA384}); err != nil {
		t.Fatal(err)
	}
}

func TestFitDigestKeepsTheSignature(t *testing.T) {
	key := p384().(*ecdsa.PrivateKey)
	for _, digest := range [][]byte{make([]byte, 32), bytes.Repeat([]byte{7}, 48), bytes.Repeat([]byte{8}, 64)} {
		fit := FitDigest(digest, 384)
		if len(fit) != 48 {
			t.Errorf("%d bytes became %d, want 48", len(digest), len(fit))
		}
		signature, err := ecdsa.SignASN1(rand.Reader, key, fit)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(&key.PublicKey, digest, signature) {
			t.Errorf("a signature of the fitted digest is not one of the digest of %d bytes", len(digest))
		}
	}
}
