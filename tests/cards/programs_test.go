package cards

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// runPKCS11Tool runs OpenSC's own program with the room's OpenSC.
func runPKCS11Tool(t testing.TB, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(within(t), "pkcs11-tool", append([]string{"--module", pcscd.Module}, args...)...)
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	return out.String(), complaints.String(), err
}

// pkcs11Tool is one that succeeds.
func pkcs11Tool(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, err := runPKCS11Tool(t, args...)
	if err != nil {
		t.Fatalf("pkcs11-tool %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// waitForReader waits until PC/SC says that a card is in the first reader, or that
// none is. Nobody reads the card, or keeps looking at it, for that.
func waitForReader(t testing.TB, present string) {
	t.Helper()
	waitFor(t, "PC/SC to say of a card: "+present, func() bool {
		out, err := exec.CommandContext(within(t), "opensc-tool", "--list-readers").Output()
		line := readerLine.FindSubmatch(out)
		return err == nil && line != nil && string(line[1]) == present
	})
}

var readerLine = regexp.MustCompile(`(?m)^0\s+(Yes|No)\s`)

// toolToken is a slot with a token, as pkcs11-tool shows it.
type toolToken struct {
	slot, label, serial string
	flags               []string
	minMax              string
}

var slotLine = regexp.MustCompile(`(?m)^Slot (\d+) `)

// toolTokens lists the tokens by their labels.
func toolTokens(t testing.TB) map[string]toolToken {
	t.Helper()
	out := pkcs11Tool(t, "--list-token-slots")
	tokens := map[string]toolToken{}
	starts := append(slotLine.FindAllStringSubmatchIndex(out, -1), []int{len(out)})
	for i, start := range starts[:len(starts)-1] {
		token := toolToken{slot: out[start[2]:start[3]]}
		for line := range strings.Lines(out[start[0]:starts[i+1][0]]) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			value = strings.TrimSpace(value)
			switch strings.TrimSpace(name) {
			case "token label":
				token.label = value
			case "serial num":
				token.serial = value
			case "token flags":
				token.flags = strings.Split(value, ", ")
			case "pin min/max":
				token.minMax = value
			}
		}
		tokens[token.label] = token
	}
	return tokens
}

// The beginnings of the lines for an object; newer versions write an id as
// "69 (0x45)".
var (
	idLine  = regexp.MustCompile(`^\s+ID:\s+(?:\d+ \(0x)?([0-9a-f]+)`)
	keyLine = regexp.MustCompile(`^Public Key Object; (?:RSA\s+(\d+) bits|EC\s+EC_POINT\s+(\d+) bits)`)
)

// toolObjects lists the ids of a type of object in a slot, with the names of the
// keys if they are public ones.
func toolObjects(t testing.TB, slot, kind string, more ...string) (ids []string, keys map[string]string) {
	t.Helper()
	keys = map[string]string{}
	key := ""
	for line := range strings.Lines(pkcs11Tool(t, append([]string{"--slot", slot, "--list-objects", "--type", kind}, more...)...)) {
		if m := keyLine.FindStringSubmatch(line); m != nil && m[1] != "" {
			key = "RSA-" + m[1]
		} else if m != nil {
			key = "P-" + m[2]
		}
		if m := idLine.FindStringSubmatch(line); m != nil {
			ids = append(ids, m[1])
			keys[m[1]] = key
		}
	}
	return ids, keys
}

// where is a certificate, by SHA-256, as either program shows it.
type where struct{ sha256, token, key string }

// toolCertificates reads all certificates of all tokens with pkcs11-tool, but for
// those of CAs, and returns the CKA_ID of each by its SHA-256.
func toolCertificates(t testing.TB) (all []where, ids map[string]string) {
	t.Helper()
	ids = map[string]string{}
	for _, token := range toolTokens(t) {
		_, keys := toolObjects(t, token.slot, "pubkey")
		certificates, _ := toolObjects(t, token.slot, "cert")
		for _, id := range certificates {
			der := []byte(pkcs11Tool(t, "--slot", token.slot, "--read-object", "--type", "cert", "--id", id))
			cert, err := x509.ParseCertificate(der)
			check(t, err)
			if cert.IsCA {
				continue
			}
			sum := fmt.Sprintf("%x", sha256.Sum256(der))
			all = append(all, where{sum, token.label, keys[id]})
			ids[sum] = id
		}
	}
	return all, ids
}

// korttiCards returns what `kortti cards --json` says.
func korttiCards(t *testing.T) (cards []control.Card) {
	t.Helper()
	out, code := kortti(t, "cards", "--json")
	var answer control.Cards
	check(t, json.Unmarshal([]byte(out), &answer))
	if code != 0 {
		t.Fatalf("kortti cards: exit code %d", code)
	}
	for _, r := range answer.Readers {
		if r.Card != nil {
			cards = append(cards, *r.Card)
		}
	}
	return cards
}

// korttiCerts returns what `kortti certs --json` says.
func korttiCerts(t *testing.T) (certs []control.Certificate) {
	t.Helper()
	out, code := kortti(t, "certs", "--json")
	check(t, json.Unmarshal([]byte(out), &certs))
	if code != 0 {
		t.Fatalf("kortti certs: exit code %d", code)
	}
	return certs
}

// forLogin returns the one certificate that kortti offers for login.
func forLogin(t *testing.T) (control.Certificate, *x509.Certificate) {
	t.Helper()
	certs := slices.DeleteFunc(korttiCerts(t), func(c control.Certificate) bool { return !c.Login })
	if len(certs) != 1 {
		t.Fatalf("kortti offers %d certificates for login", len(certs))
	}
	block, _ := pem.Decode([]byte(certs[0].PEM))
	if block == nil {
		t.Fatal("kortti shows no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	check(t, err)
	return certs[0], cert
}

// kortti shows the certificates of people that pkcs11-tool shows, all of them and
// no other, on the same tokens and with the same kinds of key.
func TestCertificatesAsPKCS11Tool(t *testing.T) {
	cas, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	check(t, err)
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p, CAs: [][]byte{cas.CitizenEC.Certificate.Raw, cas.Root.Certificate.Raw}})
		c.insert(t, pcscd.Address0)
		waitForReader(t, "Yes")
		want, _ := toolCertificates(t)
		if len(want) != 2 {
			t.Fatalf("pkcs11-tool shows %v", want)
		}
		var got []where
		for _, shown := range korttiCards(t) {
			for _, cert := range shown.Certificates {
				got = append(got, where{cert.SHA256, shown.Label, cert.Key})
			}
		}
		if !sameMembers(got, want) {
			t.Errorf("kortti cards shows\n%v\nand pkcs11-tool\n%v", got, want)
		}
		var listed, wanted []string
		for _, cert := range korttiCerts(t) {
			listed = append(listed, cert.SHA256)
		}
		for _, w := range want {
			wanted = append(wanted, w.sha256)
		}
		if !sameMembers(listed, wanted) {
			t.Errorf("kortti certs shows\n%v\nand pkcs11-tool\n%v", listed, wanted)
		}
		if n := c.Counts().Verifies; n != 0 {
			t.Errorf("%d PINs were presented", n)
		}
	})
}

