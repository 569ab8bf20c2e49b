package server_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/tests/programs"
)

func TestLogsIn(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		satu := fineidtest.SATU(777)
		card := f.issue(fineidtest.Leaf{GivenName: "ÅKE", Surname: "SPECIMEN-NGINX", SerialNumber: satu.String()})
		resp, err := f.client(card, 0).Post("https://"+site+"/login", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || to != "/inactive" {
			t.Fatalf("a new user should be sent to /inactive, not %d %q", resp.StatusCode, to)
		}
		if _, user, reason := f.whoami(f.client(card, 0), nil); user != "" || reason != "inactive" {
			t.Errorf("an inactive user is %q, %q", user, reason)
		}
		f.approve(satu)
		for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
			if status, user, reason := f.whoami(f.client(card, version), nil); user != satu.String() {
				t.Errorf("%s: %d, user %q, reason %q", name, status, user, reason)
			}
		}
		if _, user, reason := f.whoami(f.client(nil, 0), nil); user != "" || reason != "no-certificate" {
			t.Errorf("without a card: user %q, reason %q", user, reason)
		}
		kept := f.client(card, 0)
		if _, user, _ := f.whoami(kept, nil); user == "" {
			t.Fatal("the card is not let in any more")
		}
		foreign, err := fineidtest.New(fineidtest.Options{ECOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := foreign.Issue(foreign.CitizenEC, fineidtest.Leaf{SerialNumber: satu.String()})
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]*fineidtest.Issued{
			"signature certificate": f.issue(fineidtest.Leaf{SerialNumber: satu.String(), Purpose: fineid.Signature}),
			"expired certificate":   f.issue(fineidtest.Leaf{SerialNumber: satu.String(), NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(0, 0, -1)}),
			"foreign CA":            stranger,
		} {
			if f.strict && bad != stranger {
				if _, err := f.client(bad, 0).Get("https://" + site + "/whoami"); err == nil {
					t.Errorf("%s: %s has let it through", name, f.name)
				}
				continue
			}
			if status, user, reason := f.whoami(f.client(bad, 0), nil); user != "" || reason == "" {
				t.Errorf("%s: %d, user %q, reason %q", name, status, user, reason)
			}
		}
	})
}

// A card's signature is made once for a connection, not for each request.
func TestKeepsConnections(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		card := f.admit(fineidtest.SATU(776))
		for _, protocol := range f.protocols() {
			w := f.wire(t, protocol, card)
			w.ask(request{})
			first := w.now
			if a := w.ask(request{}); a.status != http.StatusOK || first == nil || w.now != first {
				t.Errorf("%s: the second request is answered %d, on a connection of its own", protocol.name, a.status)
			}
		}
	})
}

// A browser that came without a card is asked for one on its next connection, as
// no TLS session is resumed.
func TestAsksAnew(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		satu := fineidtest.SATU(775)
		card := f.admit(satu)
		for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
			sessions := tls.NewLRUClientSessionCache(0)
			want := ""
			for _, holder := range []*fineidtest.Issued{nil, card} {
				config := f.tlsConfig(holder, version)
				config.ClientSessionCache = sessions
				w := f.wire(t, http11, holder)
				w.config = config
				a := w.ask(request{})
				user, _ := userIn(a.body)
				resumed := w.now != nil && w.now.ConnectionState().DidResume
				if resumed != (f.resumes && holder != nil) || user != want {
					t.Errorf("%s, with a card: %t: %d, user %q, resumed: %t", name, holder != nil, a.status, user, resumed)
				}
				if !f.resumes {
					want = satu.String()
				}
			}
		}
	})
}

