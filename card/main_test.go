package card

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
)

func TestMain(m *testing.M) {
	RunIfChild()
	// Children with the race detector would take a second to end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

const (
	testHost = "asiointi.example.fi"
	rightPIN = "1234"
	wrongPIN = "4321"
	patience = 20 * time.Second // for what is waited for; never slept
)

// testCard is a test card with the authentication and the signature certificate
// of an invented person and the CA certificate.
type testCard struct {
	*softhsm.Card
	auth, signature Fingerprint
	leaf            *x509.Certificate
	issuer          *x509.Certificate
}

func newTestCard(t *testing.T, spec softhsm.Spec) *testCard {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{BaseURL: "http://127.0.0.1:1"})
	check(t, err)
	ca := pki.CitizenEC
	if spec.Key == softhsm.RSA2048 || spec.Key == softhsm.RSA3072 {
		ca = pki.CitizenRSA
	}
	hsm, err := softhsm.Create(filepath.Join(t.TempDir(), "card"), spec)
	check(t, err)
	c := &testCard{Card: hsm, issuer: ca.Certificate}
	authID, signatureID := []byte{softhsm.AuthenticationID}, []byte{softhsm.SignatureID}
	public, err := hsm.PublicKey(authID)
	check(t, err)
	auth, err := pki.Issue(ca, fineidtest.Leaf{PublicKey: public, GivenName: "ÄILI", Surname: "TESTINEN"})
	check(t, err)
	check(t, hsm.ImportCertificate(authID, "todentamisvarmenne", auth.Certificate.Raw))
	public, err = hsm.AddKey(hsm.Spec().Key, signatureID, "allekirjoitusavain")
	check(t, err)
	signature, err := pki.Issue(ca, fineidtest.Leaf{PublicKey: public, GivenName: "ÄILI", Surname: "TESTINEN", Purpose: fineid.Signature})
	check(t, err)
	check(t, hsm.ImportCertificate(signatureID, "allekirjoitusvarmenne", signature.Certificate.Raw))
	check(t, hsm.ImportCertificate([]byte{0x47}, "CA", ca.Certificate.Raw))
	check(t, hsm.ResetCounts())
	c.leaf, c.auth, c.signature = auth.Certificate, FingerprintOf(auth.Certificate.Raw), FingerprintOf(signature.Certificate.Raw)
	return c
}

// count returns one of the shim's counters.
func (c *testCard) count(t *testing.T, name string) uint64 {
	t.Helper()
	counts, err := c.Counts()
	check(t, err)
	return counts[name]
}

// start makes a manager that is closed, and has left nothing, at the test's end.
func start(t *testing.T, config Config) *Manager {
	t.Helper()
	return startWith(t, config, defaultLimits)
}

func startWith(t *testing.T, config Config, limits limits) *Manager {
	t.Helper()
	goroutines, files, before := runtime.NumGoroutine(), openFiles(t), children(t)
	if config.Poll == 0 {
		config.Poll = 50 * time.Millisecond
	}
	m, err := newManager(config, limits)
	check(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		left := slices.DeleteFunc(children(t), func(pid int) bool { return slices.Contains(before, pid) })
		if len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
		waitFor(t, "goroutines and files to be as before", func() bool {
			return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
		})
	})
	check(t, m.Wait(within(t)))
	return m
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// next waits for an event of a kind.
func next(t *testing.T, events <-chan Event, kind EventKind) Event {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended before event %q", kind)
			}
			if e.Kind == kind {
				return e
			}
		case <-deadline:
			t.Fatalf("waited too long for event %q", kind)
		}
	}
}

// children lists the child processes of this one.
func children(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	check(t, err)
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread ended
		}
		check(t, err)
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			check(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("err = %v, want one that is %q", err, want)
	}
	if Hint(err) == "" {
		t.Fatalf("%v has no hint", err)
	}
}

func unlock(t *testing.T, m *Manager, c *testCard, pin string, opts UnlockOptions) error {
	t.Helper()
	return m.Unlock(within(t), c.auth, NewPIN([]byte(pin)), opts)
}

func mustUnlock(t *testing.T, m *Manager, c *testCard) {
	t.Helper()
	check(t, unlock(t, m, c, rightPIN, UnlockOptions{}))
}

// onlyCard returns the one card that the manager shows.
func onlyCard(t *testing.T, m *Manager) *Card {
	t.Helper()
	var found *Card
	for _, r := range m.Snapshot().Readers {
		if r.Card == nil {
			continue
		}
		if found != nil {
			t.Fatalf("there are two cards: %v and %v", found.Label, r.Card.Label)
		}
		found = r.Card
	}
	if found == nil {
		t.Fatal("there is no card")
	}
	return found
}

// proof is what TLS 1.3 has a client sign.
var proof = []byte(strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00" + strings.Repeat("h", 48))

// sign signs a proof with a P-384 card. (crypto/tls hides what kind of error a
// signer gave in TLS 1.3.)
func sign(t *testing.T, m *Manager, c *testCard) error {
	t.Helper()
	signer, err := m.Signer(c.auth, testHost)
	if err == nil {
		_, err = signer.SignMessage(nil, proof, crypto.SHA384)
	}
	return err
}

// login makes a TLS handshake for host with the card's certificate and returns
// the version; the server wants the card's own certificate.
func login(t *testing.T, m *Manager, c *testCard, host string, maxVersion uint16) (uint16, error) {
	t.Helper()
	signer, err := m.Signer(c.auth, testHost)
	if err != nil {
		return 0, err
	}
	return handshake(t, m, c, host, maxVersion, tls.Certificate{
		Certificate: [][]byte{c.leaf.Raw}, PrivateKey: signer, Leaf: c.leaf,
	})
}

func handshake(t *testing.T, m *Manager, c *testCard, host string, maxVersion uint16, identity tls.Certificate) (uint16, error) {
	t.Helper()
	_, cert, ok := m.Snapshot().Find(c.auth)
	if !ok {
		return 0, ErrNoCard
	}
	identity.SupportedSignatureAlgorithms = cert.Schemes
	pki, err := fineidtest.New(fineidtest.Options{})
	check(t, err)
	web, err := pki.ServerCert(host)
	check(t, err)
	clientCAs := x509.NewCertPool()
	clientCAs.AddCert(c.issuer)
	a, b := net.Pipe()
	defer a.Close()
	served := make(chan error, 1)
	go func() {
		defer b.Close()
		server := tls.Server(b, &tls.Config{
			Certificates: []tls.Certificate{web}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCAs,
		})
		err := server.Handshake()
		if err == nil {
			_, err = server.Write([]byte("ok"))
		}
		served <- err
	}()
	client := tls.Client(a, &tls.Config{
		ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		MaxVersion: min(maxVersion, cert.MaxVersion), Certificates: []tls.Certificate{identity},
	})
	_, err = io.ReadFull(client, make([]byte, 2))
	a.Close()
	serverErr := <-served
	if err == nil {
		check(t, serverErr)
	}
	return client.ConnectionState().Version, err
}
