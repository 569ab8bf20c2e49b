package consent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "consents.json")
	open := func() *Store {
		t.Helper()
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	kept, once := Key{"/usr/bin/curl", "a.fi", "c1"}, Key{"/usr/bin/git", "a.fi", "c1"}
	if err := errors.Join(s.Allow(true, kept), s.Allow(false, once), s.Allow(false, kept)); err != nil {
		t.Fatal(err)
	}
	for _, other := range []Key{{"/usr/bin/curl", "b.fi", "c1"}, {"/usr/bin/curl", "a.fi", "c2"}, {"/usr/bin/wget", "a.fi", "c1"}} {
		if s.Allowed(other) {
			t.Errorf("%v is allowed", other)
		}
	}
	if !s.Allowed(kept) || !s.Allowed(once) || len(s.List()) != 2 {
		t.Error(s.List())
	}
	s.End("c2")
	if !s.Allowed(once) {
		t.Error("ended with another card")
	}
	s.End("c1")
	if s.Allowed(once) || !s.Allowed(kept) {
		t.Error("after the lock:", s.List())
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}

	s = open()
	if list := s.List(); len(list) != 1 || !s.Allowed(kept) || list[0].ID != kept.ID() || !list[0].Remembered {
		t.Error(list)
	}
	if err := s.Delete("nothing"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.Delete(kept.ID()); err != nil || s.Allowed(kept) || open().Allowed(kept) {
		t.Error("taken back, but still allowed", err)
	}
	if err := s.Delete(""); err != nil {
		t.Error(err)
	}
}

func TestDamagedFileIsNotTakenForEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "consents.json")
	for _, text := range []string{"", "{}", "[{\"program\":\"x\"}]"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFailedWriteAllowsNothing(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "consents.json"))
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	s.save = func(string, []byte) error { return full }
	if err := s.Allow(true, Key{"p", "h", "c"}); !errors.Is(err, full) || s.Allowed(Key{"p", "h", "c"}) {
		t.Error(err, s.List())
	}
}

// FuzzParse feeds the reader with damaged files.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`[{"id":"x","program":"/usr/bin/curl","host":"a.fi","card":"c1","since":"2026-01-02T03:04:05Z"}]`))
	f.Add([]byte(`[{}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parse(raw)
		if err != nil {
			return
		}
		for _, c := range list {
			if c.Program == "" || c.Host == "" || c.Card == "" {
				t.Fatalf("%+v", c)
			}
		}
	})
}