// sameMembers compares lists in any order.
func sameMembers[T comparable](a, b []T) bool {
	count := map[T]int{}
	for _, member := range a {
		count[member]++
	}
	for _, member := range b {
		count[member]--
	}
	return !slices.ContainsFunc(slices.Collect(maps.Values(count)), func(n int) bool { return n != 0 })
}

// The certificate that kortti offers for login is the one whose key pkcs11-tool
// finds with PIN1, and its signature is that certificate's.
func TestLoginKeyAsPKCS11Tool(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		c.insert(t, pcscd.Address0)
		waitForReader(t, "Yes")
		shown, cert := forLogin(t)
		if card.FingerprintOf(cert.Raw) != c.auth {
			t.Errorf("kortti offers %s for login", shown.Subject)
		}
		certificates, ids := toolCertificates(t)
		i := slices.IndexFunc(certificates, func(w where) bool { return w.sha256 == shown.SHA256 })
		if i < 0 {
			t.Fatalf("pkcs11-tool shows %v", certificates)
		}
		id, slot := ids[shown.SHA256], toolTokens(t)[certificates[i].token].slot
		if keys, _ := toolObjects(t, slot, "privkey", "--login", "--pin", rightPIN); !slices.Equal(keys, []string{id}) {
			t.Errorf("pkcs11-tool finds the keys %v with PIN1; the certificate's is %s", keys, id)
		}
		message := []byte("what pkcs11-tool signs")
		signature := toolSign(t, cert.PublicKey, slot, id, message)
		digest := sha256.Sum256(message)
		switch public := cert.PublicKey.(type) {
		case *rsa.PublicKey:
			check(t, rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature))
		case *ecdsa.PublicKey:
			if !ecdsa.VerifyASN1(public, digest[:], signature) {
				t.Error("the signature is another key's")
			}
		}
	})
}

