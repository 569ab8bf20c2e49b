// Package cards has the tests of whole cards: virtual cards in a real pcscd,
// read by the real OpenSC, used by the card manager as the agent uses them.
package cards

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/rootfs"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

func TestMain(m *testing.M) {
	card.RunIfChild()
	pcscd.MainWithPrograms(m, []string{"./cmd/kortti"}, rootfs.Bookworm, rootfs.Sid)
}

const (
	host     = "asiointi.example.fi"
	rightPIN = "1234"
	wrongPIN = "4321"
	patience = 20 * time.Second // for what is waited for; never slept
)

// profiles are the cards that the room's OpenSC knows.
func profiles() []virtualcard.Profile {
	if pcscd.Room() == rootfs.Sid {
		return []virtualcard.Profile{virtualcard.MyEIDRSA, virtualcard.MyEIDEC, virtualcard.FINEID40, virtualcard.FINEID41}
	}
	return []virtualcard.Profile{virtualcard.MyEIDRSA, virtualcard.MyEIDEC, virtualcard.FINEIDSetCOS}
}

// eachProfile runs f with each of them.
func eachProfile(t *testing.T, f func(t *testing.T, p virtualcard.Profile)) {
	for _, p := range profiles() {
		t.Run(string(p), func(t *testing.T) { f(t, p) })
	}
}

// testCard is a virtual card of an invented person under a test CA.
type testCard struct {
	*virtualcard.Card
	auth, signature card.Fingerprint
	leaf, issuer    *x509.Certificate
	in              *virtualcard.Insertion
}

func newCard(t testing.TB, spec virtualcard.Spec) *testCard {
	t.Helper()
	pki, err := fineidtest.New(fineidtest.Options{BaseURL: "http://127.0.0.1:1"})
	check(t, err)
	ca, rsaKey := pki.CitizenEC, false
	if spec.Profile == virtualcard.MyEIDRSA || spec.Profile == virtualcard.FINEIDSetCOS {
		ca, rsaKey = pki.CitizenRSA, true
	}
	identity := func(purpose fineid.Purpose) virtualcard.Identity {
		var key crypto.Signer
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if rsaKey {
			key, err = rsa.GenerateKey(rand.Reader, 2048)
		}
		check(t, err)
		leaf, err := pki.Issue(ca, fineidtest.Leaf{PublicKey: key.Public(), GivenName: "ÄILI", Surname: "TESTINEN", Purpose: purpose})
		check(t, err)
		return virtualcard.Identity{Key: key, Certificate: leaf.Certificate.Raw}
	}
	spec.Authentication, spec.Signature = identity(fineid.Authentication), identity(fineid.Signature)
	v, err := virtualcard.New(spec)
	check(t, err)
	leaf, err := x509.ParseCertificate(spec.Authentication.Certificate)
	check(t, err)
	return &testCard{
		Card: v, leaf: leaf, issuer: ca.Certificate,
		auth: card.FingerprintOf(spec.Authentication.Certificate), signature: card.FingerprintOf(spec.Signature.Certificate),
	}
}

// insert puts the card into a reader until the test ends or it is pulled.
func (c *testCard) insert(t testing.TB, address string) {
	t.Helper()
	in, err := virtualcard.Insert(within(t), address, c.Card)
	check(t, err)
	c.in = in
	t.Cleanup(in.Pull)
}

func (c *testCard) pull() { c.in.Pull() }

// start makes a manager that is closed, and has left nothing, at the test's end.
func start(t testing.TB, config card.Config) *card.Manager {
	t.Helper()
	goroutines, files, before := runtime.NumGoroutine(), openFiles(t), children(t)
	if config.Modules == nil {
		config.Modules = []string{pcscd.Module}
	}
	config.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	m, err := card.NewManager(config)
	check(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if left := without(children(t), before); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
		waitFor(t, "goroutines and files to be as before", func() bool {
			return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
		})
	})
	check(t, m.Wait(within(t)))
	return m
}

func without(pids, others []int) []int {
	return slices.DeleteFunc(pids, func(pid int) bool { return slices.Contains(others, pid) })
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// ready waits until the manager shows the card and returns it.
func (c *testCard) ready(t testing.TB, m *card.Manager) *card.Card {
	t.Helper()
	var shown *card.Card
	defer func() {
		if t.Failed() {
			t.Logf("the manager shows %+v", m.Snapshot())
		}
	}()
	waitFor(t, "the card to be listed", func() bool {
		var cert *card.Certificate
		var ok bool
		shown, cert, ok = m.Snapshot().Find(c.auth)
		return ok && cert.Login
	})
	return shown
}

func (c *testCard) state(m *card.Manager) (card.State, bool) {
	shown, _, ok := m.Snapshot().Find(c.auth)
	if !ok {
		return 0, false
	}
	return shown.State, true
}

func (c *testCard) unlock(t testing.TB, m *card.Manager, pin string) error {
	t.Helper()
	return m.Unlock(within(t), c.auth, card.NewPIN([]byte(pin)), card.UnlockOptions{})
}

func (c *testCard) mustUnlock(t testing.TB, m *card.Manager) {
	t.Helper()
	check(t, c.unlock(t, m, rightPIN))
}

// sign has the card sign what TLS 1.3 has a client sign.
func (c *testCard) sign(m *card.Manager) error {
	signer, err := m.Signer(c.auth, host)
	if err != nil {
		return err
	}
	proof := []byte(strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00" + strings.Repeat("h", 48))
	if _, ok := c.leaf.PublicKey.(*rsa.PublicKey); ok {
		_, err = signer.SignMessage(rand.Reader, proof, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	} else {
		_, err = signer.SignMessage(rand.Reader, proof, crypto.SHA384)
	}
	return err
}

// login makes a TLS handshake with the card's certificate, which the server
// verifies, and returns the version.
func (c *testCard) login(t testing.TB, m *card.Manager, maxVersion uint16) (uint16, error) {
	t.Helper()
	signer, err := m.Signer(c.auth, host)
	if err != nil {
		return 0, err
	}
	_, cert, ok := m.Snapshot().Find(c.auth)
	if !ok {
		return 0, card.ErrNoCard
	}
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
		server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{web}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clientCAs})
		err := server.Handshake()
		if err == nil {
			_, err = server.Write([]byte("ok"))
		}
		served <- err
	}()
	client := tls.Client(a, &tls.Config{
		ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: min(maxVersion, cert.MaxVersion),
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{c.leaf.Raw}, Leaf: c.leaf, PrivateKey: signer, SupportedSignatureAlgorithms: cert.Schemes,
		}},
	})
	_, err = io.ReadFull(client, make([]byte, 2))
	a.Close()
	if serverErr := <-served; err == nil {
		check(t, serverErr)
	}
	return client.ConnectionState().Version, err
}

// children lists the child processes of this one.
func children(t testing.TB) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	check(t, err)
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			check(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
