package roots

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, s *Store, name string) *Root {
	t.Helper()
	r, err := s.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func accepts(r *Root, leaf *x509.Certificate, host string) bool {
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host})
	return err == nil
}

func TestLeafIsForItsHostAlone(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct {
		name     string
		is, isnt []string
	}{
		{"Card.Test:8443", []string{"card.test"}, []string{"other.test", "sub.card.test", "test", "127.0.0.1", "xcard.test"}},
		{"*.example.fi", []string{"a.example.fi", "b.example.fi"}, []string{"example.fi", "a.b.example.fi", "example.com"}},
		{"127.0.0.1", []string{"127.0.0.1"}, []string{"127.0.0.2", "card.test", "localhost"}},
		{"[::1]:443", []string{"::1"}, []string{"::2", "127.0.0.1"}},
		{strings.Repeat("long-label.", 20) + "test", []string{strings.Repeat("long-label.", 20) + "test"}, []string{"test"}},
	} {
		r := get(t, s, c.name)
		for _, host := range c.is {
			if !accepts(r, r.Leaf.Leaf, host) {
				t.Errorf("%s: %s is refused", c.name, host)
			}
		}
		for _, host := range c.isnt {
			if accepts(r, r.Leaf.Leaf, host) {
				t.Errorf("%s: %s is accepted", c.name, host)
			}
		}
		if n := len(r.Leaf.Leaf.DNSNames) + len(r.Leaf.Leaf.IPAddresses); n != 1 {
			t.Errorf("%s: the leaf has %d names", c.name, n)
		}
		if life := r.NotAfter().Sub(r.Leaf.Leaf.NotBefore); life > 365*24*time.Hour || life < 364*24*time.Hour {
			t.Errorf("%s: the leaf lives %v", c.name, life)
		}
		if len(r.Certificate.Subject.CommonName) > 64 {
			t.Errorf("%s: common name of %d characters", c.name, len(r.Certificate.Subject.CommonName))
		}
	}
}

// Even if a root's key had been kept, it would be good for its host alone.
func TestRootIsConstrained(t *testing.T) {
	key, otherKey := testKey(t), testKey(t)
	now := time.Now()
	for _, c := range []struct {
		root, leaf string
		ok         bool
	}{
		{"card.test", "card.test", true},
		{"card.test", "sub.card.test", true}, // a dNSName constraint covers subdomains
		{"card.test", "other.test", false},
		{"card.test", "127.0.0.1", false},
		{"card.test", "::1", false},
		{"*.example.fi", "example.com", false},
		{"127.0.0.1", "127.0.0.2", false},
		{"127.0.0.1", "::1", false},
		{"127.0.0.1", "card.test", false},
	} {
		rootTemplate, _ := templates(c.root, now)
		_, leafTemplate := templates(c.leaf, now)
		rootDER, err := x509.CreateCertificate(rand.Reader, rootTemplate, rootTemplate, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		root, err := x509.ParseCertificate(rootDER)
		if err != nil {
			t.Fatal(err)
		}
		leafDER, err := x509.CreateCertificate(rand.Reader, leafTemplate, root, otherKey.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(leafDER)
		if err != nil {
			t.Fatal(err)
		}
		if got := accepts(&Root{Certificate: root}, leaf, c.leaf); got != c.ok {
			t.Errorf("Go: root of %s, leaf for %s: accepted %v", c.root, c.leaf, got)
		}
		if got := opensslAccepts(t, rootDER, leafDER); got != c.ok {
			t.Errorf("OpenSSL: root of %s, leaf for %s: accepted %v", c.root, c.leaf, got)
		}
		if !root.PermittedDNSDomainsCritical {
			t.Errorf("%s: the constraint is not critical", c.root)
		}
	}
}

func testKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	return get(t, open(t, t.TempDir()), "key.test").Leaf.PrivateKey.(*ecdsa.PrivateKey)
}

func opensslAccepts(t *testing.T, root, leaf []byte) bool {
	t.Helper()
	dir := t.TempDir()
	for name, der := range map[string][]byte{"root": root, "leaf": leaf} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", filepath.Join(dir, "root"), filepath.Join(dir, "leaf"))
	out, err := cmd.CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("subtree violation")) {
		t.Errorf("openssl: %s", out)
	}
	return err == nil
}

func TestCurl(t *testing.T) {
	r := get(t, open(t, t.TempDir()), "card.test")
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{r.Leaf}}
	server.Config.ErrorLog = nil
	server.StartTLS()
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	ca := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(ca, r.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for host, ok := range map[string]bool{"card.test": true, "other.test": false, "127.0.0.1": false} {
		cmd := exec.Command("curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", ca, "--connect-to", "::127.0.0.1:"+port, "https://"+host+"/")
		if out, err := cmd.CombinedOutput(); (err == nil) != ok {
			t.Errorf("%s: %v %s", host, err, out)
		}
	}
}

// What a thief finds on disk is one leaf's key.
func TestNoRootKeyOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "roots")
	s := open(t, dir)
	r := get(t, s, "card.test")
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", info.Mode(), err)
	}
	keys := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if !strings.Contains(block.Type, "PRIVATE KEY") {
				continue
			}
			keys++
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return err
			}
			public := key.(*ecdsa.PrivateKey).Public().(*ecdsa.PublicKey)
			if !public.Equal(r.Leaf.Leaf.PublicKey) || public.Equal(r.Certificate.PublicKey) {
				t.Error("the key on disk is not the leaf's")
			}
		}
		return nil
	})
	if err != nil || keys != 1 {
		t.Errorf("%d keys, %v", keys, err)
	}
}

