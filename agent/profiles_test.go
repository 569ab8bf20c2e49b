package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/tlsclient"
)

var learned = tlsclient.Profile{
	Host: "asiointi.example.fi", Port: "443", TLS12Renegotiation: true, WarmUp: true,
	Reason: "the host asks late", Since: time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC),
}

func TestProfilesOutliveTheAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profiles.json")
	s, err := openProfiles(path)
	check(t, err)
	check(t, s.Put(learned))
	other := learned
	other.Port, other.HTTP1 = "8443", true
	check(t, s.Put(other))
	next, err := openProfiles(path)
	check(t, err)
	for _, want := range []tlsclient.Profile{learned, other} {
		if got, ok := next.Get(want.Host, want.Port); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("kept %+v, want %+v", got, want)
		}
	}
	check(t, next.Delete(learned.Host, "443"))
	if next, err = openProfiles(path); err != nil || len(next.list()) != 1 {
		t.Errorf("one of two was deleted: %v, %v", next.list(), err)
	}
	check(t, next.Delete(learned.Host, ""))
	check(t, next.Delete(learned.Host, ""))
	if next, err = openProfiles(path); err != nil || len(next.list()) != 0 {
		t.Errorf("all were deleted: %v, %v", next.list(), err)
	}
}

// What cannot be written counts all the same, and is reported.
func TestProfilesThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openProfiles(filepath.Join(dir, "profiles.json"))
	check(t, err)
	check(t, os.WriteFile(dir, nil, 0o600)) // a file in the folder's place
	if s.Put(learned) == nil {
		t.Error("no error")
	}
	if _, ok := s.Get(learned.Host, learned.Port); !ok {
		t.Error("it does not count")
	}
}

func TestProfilesAreLimited(t *testing.T) {
	s := &profiles{path: filepath.Join(t.TempDir(), "profiles.json"), all: make(map[hostPort]tlsclient.Profile)}
	for i := range maxProfiles {
		p := learned
		p.Host, p.Since = fmt.Sprintf("h%d.example.fi", i), learned.Since.Add(time.Duration(i-maxProfiles)*time.Second)
		s.all[hostPort{p.Host, p.Port}] = p
	}
	check(t, s.Put(learned))
	_, first := s.Get("h0.example.fi", "443")
	_, second := s.Get("h1.example.fi", "443")
	_, newest := s.Get(learned.Host, "443")
	if first || !second || !newest || len(s.all) != maxProfiles {
		t.Errorf("the oldest should go: kept %t, %t, %t of %d", first, second, newest, len(s.all))
	}
	if _, err := parseProfiles(mustRead(t, s.path)); err != nil {
		t.Errorf("what is written cannot be read: %v", err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	check(t, err)
	return raw
}

const goodProfile = `{"host":"a.fi","port":"443","http1":true,"tls12_renegotiation":false,"warm_up":false,"reason":"r","since":"2026-11-24T02:00:00Z"}`

var badProfiles = map[string]string{
	"empty":         "",
	"no list":       "{}",
	"unknown field": `[{"host":"a.fi","port":"443","reason":"r","since":"2026-11-24T02:00:00Z","x":1}]`,
	"more":          `[] []`,
	"no host":       strings.Replace("["+goodProfile+"]", "a.fi", "", 1),
	"capitals":      strings.Replace("["+goodProfile+"]", "a.fi", "A.fi", 1),
	"a URL":         strings.Replace("["+goodProfile+"]", "a.fi", "https://a.fi", 1),
	"no port":       strings.Replace("["+goodProfile+"]", "443", "", 1),
	"port 0":        strings.Replace("["+goodProfile+"]", "443", "0", 1),
	"large port":    strings.Replace("["+goodProfile+"]", "443", "65536", 1),
	"odd port":      strings.Replace("["+goodProfile+"]", "443", "+443", 1),
	"no reason":     strings.Replace("["+goodProfile+"]", `"r"`, `""`, 1),
	"no time":       strings.Replace("["+goodProfile+"]", "2026-11-24T02", "0001-01-01T00", 1),
	"twice":         "[" + goodProfile + "," + goodProfile + "]",
}

func TestDamagedProfiles(t *testing.T) {
	if _, err := parseProfiles([]byte("[" + goodProfile + "]")); err != nil {
		t.Fatal(err)
	}
	for name, raw := range badProfiles {
		if _, err := parseProfiles([]byte(raw)); err == nil {
			t.Errorf("%s: read without an error", name)
		}
	}
	path := filepath.Join(t.TempDir(), "profiles.json")
	check(t, os.WriteFile(path, []byte("{"), 0o600))
	if _, err := openProfiles(path); err == nil || !strings.Contains(err.Error(), "delete the file") || !strings.Contains(err.Error(), path) {
		t.Errorf("does not say what to do: %v", err)
	}
}

func FuzzParseProfiles(f *testing.F) {
	f.Add([]byte("[" + goodProfile + "]"))
	for _, raw := range badProfiles {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parseProfiles(raw)
		if err != nil {
			return
		}
		s := &profiles{path: filepath.Join(t.TempDir(), "p.json"), all: make(map[hostPort]tlsclient.Profile)}
		for _, p := range list {
			if p.Host == "" || p.Reason == "" || p.Since.IsZero() {
				t.Fatalf("took %+v", p)
			}
			s.all[hostPort{p.Host, p.Port}] = tlsclient.Profile(p)
		}
		if len(s.all) != len(list) {
			t.Fatal("a host is there twice")
		}
		check(t, s.write())
		if again, err := parseProfiles(mustRead(t, s.path)); err != nil || len(again) != len(list) {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func TestProfilesOverTheAPI(t *testing.T) {
	r := startFake(t, newFakeCards(), "")
	for _, name := range []string{"asiointi.example.fi", "other.example.fi"} {
		_, err := r.client.PutHost(within(t), control.Host{Name: name})
		check(t, err)
		p := learned
		p.Host, p.Since = name, time.Now().Round(0)
		check(t, r.profiles.Put(p))
	}
	old := learned
	old.Port, old.Since = "8443", time.Now().Add(-tlsclient.ProfileLife-time.Hour)
	check(t, r.profiles.Put(old))
	list, err := r.client.Profiles(within(t))
	check(t, err)
	if len(list) != 2 || list[0].Host != "asiointi.example.fi" || list[0].Reason != learned.Reason || !list[0].WarmUp || list[0].HTTP1 {
		t.Errorf("listed %+v", list)
	}
	check(t, r.client.ResetProfile(within(t), "Asiointi.Example.fi:443"))
	var e *control.Error
	if err := r.client.ResetProfile(within(t), "asiointi.example.fi"); !errors.As(err, &e) || e.Code != control.CodeNotFound || e.Hint == "" {
		t.Errorf("reset twice: %v", err)
	}
	check(t, r.client.DeleteHost(within(t), "other.example.fi"))
	if list, err = r.client.Profiles(within(t)); err != nil || len(list) != 0 {
		t.Errorf("a host that is not listed any more has a profile: %+v, %v", list, err)
	}
}