// A local process that is not the trusted proxy gets 400 for the same header.
func TestHeaderFromUntrustedPeer(t *testing.T) {
	f := newFront(t, nginx)
	victim := f.issue(fineidtest.Leaf{SerialNumber: fineidtest.SATU(779).String()})
	forged := f.escape(victim.Certificate.Raw)
	ask := exec.Command("curl", "--silent", "--unix-socket", f.socket, "--header", f.header+": "+forged,
		"--write-out", "\n%{http_code}", "http://"+site+"/whoami")
	trusted, err := ask.Output()
	if err != nil || !strings.HasSuffix(string(trusted), "\n200") && !strings.HasSuffix(string(trusted), "\n403") && !strings.HasSuffix(string(trusted), "\n401") {
		t.Fatalf("the trusted user should be understood, not: %s (%v)", trusted, err)
	}
	if os.Getuid() != 0 {
		t.Log("not run: becoming another user needs root")
		return
	}
	for _, path := range []string{f.dir, filepath.Dir(f.dir)} { // let the other user reach the socket at all
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(f.socket, 0o777); err != nil {
		t.Fatal(err)
	}
	other := exec.Command(ask.Path, ask.Args[1:]...)
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := other.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "\n400") {
		t.Errorf("another user's header should be 400, not: %s (%v)", out, err)
	}
}

// A certificate that is revoked while a connection lives is out at the next
// request after the good answer's life.
func TestRevokedBehindNginx(t *testing.T) {
	f := newFront(t, nginx)
	satu := fineidtest.SATU(780)
	card := f.issue(fineidtest.Leaf{SerialNumber: satu.String()})
	kept := f.client(card, 0)
	if resp, err := kept.Post("https://"+site+"/login", "", nil); err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	f.approve(satu)
	if _, user, reason := f.whoami(kept, nil); user != satu.String() {
		t.Fatalf("not let in: %q", reason)
	}
	connections := f.connections.Load()
	if err := f.pki.Revoke(card.Certificate, time.Now().Add(-time.Minute), 1); err != nil {
		t.Fatal(err)
	}
	programs.Until(t, "the revoked card is out", func() bool {
		_, user, reason := f.whoami(kept, nil)
		return user == "" && reason == "revoked"
	})
	if f.connections.Load() != connections {
		t.Error("the connection was not kept, so the test has shown less than it says")
	}
}

// Requests that an HTTP library would not write: whatever the proxy makes of them,
// nobody becomes the victim, and no second request is smuggled past it.
func TestMalformed(t *testing.T) {
	behindEach(t, func(t *testing.T, f *front) {
		satu := fineidtest.SATU(781)
		victim := f.issue(fineidtest.Leaf{SerialNumber: satu.String()})
		if resp, err := f.client(victim, 0).Post("https://"+site+"/login", "", nil); err != nil || resp.Body.Close() != nil {
			t.Fatal(err)
		}
		f.approve(satu)
		forged := f.header + ": " + f.escape(victim.Certificate.Raw) + "\r\n"
		host := "Host: " + site + "\r\n"
		config := f.client(nil, 0).Transport.(*http.Transport).TLSClientConfig
		for name, request := range map[string]string{
			"HTTP/1.0":        "GET /whoami HTTP/1.0\r\n" + forged + "\r\n",
			"HTTP/0.9":        "GET /whoami\r\n",
			"absolute form":   "GET https://" + site + "/whoami HTTP/1.1\r\n" + host + forged + "\r\n",
			"another host":    "GET https://else.example/whoami HTTP/1.1\r\nHost: else.example\r\n" + forged + "\r\n",
			"two hosts":       "GET /whoami HTTP/1.1\r\n" + host + "Host: else.example\r\n" + forged + "\r\n",
			"bare line feeds": strings.ReplaceAll("GET /whoami HTTP/1.1\r\n"+host+forged+"\r\n", "\r\n", "\n"),
			"two lengths": "POST /whoami HTTP/1.1\r\n" + host + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
				"GET /whoami HTTP/1.1\r\n" + host + forged + "\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				conn, err := tls.Dial("tcp", f.addr, config.Clone())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(conn, request+"GET /healthz HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(conn) // nginx may end the connection as it likes
				if len(answer) == 0 || bytes.Contains(answer, []byte(satu.String())) || bytes.Contains(answer, []byte(`"authenticated":true`)) {
					t.Errorf("answered %q", answer)
				}
			})
		}
	})
}
