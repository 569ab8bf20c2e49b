package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
)

var card = [32]byte{1, 2, 3}

type fixture struct {
	*session.Store
	t    *testing.T
	path string
	db   *database.DB
	user int64
	now  time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "k.db"), now: time.Unix(1_800_000_000, 0)}
	clock := func() time.Time { return f.now }
	var err error
	if f.db, err = database.Open(t.Context(), "sqlite:"+f.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.db.Close() })
	u, _, err := users.New(f.db, clock).Ensure(t.Context(), "f/1", fineid.Profile{Username: "1"}, users.CreateActive)
	if err != nil {
		t.Fatal(err)
	}
	f.user = u.ID
	if f.Store, err = session.New(f.db, session.Limits{Idle: 30 * time.Minute, Absolute: 2 * time.Hour}, clock); err != nil {
		t.Fatal(err)
	}
	return f
}

// create starts a session whose certificate lasts for so long.
func (f *fixture) create(lasting time.Duration) session.Token {
	f.t.Helper()
	token, _, err := f.Create(f.t.Context(), f.user, card, f.now.Add(lasting))
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// alive says whether a request with the token finds a session, and uses it.
func (f *fixture) alive(token session.Token) bool {
	f.t.Helper()
	s, err := f.Get(f.t.Context(), token)
	if errors.Is(err, session.ErrNone) {
		return false
	}
	if err == nil {
		err = f.Touch(f.t.Context(), token, s)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if s.UserID != f.user || s.Certificate != card {
		f.t.Errorf("session %+v is of somebody else", s)
	}
	return true
}

func TestIdleLimit(t *testing.T) {
	f := newFixture(t)
	token := f.create(24 * time.Hour)
	for range 3 {
		f.now = f.now.Add(29 * time.Minute)
		if !f.alive(token) {
			t.Fatal("ended while in use")
		}
	}
	f.now = f.now.Add(30 * time.Minute)
	if f.alive(token) {
		t.Error("outlived the idle limit")
	}
}

func TestAbsoluteLimitAndNotAfter(t *testing.T) {
	for _, test := range []struct {
		name             string
		lasting, minutes time.Duration
	}{
		{"absolute", 24 * time.Hour, 120},
		{"certificate", time.Hour, 60},
		{"expired certificate", -time.Hour, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			token := f.create(test.lasting)
			var minutes time.Duration
			for f.alive(token) {
				f.now = f.now.Add(time.Minute)
				minutes++
			}
			if minutes != test.minutes {
				t.Errorf("lasted %d minutes, want %d", minutes, test.minutes)
			}
		})
	}
}

func TestEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(f *fixture, token session.Token) error
		rest bool // whether another session of the user goes on
	}{
		{"one", func(f *fixture, token session.Token) error { return f.End(context.Background(), token) }, true},
		{"user", func(f *fixture, _ session.Token) error { return f.EndUser(context.Background(), f.user) }, false},
		{"certificate", func(f *fixture, _ session.Token) error { return f.EndCertificate(context.Background(), card) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			token, other := f.create(time.Hour), f.create(time.Hour)
			if err := test.end(f, token); err != nil {
				t.Fatal(err)
			}
			if f.alive(token) {
				t.Error("the session goes on")
			}
			if f.alive(other) != test.rest {
				t.Errorf("the other session: %v", !test.rest)
			}
		})
	}
}

// Sessions whose time is over are deleted by the next login.
func TestOldSessionsAreDeleted(t *testing.T) {
	f := newFixture(t)
	f.create(time.Hour)
	f.now = f.now.Add(time.Hour)
	young := f.create(time.Hour)
	var n int
	if err := f.db.Reader().QueryRow(`SELECT count(*) FROM sessions`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d sessions left, %v", n, err)
	}
	if !f.alive(young) {
		t.Error("the new session is not alive")
	}
}

func TestTokenIsNotStored(t *testing.T) {
	f := newFixture(t)
	token := f.create(time.Hour)
	if text := fmt.Sprintf("%v %+v %#v %s", token, token, token, token); strings.Contains(text, token.Value()) {
		t.Error("printing shows the token")
	}
	for _, name := range []string{f.path, f.path + "-wal"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(token.Value())) {
			t.Errorf("%s holds the token", name)
		}
	}
	parsed, err := session.ParseToken(token.Value())
	if err != nil || parsed != token {
		t.Errorf("does not survive its own form: %v", err)
	}
	if other := f.create(time.Hour); other == token {
		t.Error("two sessions with one token")
	}
}

func TestCookie(t *testing.T) {
	f := newFixture(t)
	token := f.create(time.Hour)
	w := httptest.NewRecorder()
	session.SetCookie(w, token)
	header := w.Header().Get("Set-Cookie")
	if want := session.CookieName + "=" + token.Value() + "; Path=/; HttpOnly; Secure; SameSite=Lax"; header != want {
		t.Errorf("got  %s\nwant %s", header, want)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if _, ok := session.FromRequest(r); ok {
		t.Error("found a token in no cookie")
	}
	r.AddCookie(w.Result().Cookies()[0])
	if got, ok := session.FromRequest(r); !ok || got != token {
		t.Error("did not find the token")
	}
	r.AddCookie(&http.Cookie{Name: session.CookieName, Value: strings.Repeat("A", 43)})
	if _, ok := session.FromRequest(r); ok {
		t.Error("chose one of two tokens")
	}
	w = httptest.NewRecorder()
	session.ClearCookie(w)
	if c := w.Result().Cookies()[0]; c.MaxAge != -1 || c.Value != "" {
		t.Errorf("cleared by %+v", c)
	}
}

func TestLimits(t *testing.T) {
	for _, limits := range []session.Limits{{}, {Idle: time.Hour, Absolute: time.Minute}, {Idle: -1, Absolute: 1}} {
		if _, err := session.New(nil, limits, time.Now); err == nil {
			t.Errorf("took %+v", limits)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"", strings.Repeat("A", 43), strings.Repeat("_", 43), "AAAA====", strings.Repeat("A", 44)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := session.ParseToken(s)
		if err == nil && token.Value() != s {
			t.Errorf("%q and %q are one token", s, token.Value())
		}
	})
}
