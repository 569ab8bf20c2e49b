package browsers_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// firefox is one that is driven by Marionette, the protocol that is built into it
// (https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html).
type firefox struct {
	cmd  *exec.Cmd
	conn net.Conn
	in   *bufio.Reader
	last int // the number of the last command
}

// firefoxPrefs keep it from calling its maker, and have it show JSON as text.
const firefoxPrefs = `
user_pref("marionette.port", 0);
user_pref("app.update.disabledForTesting", true);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.sessionstore.resume_from_crash", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("devtools.jsonview.enabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.trr.mode", 5);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("toolkit.telemetry.enabled", false);
`

// startFirefox runs it with the profile that it has in the person's home, which
// it makes itself the first time.
func startFirefox(t *testing.T, w *world, way way) browser {
	t.Helper()
	host, port, err := net.SplitHostPort(w.proxy)
	check(t, err)
	prefs := firefoxPrefs + fmt.Sprintf("user_pref(\"network.proxy.type\", 2);\nuser_pref(\"network.proxy.autoconfig_url\", %q);\n", w.pac())
	if way == plainly {
		prefs = firefoxPrefs + "user_pref(\"network.proxy.type\", 1);\n"
		for _, scheme := range []string{"http", "ssl"} {
			prefs += fmt.Sprintf("user_pref(\"network.proxy.%s\", %q);\nuser_pref(\"network.proxy.%s_port\", %s);\n", scheme, host, scheme, port)
		}
	}
	profile := firefoxProfile(t, w)
	check(t, os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600))
	active := filepath.Join(profile, "MarionetteActivePort")
	if err := os.Remove(active); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	f := &firefox{cmd: w.command("firefox-esr", "--headless", "--marionette", "--remote-allow-system-access", "--no-remote",
		"--profile", profile, "--width", strconv.Itoa(width), "--height", strconv.Itoa(height))}
	var said lines
	f.cmd.Stdout, f.cmd.Stderr = &said, &said
	check(t, f.cmd.Start())
	t.Cleanup(func() {
		if f.cmd.ProcessState == nil {
			f.cmd.Process.Kill()
			f.cmd.Wait()
		}
		if f.conn != nil {
			f.conn.Close()
		}
		if t.Failed() {
			t.Logf("Firefox said:\n%s", said.String())
		}
	})
	var at []byte
	waitFor(t, "Firefox to listen", func() bool {
		at, err = os.ReadFile(active)
		return err == nil && len(at) > 0
	})
	f.conn, err = net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(at)))
	check(t, err)
	f.in = bufio.NewReader(f.conn)
	_, err = f.receive() // who it is
	check(t, err)
	check(t, f.call("WebDriver:NewSession", map[string]any{"acceptInsecureCerts": false}, nil))
	return f
}

// firefoxProfile is the folder of the person's profile.
func firefoxProfile(t *testing.T, w *world) string {
	t.Helper()
	find := func() string {
		for _, folder := range []string{".mozilla/firefox", ".config/mozilla/firefox"} {
			if found, _ := filepath.Glob(filepath.Join(w.home, folder, "*.kortti")); len(found) > 0 {
				return found[0]
			}
		}
		return ""
	}
	if find() == "" {
		w.run("firefox-esr", "--headless", "-CreateProfile", "kortti")
	}
	profile := find()
	if profile == "" {
		t.Fatal("Firefox has made no profile")
	}
	return profile
}

// marionetteError is a command that failed.
type marionetteError struct {
	Code    string `json:"error"`
	Message string `json:"message"`
}

func (e *marionetteError) Error() string { return e.Code + ": " + e.Message }

// call has a command done and reads its result.
func (f *firefox) call(command string, parameters, result any) error {
	f.last++
	message, err := json.Marshal([]any{0, f.last, command, parameters})
	if err != nil {
		return err
	}
	if err := f.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f.conn, "%d:%s", len(message), message); err != nil {
		return err
	}
	for {
		answer, err := f.receive()
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		var id int
		var failure *marionetteError
		parts := []any{new(int), &id, &failure, result}
		if err := json.Unmarshal(answer, &parts); err != nil {
			return fmt.Errorf("%s: %w in %.200s", command, err, answer)
		}
		switch {
		case id != f.last: // of a command that was not waited for
		case failure != nil:
			return fmt.Errorf("%s: %w", command, failure)
		default:
			return nil
		}
	}
}

// receive reads a message: its length in bytes, a colon, and so much JSON.
func (f *firefox) receive() ([]byte, error) {
	length, err := f.in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
	if err != nil || n < 0 || n > 64<<20 {
		return nil, fmt.Errorf("%q is no length of a message", length)
	}
	message := make([]byte, n)
	_, err = io.ReadFull(f.in, message)
	return message, err
}

func (f *firefox) open(url string) error {
	err := f.call("WebDriver:Navigate", map[string]string{"url": url}, nil)
	var failure *marionetteError
	if errors.As(err, &failure) && failure.Code == "insecure certificate" {
		return fmt.Errorf("%w: %w", errCertificate, err)
	}
	return err
}

func (f *firefox) eval(expression string) (string, error) {
	var result struct{ Value string }
	err := f.call("WebDriver:ExecuteScript", map[string]any{"script": "return String(" + expression + ")", "args": []any{}}, &result)
	return result.Value, err
}

func (f *firefox) click(selector string) error {
	var found struct{ Value map[string]string }
	if err := f.call("WebDriver:FindElement", map[string]string{"using": "css selector", "value": selector}, &found); err != nil {
		return err
	}
	for _, element := range found.Value { // one, by a key that is a constant of WebDriver
		return f.call("WebDriver:ElementClick", map[string]string{"id": element}, nil)
	}
	return fmt.Errorf("there is no %s", selector)
}

func (f *firefox) speak(language string) error {
	set := map[string]any{"script": `Services.prefs.setStringPref("intl.accept_languages", arguments[0])`, "args": []any{language}}
	return errors.Join(
		f.call("Marionette:SetContext", map[string]string{"value": "chrome"}, nil),
		f.call("WebDriver:ExecuteScript", set, nil),
		f.call("Marionette:SetContext", map[string]string{"value": "content"}, nil))
}

func (f *firefox) screenshot() ([]byte, error) {
	var result struct{ Value string }
	if err := f.call("WebDriver:TakeScreenshot", map[string]any{"full": false}, &result); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(result.Value)
}

func (f *firefox) quit() error {
	if err := f.call("Marionette:Quit", map[string]any{"flags": []string{"eForceQuit"}}, nil); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	killer := time.AfterFunc(patience, func() { f.cmd.Process.Kill() })
	defer killer.Stop()
	return f.cmd.Wait()
}