// toolSign has pkcs11-tool sign SHA-256 of a message.
func toolSign(t testing.TB, public crypto.PublicKey, slot, id string, message []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(message)
	input, mechanism := digest[:], "ECDSA"
	if _, ok := public.(*rsa.PublicKey); ok {
		prefix := []byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20") // RFC 8017 §9.2, note 1
		input, mechanism = append(prefix, input...), "RSA-PKCS"
	}
	folder := t.TempDir()
	in, out := filepath.Join(folder, "in"), filepath.Join(folder, "out")
	check(t, os.WriteFile(in, input, 0o600))
	pkcs11Tool(t, "--slot", slot, "--login", "--pin", rightPIN, "--sign", "--id", id, "--mechanism", mechanism,
		"--signature-format", "openssl", "--input-file", in, "--output-file", out)
	signature, err := os.ReadFile(out)
	check(t, err)
	return signature
}

// At every count of tries kortti tells the same of a PIN as pkcs11-tool does.
func TestPINFlagsAsPKCS11Tool(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		c.insert(t, pcscd.Address0)
		waitForReader(t, "Yes")
		tries := c.TriesLeft(virtualcard.PIN1)
		for wrong := 0; ; wrong++ {
			token, pin := samePIN(t)
			// The driver of the oldest card cannot ask it for its tries.
			tells, left := p != virtualcard.FINEIDSetCOS, c.TriesLeft(virtualcard.PIN1)
			if left != tries-wrong || pin.FinalTry != (tells && left == 1) || pin.Locked != (tells && left == 0) {
				t.Errorf("after %d wrong PINs, with %d tries left, both say %+v", wrong, left, pin)
			}
			if left == 0 {
				return
			}
			if _, _, err := runPKCS11Tool(t, "--slot", token.slot, "--login", "--pin", wrongPIN, "--list-objects"); err == nil {
				t.Fatal("a wrong PIN was taken")
			}
		}
	})
}

// samePIN compares what both programs say of all tokens' PINs, and returns the
// token with the certificate for login and what they say of its PIN.
func samePIN(t *testing.T) (login toolToken, pin control.PIN) {
	t.Helper()
	tokens := toolTokens(t)
	for _, c := range korttiCards(t) {
		token := tokens[c.Label]
		has := func(flag string) bool { return slices.Contains(token.flags, flag) }
		want := control.PIN{
			Initialized: has("PIN initialized"), ToBeChanged: has("user PIN to be changed"), Pad: has("PIN pad present"),
			CountLow: has("user PIN count low"), FinalTry: has("final user PIN try"), Locked: has("user PIN locked"),
			PUKFinalTry: has("final SO PIN try"), PUKLocked: has("SO PIN locked"), Min: c.PIN.Min, Max: c.PIN.Max,
		}
		if c.PIN != want || token.serial != c.Serial || token.minMax != fmt.Sprintf("%d/%d", c.PIN.Min, c.PIN.Max) {
			t.Errorf("kortti says %+v of the token %q, serial number %s; pkcs11-tool %+v", c.PIN, c.Label, c.Serial, token)
		}
		if slices.ContainsFunc(c.Certificates, func(cert control.Certificate) bool { return cert.Login }) {
			login, pin = token, c.PIN
		}
	}
	return login, pin
}

// site is a web server that wants a certificate of a card's issuer.
type site struct {
	port string
	ca   string // file with its own CA

	mu   sync.Mutex // guards seen
	seen []login
}

// login is what the server saw.
type login struct {
	cert    card.Fingerprint
	version uint16
}

