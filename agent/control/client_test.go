package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serve runs handler on a Unix socket until the test ends.
func serve(t *testing.T, handler http.Handler) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	c := New(socket)
	t.Cleanup(c.Close)
	return c
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	for _, socket := range []string{filepath.Join(dir, "missing.sock"), stale} {
		c := New(socket)
		_, err := c.Status(t.Context())
		if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "kortti agent") {
			t.Errorf("%s: %v", socket, err)
		}
		if _, err := c.Answer(t.Context(), "x", Answer{Cancel: true}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: answer: %v", socket, err)
		}
	}
}

func TestErrorsAreTyped(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"error":{"code":"pin-wrong","message":"the PIN is wrong","hint":"try again"}}`)
	}))
	_, err := c.Cards(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Code != CodePINWrong || e.Status != http.StatusConflict || e.Hint != "try again" {
		t.Fatalf("%#v", err)
	}
	if !errors.Is(err, &Error{Code: CodePINWrong}) || errors.Is(err, ErrNotRunning) {
		t.Error("errors.Is does not go by the code")
	}
}

func TestAnswerWipesThePIN(t *testing.T) {
	var got Answer
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/prompts/a b" {
			t.Errorf("path %q", r.URL.Path)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		io.WriteString(w, `{"done":true}`)
	}))
	pin := Secret("1234")
	res, err := c.Answer(t.Context(), "a b", Answer{LeaseToken: "t", PIN: pin})
	if err != nil || !res.Done {
		t.Fatal(res, err)
	}
	if string(got.PIN) != "1234" || got.LeaseToken != "t" {
		t.Errorf("the agent got %q %q", []byte(got.PIN), got.LeaseToken)
	}
	if string(pin) != "\x00\x00\x00\x00" {
		t.Error("the PIN was not wiped")
	}
}

func TestEvents(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("prompts") != "1" {
			t.Error("not declared as a front end")
		}
		io.WriteString(w, ": hello\n\nevent: lock\ndata: {\"kind\":\"lock\",\"card\":\"c\"}\n\n")
	}))
	s, err := c.Events(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ev, err := s.Next(); err != nil || ev.Kind != EventLock || ev.Card != "c" {
		t.Fatal(ev, err)
	}
	if _, err := s.Next(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestEventsEndWithTheContext(t *testing.T) {
	release := make(chan struct{})
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-release
	}))
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.Events(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	if _, err := s.Next(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestDefaultSocket(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	if s, err := DefaultSocket(); err != nil || s != "/run/user/1000/kortti/agent.sock" {
		t.Error(s, err)
	}
	os.Unsetenv("XDG_RUNTIME_DIR")
	if _, err := DefaultSocket(); !errors.Is(err, ErrNoRuntimeDir) {
		t.Error(err)
	}
}
