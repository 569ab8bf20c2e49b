package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a program on a terminal of its own.
type screen struct {
	t        *testing.T
	terminal *os.File // the side of whoever types and looks
	cmd      *exec.Cmd
	ended    chan struct{}

	mu    sync.Mutex // guards shown
	shown bytes.Buffer
}

// onTerminal starts cmd on a pseudo-terminal.
func onTerminal(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(terminal.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	inside, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, terminal: terminal, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		b := make([]byte, 1024)
		for {
			n, err := terminal.Read(b) // EIO when the program has ended
			s.mu.Lock()
			s.shown.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if it did not end by itself, which fails the test elsewhere
		<-s.ended
		terminal.Close()
	})
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func (s *screen) waitFor(text string) {
	s.t.Helper()
	eventually(s.t, text, func() bool { return strings.Contains(s.text(), text) })
}

func (s *screen) enter(keys string) {
	s.t.Helper()
	if _, err := s.terminal.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// echoes reports whether the terminal shows what is typed.
func (s *screen) echoes() bool {
	s.t.Helper()
	state, err := unix.IoctlGetTermios(int(s.terminal.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// end waits for the program's end and compares its exit code and last words.
func (s *screen) end(code int, last string) {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("it does not end; the screen shows:\n%s", s.text())
	}
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code || !strings.HasSuffix(strings.TrimSpace(s.text()), last) {
		s.t.Errorf("exit code %d, want %d with %q; the screen shows:\n%s", got, code, last, s.text())
	}
	if !s.echoes() {
		s.t.Error("the terminal was left without echo")
	}
}

func TestPINOnATerminal(t *testing.T) {
	r := startAgent(t, "")
	const question = "PIN of kortti test card (LIISA SPECIMEN-KORTTI): "
	unlock := func() *screen {
		t.Helper()
		s := onTerminal(t, r.command("unlock", "--socket", r.socket))
		s.waitFor(question)
		if s.echoes() {
			t.Error("the terminal would show the PIN")
		}
		return s
	}
	cancelled := "kortti unlock: cancelled; the card was not asked"
	for _, keys := range []string{"12\x03", "12\x04", "12\x1b[D", "\r"} { // Ctrl-C, Ctrl-D, an arrow key, Enter
		s := unlock()
		s.enter(keys)
		s.end(exitPIN, cancelled)
		if strings.Contains(strings.ReplaceAll(s.text(), question, ""), "12") {
			t.Errorf("the PIN is on the screen:\n%s", s.text())
		}
	}
	s := unlock()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.end(exitPIN, cancelled)
	if n := r.logins(t); n != 0 {
		t.Errorf("the card was asked %d times", n)
	}

	s = unlock()
	s.enter("99\x15" + "1235\x7f" + "4\x1a\r") // Ctrl-U; Backspace; Ctrl-Z is no part of a PIN
	s.end(exitDone, "The card is unlocked.")
	if strings.Contains(strings.ReplaceAll(s.text(), question, ""), "12") {
		t.Errorf("the PIN is on the screen:\n%s", s.text())
	}
	r.run(t, "lock", "--socket", r.socket)

	s = unlock()
	if err := r.card.Pull(); err != nil {
		t.Fatal(err)
	}
	s.end(exitNoCard, "kortti unlock: the question is not open any more: the card was removed")
	if n := r.logins(t); n != 1 {
		t.Errorf("the card was asked %d times", n)
	}
}

// Ctrl-C ends the yes-or-no question before the last try.
func TestLastTryOnATerminal(t *testing.T) {
	r := startAgent(t, "")
	for _, pin := range []string{"9991", "9992", "9993", "9994"} {
		cmd := r.command("unlock", "--socket", r.socket)
		cmd.Stdin = strings.NewReader(pin + "\n")
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("a wrong PIN unlocked the card: %s", out)
		}
	}
	for keys, last := range map[string]string{
		"\x03": "cancelled; the card was not asked",
		"n\r":  "cancelled; the card was not asked",
		"\r":   "cancelled; the card was not asked",
		"\x04": "the input has ended; the card was not asked",
	} {
		s := onTerminal(t, r.command("unlock", "--socket", r.socket))
		s.waitFor("This is the LAST try: a wrong PIN locks the card. Go on? [y/N] ")
		s.enter(keys)
		s.end(exitPIN, last)
	}
	s := onTerminal(t, r.command("unlock", "--socket", r.socket))
	s.waitFor("[y/N] ")
	s.enter("y\r")
	s.waitFor("PIN of ")
	s.enter("1234\r")
	s.end(exitDone, "The card is unlocked.")
	if n := r.logins(t); n != 5 {
		t.Errorf("the card was asked %d times", n)
	}
}

// kortti prompt lives on after a question that was cancelled or closed, and
// ends at Ctrl-C.
func TestPromptOnATerminal(t *testing.T) {
	r := startAgent(t, "[[host]]\nname = \"card.kortti.test\"\naddress = \"127.0.0.1:1\"\nconsent = \"ask\"\n")
	s := onTerminal(t, r.command("prompt", "--socket", r.socket))
	s.waitFor("Waiting for the agent's questions")
	request := func() {
		curl := exec.Command("curl", "-sS", "-k", "--max-time", "60", "--proxy", "http://"+r.proxy, "https://card.kortti.test/")
		out, _ := curl.CombinedOutput()
		t.Logf("curl: %s", out)
	}
	var requests sync.WaitGroup
	requests.Go(request)
	s.waitFor("at card.kortti.test? [y/N] ")
	if err := r.card.Pull(); err != nil {
		t.Fatal(err)
	}
	s.waitFor("the question is not open any more")
	requests.Wait()
	s.enter("\x03")
	s.end(exitDone, "^C")
}