// newSite starts a server that ends with the test.
func newSite(t *testing.T, issuer *x509.Certificate) *site {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true})
	check(t, err)
	web, err := pki.ServerCert(host)
	check(t, err)
	s := &site{ca: filepath.Join(t.TempDir(), "ca.pem")}
	check(t, os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pki.Web.Certificate.Raw}), 0o600))
	clientCAs := x509.NewCertPool()
	clientCAs.AddCert(issuer)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, login{card.FingerprintOf(r.TLS.PeerCertificates[0].Raw), r.TLS.Version})
		io.WriteString(w, "welcome")
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{web}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCAs}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, s.port, err = net.SplitHostPort(server.Listener.Addr().String())
	check(t, err)
	return s
}

// wantLogins says whether the server saw the card's certificate in these
// versions of TLS and nothing else, and forgets it.
func (s *site) wantLogins(t *testing.T, cert card.Fingerprint, versions ...uint16) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var want []login
	for _, version := range versions {
		want = append(want, login{cert, version})
	}
	if !slices.Equal(s.seen, want) {
		t.Errorf("the server saw %v, want %v", s.seen, want)
	}
	s.seen = nil
}

// curl makes a request with the certificate and the key of a token by OpenSSL's
// PKCS#11 engine.
func (s *site) curl(t *testing.T, token, id, maxVersion string) {
	t.Helper()
	object := "pkcs11:token=" + url.PathEscape(token) + ";id=%" + id
	cmd := exec.CommandContext(within(t), "curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", s.ca, "--tls-max", maxVersion,
		"--engine", "pkcs11", "--cert-type", "ENG", "--cert", object+";type=cert", "--key-type", "ENG", "--key", object+";type=private;pin-value="+rightPIN,
		"--connect-to", host+":443:127.0.0.1:"+s.port, "https://"+host+"/")
	cmd.Env = append(os.Environ(), "PKCS11_MODULE_PATH="+pcscd.Module)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if out, err := cmd.Output(); err != nil || string(out) != "welcome" {
		t.Errorf("curl with TLS up to %s: %v: %q\n%s", maxVersion, err, out, &complaints)
	}
}

// get makes the same request with the manager's signer.
func (s *site) get(t *testing.T, c *testCard, m *card.Manager, maxVersion uint16) {
	t.Helper()
	signer, err := m.Signer(c.auth, host)
	check(t, err)
	_, cert, _ := m.Snapshot().Find(c.auth)
	ca, err := os.ReadFile(s.ca)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		ServerName: host, RootCAs: roots, MaxVersion: min(maxVersion, cert.MaxVersion),
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.X509.Raw}, PrivateKey: signer, SupportedSignatureAlgorithms: cert.Schemes}},
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://127.0.0.1:" + s.port + "/")
	check(t, err)
	response.Body.Close()
}

// curl, with OpenSSL's PKCS#11 engine, logs in with the certificate that kortti
// names, and the card manager's signer with the same.
func TestCurl(t *testing.T) {
	if pcscd.Room() != rootfs.Bookworm {
		return // OpenSSL's newer versions have no engines
	}
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		c.insert(t, pcscd.Address0)
		waitForReader(t, "Yes")
		shown, cert := forLogin(t)
		certificates, ids := toolCertificates(t)
		s := newSite(t, c.issuer)
		token := certificates[slices.IndexFunc(certificates, func(w where) bool { return w.sha256 == shown.SHA256 })].token
		before := c.Counts()
		s.curl(t, token, ids[shown.SHA256], "1.2")
		s.curl(t, token, ids[shown.SHA256], "1.3")
		s.wantLogins(t, card.FingerprintOf(cert.Raw), tls.VersionTLS12, tls.VersionTLS13)
		between := c.Counts()

		m := start(t, card.Config{})
		c.ready(t, m)
		c.mustUnlock(t, m)
		s.get(t, c, m, tls.VersionTLS12)
		s.get(t, c, m, tls.VersionTLS13)
		s.wantLogins(t, card.FingerprintOf(cert.Raw), tls.VersionTLS12, tls.VersionTLS13)
		after := c.Counts()
		t.Logf("two logins cost curl %d PINs and %d signatures, kortti %d and %d", between.Verifies-before.Verifies,
			between.Signatures-before.Signatures, after.Verifies-between.Verifies, after.Signatures-between.Signatures)
	})
}