func TestStoreKeepsAndRenews(t *testing.T) {
	dir := t.TempDir()
	var told []bool
	s, err := Open(dir, func(_ *Root, renewed bool) { told = append(told, renewed) })
	if err != nil {
		t.Fatal(err)
	}
	first := get(t, s, "card.test")
	if get(t, s, "CARD.test.:443") != first {
		t.Error("another spelling of the host gave another root")
	}
	other := get(t, s, "other.test")
	if other.Certificate.Subject.CommonName == first.Certificate.Subject.CommonName {
		t.Error("two roots with one name")
	}
	if again := get(t, open(t, dir), "card.test"); !again.Certificate.Equal(first.Certificate) {
		t.Error("a new start gave a new root")
	}
	s.now = func() time.Time { return first.RenewAt().Add(-time.Minute) }
	if same, err := s.Renew("card.test"); err != nil || same != first {
		t.Error("renewed too early", err)
	}
	s.now = func() time.Time { return first.RenewAt().Add(time.Minute) }
	if get(t, s, "card.test") != first {
		t.Error("replaced while programs can still use it")
	}
	second, err := s.Renew("card.test")
	if err != nil {
		t.Fatal(err)
	}
	if second.Certificate.Equal(first.Certificate) || !second.NotAfter().After(first.NotAfter()) ||
		second.Certificate.Subject.CommonName == first.Certificate.Subject.CommonName {
		t.Error("not renewed under a new name 30 days before the end")
	}
	s.now = func() time.Time { return other.NotAfter().Add(-replaceBefore).Add(-time.Minute) }
	if get(t, s, "other.test") != other {
		t.Error("replaced more than a day before the end")
	}
	s.now = func() time.Time { return other.NotAfter().Add(-replaceBefore).Add(time.Minute) }
	if get(t, s, "other.test").Certificate.Equal(other.Certificate) {
		t.Error("not replaced on the last day")
	}
	if !slices.Equal(told, []bool{false, false, true, true}) {
		t.Errorf("told of %v", told)
	}
}

func TestStoreDelete(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first := get(t, s, "card.test")
	get(t, s, "*.card.test")
	get(t, s, "::1")
	if err := s.Delete("card.test"); err != nil {
		t.Fatal(err)
	}
	if hosts, err := s.Hosts(); err != nil || !slices.Equal(hosts, []string{"*.card.test", "::1"}) {
		t.Errorf("%v %v", hosts, err)
	}
	if err := s.Delete("card.test"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if get(t, s, "card.test").Certificate.Equal(first.Certificate) {
		t.Error("the old root is back")
	}
}

func TestStoreOneRootUnderRace(t *testing.T) {
	s := open(t, t.TempDir())
	roots := make([]*Root, 20)
	var all sync.WaitGroup
	for i := range roots {
		all.Go(func() { roots[i], _ = s.Get("card.test") })
	}
	all.Wait()
	for _, r := range roots {
		if r == nil || r != roots[0] {
			t.Fatal("more than one root")
		}
	}
}

func TestStoreCorrupt(t *testing.T) {
	dir := t.TempDir()
	get(t, open(t, dir), "card.test")
	get(t, open(t, dir), "other.test")
	file := filepath.Join(dir, "card.test.pem")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(dir, "other.test.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.LastIndex(good, []byte("-----BEGIN"))
	otherCut := bytes.LastIndex(other, []byte("-----BEGIN"))
	for name, bad := range map[string][]byte{
		"empty":           {},
		"text":            []byte("hello"),
		"no key":          good[:cut],
		"broken key":      append(bytes.Clone(good[:cut]), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"...),
		"another's key":   append(bytes.Clone(good[:cut]), other[otherCut:]...),
		"another's root":  other,
		"broken root":     bytes.Replace(good, good[40:60], []byte("AAAAAAAAAAAAAAAAAAAA"), 1),
		"one cert. twice": append(bytes.Clone(good[:cut]), good[:cut]...),
	} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, dir).Get("card.test")
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := open(t, dir)
	if err := s.Delete("card.test"); err != nil {
		t.Fatal(err)
	}
	get(t, s, "card.test")
}

func TestStoreTidiesUp(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".card.test.pem.123")
	if err := os.WriteFile(left, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half file is still there: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", info.Mode(), err)
	}
	if _, err := Open(filepath.Join(dir, "no", "\x00"), nil); err == nil {
		t.Error("an impossible directory was opened")
	}
}

func TestNormaliseRefuses(t *testing.T) {
	for _, name := range []string{"", ".", "*", "*.", "*.fi", "a..b", "-a.fi", "a-.fi", "a b", "a/b", "../x", "a\nb", "a*.fi", "x.*.fi",
		"**.a.fi", "1.2.3", "ä.fi", "a_b.fi", strings.Repeat("a", 64) + ".fi", strings.Repeat("a.", 130), "fe80::1%lo", "a\x00.fi"} {
		if got, err := normalise(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %q %v", name, got, err)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"card.test", "*.Example.fi:8443", "[::1]:443", "1.2.3.4", "a%2e.fi", "..", "[a]"} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, name string) {
		host, err := normalise(name)
		if err != nil {
			return
		}
		if again, err := normalise(host); err != nil || again != host {
			t.Errorf("%q gives %q, which gives %q, %v", name, host, again, err)
		}
		if file := (&Store{dir: dir}).file(host); filepath.Dir(file) != dir {
			t.Errorf("%q leads out of the directory: %s", name, file)
		}
	})
}

// FuzzDecode: a damaged file is an error and never a usable root.
func FuzzDecode(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Get("card.test"); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "card.test.pem"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decode(data, "card.test"); err == nil && !accepts(r, r.Leaf.Leaf, "card.test") {
			t.Error("a root that does not work was taken")
		}
	})
}
