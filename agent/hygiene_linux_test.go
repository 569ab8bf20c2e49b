package agent

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
)

// private is what may be in no log, file, argument or variable, but for names
// in the audit file: PINs, the person, and what programs and hosts say to each
// other.
var private = []string{
	rightPIN, "8642", "975310", "13572468", rightPUK, // PINs and PUKs, right and wrong
	"999", "TESTINEN", "ÄILI", // the person
	"kookie", "paasword", "Basic ", "s3cretpath", "s3cretquery", "s3cretbody", "s3cretuser", "s3crethost",
}

// find looks for a secret. Digits are one only by themselves: within a fingerprint
// they come about by chance. "999" begins a SATU.
func find(text, secret string) (at []int) {
	pattern := regexp.QuoteMeta(secret)
	if secret == "999" {
		pattern += "[0-9]{5}[0-9A-Y]"
	}
	if strings.Trim(secret, "0123456789") == "" {
		pattern = `(^|[^0-9a-f])` + pattern + `([^0-9a-f]|$)`
	}
	return regexp.MustCompile(pattern).FindStringIndex(text)
}

// TestNothingPrivateIsWritten leads an agent that logs all it can through what
// happens to it, and then looks at all that it has written or told its children.
func TestNothingPrivateIsWritten(t *testing.T) {
	w := newWorld(t, "", func(site *httptest.Server) {
		inner := site.Config.Handler
		site.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/broken") {
				conn, _, err := rw.(http.Hijacker).Hijack()
				if err == nil {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: s3cretbody\r\n\r\n")
					conn.Close()
				}
				return
			}
			rw.Header().Set("Set-Cookie", "kookie=1")
			inner.ServeHTTP(rw, r)
		})
		site.EnableHTTP2 = false
	})
	var children bytes.Buffer
	look := func() { readChildren(t, &children) }
	stream := w.attend(t)
	ask := func(a control.Answer, code string) {
		t.Helper()
		p := next(t, stream, control.EventPrompt).Prompt
		look()
		err := w.answer(t, p.ID, a)
		look()
		if code == "" {
			check(t, err)
		} else {
			wantCode(t, err, code)
		}
	}
	load := func(path string) <-chan int {
		end := make(chan int, 1)
		program := w.throughProxy(t)
		req := mustRequest(t, "https://"+siteName+path)
		req.Header.Set("Cookie", "kookie=1")
		req.Header.Set("Authorization", "Basic paasword")
		go func() {
			resp, err := program.RoundTrip(req)
			if err != nil {
				end <- 0
				return
			}
			resp.Body.Close()
			end <- resp.StatusCode
		}()
		return end
	}

	first := load("/s3cretpath?s3cretquery=1")
	ask(control.Answer{Allow: &yes}, "")
	ask(control.Answer{PIN: pin("8642")}, control.CodePINWrong)
	ask(control.Answer{PIN: pin("8642")}, control.CodePINRepeated)
	ask(control.Answer{PIN: pin(rightPIN)}, "")
	if status := <-first; status != 200 {
		t.Fatalf("the login: %d", status)
	}
	look()
	for range 3 {
		if status := <-load("/s3cretpath/broken?s3cretquery=1"); status != 502 {
			t.Errorf("a broken answer: %d", status)
		}
	}
	check(t, w.client.Lock(within(t), control.CardSelection{}))

	_, err := w.client.ChangePIN(within(t), control.CardSelection{})
	check(t, err)
	ask(control.Answer{PIN: pin("8642"), NewPIN: pin("975310")}, control.CodePINRepeated)
	_, err = w.client.ChangePIN(within(t), control.CardSelection{})
	check(t, err)
	ask(control.Answer{PIN: pin(rightPIN), NewPIN: pin("975310")}, "")
	_, err = w.client.UnblockPIN(within(t), control.CardSelection{})
	check(t, err)
	ask(control.Answer{PUK: pin("13572468"), NewPIN: pin("975310")}, control.CodePUKWrong)

	for _, request := range []string{
		"CONNECT s3cretuser:paasword@" + siteName + ":443 HTTP/1.1\r\n\r\n",
		"CONNECT s3crethost\x00:443 HTTP/1.1\r\nCookie: kookie\r\n\r\n",
		"GET http://s3cretuser:paasword@" + siteName + "/s3cretpath HTTP/1.1\r\nHost: " + siteName + "\r\n\r\n",
		"GET http://nowhere.invalid/s3cretpath HTTP/1.1\r\nHost: nowhere.invalid\r\nProxy-Authorization: Basic paasword\r\n\r\n",
		"s3cretbody\r\n\r\n",
		"GET /s3cretpath HTTP/1.1\r\nHost: s3crethost\r\n\r\n",
		"POST http://" + closedAddress(t) + "/s3cretpath HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\ns3cretbody",
	} {
		say(t, w.Proxy(), request, nil)
	}
	for _, request := range []string{"GET /s3cretpath HTTP/1.1\r\nHost: s3crethost\r\n\r\n", "s3cretbody\r\n\r\n"} {
		say(t, w.Proxy(), "CONNECT "+siteName+":443 HTTP/1.1\r\n\r\n", []byte(request))
	}
	w.raw(t, "POST", "/v1/prompts/x", `{"pin":"975310"}`, nil)
	w.raw(t, "POST", "/v1/unlock", `{"pin":"975310"}`, nil)
	w.raw(t, "GET", "/v1/s3cretpath", "", nil)
	check(t, os.WriteFile(filepath.Join(w.dir, "kortti.toml"), []byte("broken"), 0o600))
	if _, err := w.client.Reload(within(t)); err == nil {
		t.Error("a broken file was taken")
	}
	check(t, w.stop())

	written := map[string]string{"log": w.log.String(), "children": children.String()}
	state := filepath.Join(w.dir, "state")
	check(t, filepath.WalkDir(state, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(path) != "audit.jsonl" {
			written[path] = string(mustRead(t, path))
		}
		return err
	}))
	audit := string(mustRead(t, filepath.Join(state, "audit.jsonl")))
	for _, secret := range private {
		for where, text := range written {
			if strings.HasSuffix(where, ".pem") {
				continue // chance may make any four digits in base64
			}
			if at := find(text, secret); at != nil {
				t.Errorf("%s holds %q: ...%s...", where, secret, text[max(0, at[0]-200):min(len(text), at[1]+100)])
			}
		}
	}
	for _, secret := range append(private[:5:5], private[8:]...) {
		if strings.Contains(strings.ReplaceAll(audit, fmt.Sprint(os.Getpid()), ""), "\""+secret) || strings.Contains(audit, "s3cret") {
			t.Errorf("the audit file holds %q:\n%s", secret, audit)
		}
	}
	if len(written["log"]) < 1000 || len(written["children"]) < 100 {
		t.Errorf("hardly anything was written: %v", written)
	}
}

// readChildren adds the arguments and variables of this process's children.
func readChildren(t *testing.T, to *bytes.Buffer) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	check(t, err)
	for _, path := range tasks {
		list, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(list)) {
			for _, file := range []string{"cmdline", "environ"} {
				b, err := os.ReadFile(filepath.Join("/proc", pid, file))
				if err == nil { // else it has ended
					to.Write(b)
				}
			}
		}
	}
}

// say sends bytes to the proxy, inside TLS where there are any for it, and reads
// until the end of the connection or of what it answers at once.
func say(t *testing.T, proxy, outside string, inside []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", proxy)
	check(t, err)
	defer conn.Close()
	io.WriteString(conn, outside)
	if inside == nil {
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, conn)
		return
	}
	const good = "HTTP/1.1 200 Connection established\r\n\r\n"
	if _, err := io.ReadFull(conn, make([]byte, len(good))); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: siteName}) // what it proves does not matter here
	c.Write(inside)
	c.CloseWrite()
	io.Copy(io.Discard, c)
}
