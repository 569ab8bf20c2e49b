package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInstallMakesADatabase(t *testing.T) {
	m := newMachine(t)
	s := Store{Kind: NSS, Path: filepath.Join(m.Home, oldPath), Owner: "Chromium"}
	a, b := newRoot(t, "a.test"), newRoot(t, "*.b.test")

	r, err := m.Install(within(t), s, certs(a, b), true)
	check(t, err)
	if r.Done || len(r.Commands) != 4 || len(r.Added) != 2 || exists(s.Path) {
		t.Errorf("the plan: %+v", r)
	}
	r, err = m.Install(within(t), s, certs(a, b), false)
	check(t, err)
	if !r.Done || len(r.Commands) != 0 || len(r.Added) != 2 {
		t.Errorf("%+v", r)
	}
	wantList(t, s, line(a), line(b))
	for _, folder := range []string{s.Path, filepath.Dir(s.Path)} {
		if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s is open to others: %v %v", folder, info, err)
		}
	}

	s.Present = true
	before := list(t, s)
	r, err = m.Install(within(t), s, certs(a, b), false)
	check(t, err)
	if r.Done || len(r.Added)+len(r.Removed)+len(r.Commands) != 0 || !slices.Equal(before, list(t, s)) {
		t.Errorf("a second time: %+v", r)
	}
	entries, err := m.Entries(within(t), s)
	check(t, err)
	if len(entries) != 2 || entries[0].Host() == entries[1].Host() || !entries[0].Trusted || !entries[1].Trusted {
		t.Errorf("%+v", entries)
	}
}

// Certificates of others are left as they are, whatever they are called.
func TestOthersStay(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, newPath)
	addByHand(t, s, stranger(t, "Kortti of another kind"), "Kortti a.test 12345678", "CT,C,")
	addByHand(t, s, stranger(t, "Company Root"), "Company Root", "C,,")
	addByHand(t, s, stranger(t, "Mail"), "Mail  with  spaces", ",,")
	addByHand(t, s, stranger(t, "Työ"), "Työ, juuri C,,", "c,,")
	for _, odd := range []string{"a:b", "pkcs11:c", " blanks  ", "-x", "", "two\nlines"} {
		addByHand(t, s, stranger(t, "odd "+odd), odd, "C,,")
	}
	others := list(t, s)
	if len(others) != 10 {
		t.Fatalf("%q", others)
	}
	a := newRoot(t, "a.test")
	_, err := m.Install(within(t), s, certs(a), false)
	check(t, err)
	wantList(t, s, append(slices.Clone(others), line(a))...)
	r, err := m.Uninstall(within(t), s, all, false)
	check(t, err)
	if len(r.Removed) != 1 || !r.Removed[0].Certificate.Equal(a) {
		t.Errorf("%+v", r)
	}
	wantList(t, s, others...)
}

// A new root of a host takes the place of the old one; other hosts stay.
func TestInstallReplaces(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, oldPath)
	old, now, other := newRoot(t, "a.test"), newRoot(t, "a.test"), newRoot(t, "b.test")
	_, err := m.Install(within(t), s, certs(old, other), false)
	check(t, err)
	r, err := m.Install(within(t), s, certs(now), false)
	check(t, err)
	if len(r.Removed) != 1 || !r.Removed[0].Certificate.Equal(old) {
		t.Errorf("%+v", r)
	}
	wantList(t, s, line(now), line(other))
	_, err = m.Uninstall(within(t), s, ofHost("b.test"), false)
	check(t, err)
	wantList(t, s, line(now))
}

// certutil deletes one of several that have one nickname.
func TestDuplicatesUnderOneNickname(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, oldPath)
	a := newRoot(t, "a.test")
	for _, c := range certs(a, twin(t, a), twin(t, a)) {
		addByHand(t, s, c, "by hand", "C,,")
	}
	addByHand(t, s, stranger(t, "Company Root"), "Company Root", "C,,")
	if len(list(t, s)) != 4 {
		t.Fatalf("%q", list(t, s))
	}
	entries, err := m.Entries(within(t), s)
	check(t, err)
	if len(entries) != 3 {
		t.Errorf("%d entries", len(entries))
	}
	r, err := m.Uninstall(within(t), s, func(e Entry) bool { return !e.Certificate.Equal(a) }, false)
	check(t, err)
	if len(r.Removed) != 2 {
		t.Errorf("%+v", r)
	}
	wantList(t, s, line(a), "Company Root C,,") // the one that was to stay is there again

	// One subject under several nicknames, one of them without a trace of us.
	addByHand(t, s, twin(t, a), "twin", ",,")
	addByHand(t, s, twin(t, a), "another twin", ",,")
	entries, err = m.Entries(within(t), s)
	check(t, err)
	if len(entries) != 3 || entries[0].Trusted {
		t.Errorf("%+v", entries)
	}
	_, err = m.Uninstall(within(t), s, all, false)
	check(t, err)
	wantList(t, s, "Company Root C,,")
}

// What a person has put in under a name of their own counts; what has lost its
// trust is trusted again.
func TestByHand(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, oldPath)
	mine, lost, half := newRoot(t, "a.test"), newRoot(t, "b.test"), newRoot(t, "c.test")
	addByHand(t, s, mine, "my own name", "C,,")
	addByHand(t, s, lost, "Kortti b.test - Kortti", ",,")
	addByHand(t, s, half, "half", "C,,")
	addByHand(t, s, twin(t, half), "half", ",,")
	r, err := m.Install(within(t), s, certs(mine, lost, half), false)
	check(t, err)
	if len(r.Added) != 2 { // which of half's is the trusted one cannot be told
		t.Errorf("%+v", r)
	}
	wantList(t, s, "my own name C,,", line(lost), line(half))
	_, err = m.Uninstall(within(t), s, all, false)
	check(t, err)
	wantList(t, s)
}

// The printed commands do what a run does.
func TestPrintedCommands(t *testing.T) {
	m := newMachine(t)
	s := Store{Kind: NSS, Path: filepath.Join(m.Home, oldPath), Owner: "Chromium"}
	a := newRoot(t, "a.test")
	shell := func(r Result) {
		t.Helper()
		for _, c := range r.Commands {
			runShell(t, c.String())
		}
	}
	r, err := m.Install(within(t), s, certs(a), true)
	check(t, err)
	shell(r)
	wantList(t, s, line(a))
	s.Present = true
	r, err = m.Uninstall(within(t), s, all, true)
	check(t, err)
	wantList(t, s, line(a))
	shell(r)
	wantList(t, s)
}

func TestStoresThatCannotBeChanged(t *testing.T) {
	a := newRoot(t, "a.test")
	for _, test := range []struct {
		name  string
		make  func(t *testing.T, m *Machine) Store
		want  error
		holds bool // what it held can still be listed
	}{
		{"primary password", func(t *testing.T, m *Machine) Store {
			s := Store{Kind: Firefox, Path: filepath.Join(m.Home, "p"), Present: true}
			m.write(t, "p/x", "")
			m.write(t, "password", "secret-1\n")
			certutil(t, "-N", "-d", "sql:"+s.Path, "-f", filepath.Join(m.Home, "password"))
			return s
		}, ErrPassword, true},
		{"old format", func(t *testing.T, m *Machine) Store {
			m.write(t, "p/cert8.db", "old")
			return Store{Kind: Firefox, Path: filepath.Join(m.Home, "p"), Present: true}
		}, ErrOldFormat, false},
		{"damaged", func(t *testing.T, m *Machine) Store {
			m.write(t, "p/cert9.db", "junk")
			return Store{Kind: Firefox, Path: filepath.Join(m.Home, "p"), Present: true}
		}, ErrDatabase, false},
		{"no certutil", func(t *testing.T, m *Machine) Store {
			s := m.makeDatabase(t, "p")
			m.Look = func(string) (string, error) { return "", os.ErrNotExist }
			return s
		}, ErrNoTool, false},
		{"never started", func(t *testing.T, m *Machine) Store {
			m.Look = func(name string) (string, error) {
				if name == "firefox" {
					return "/bin/sh", nil
				}
				return tools(name)
			}
			return m.firefox()[0]
		}, ErrNoProfile, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			s := test.make(t, m)
			_, err := m.Install(within(t), s, certs(a), false)
			if !errors.Is(err, test.want) || Hint(err) == "" {
				t.Errorf("err = %v (%s), want %v", err, Hint(err), test.want)
			}
			entries, err := m.Entries(within(t), s)
			if len(entries) != 0 || (err == nil) != test.holds {
				t.Errorf("then %v %v", entries, err)
			}
			if test.name == "primary password" {
				wantList(t, s) // not there without trust either
			}
		})
	}
}

// Where a password protects a database, a person can still run the commands.
func TestPrintWithPassword(t *testing.T) {
	m := newMachine(t)
	m.write(t, "p/x", "")
	m.write(t, "password", "secret-1\n")
	s := Store{Kind: Firefox, Path: filepath.Join(m.Home, "p"), Present: true}
	certutil(t, "-N", "-d", "sql:"+s.Path, "-f", filepath.Join(m.Home, "password"))
	a := newRoot(t, "a.test")
	r, err := m.Install(within(t), s, certs(a), true)
	check(t, err)
	for _, c := range r.Commands {
		runShell(t, c.String()+" -f "+quote(filepath.Join(m.Home, "password")))
	}
	wantList(t, s, line(a))
}

func TestReadOnly(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, "p")
	files, err := filepath.Glob(filepath.Join(m.Home, "p", "*"))
	if len(files) == 0 { // the home folder's name holds characters of a pattern
		files = []string{filepath.Join(s.Path, "cert9.db"), filepath.Join(s.Path, "key4.db"), filepath.Join(s.Path, "pkcs11.txt")}
	}
	check(t, err)
	for _, f := range files {
		check(t, os.Chmod(f, 0o444))
	}
	check(t, os.Chmod(s.Path, 0o555))
	t.Cleanup(func() { os.Chmod(s.Path, 0o700) })
	a := newRoot(t, "a.test")
	asNobody(t, m, func() {
		_, err = m.Install(within(t), s, certs(a), false)
	})
	if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), s.Path) {
		t.Errorf("err = %v", err)
	}
	wantList(t, s)
}

// Another program, or a broken certutil, may undo what is done.
func TestWhatDoesNotStick(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, oldPath)
	a := newRoot(t, "a.test")
	_, err := m.Install(within(t), s, certs(a), false)
	check(t, err)
	m.fake(t, `case $1 in -D) exit 0;; esac; exec $REAL "$@"`)
	if _, err := m.Uninstall(within(t), s, all, false); !errors.Is(err, ErrLeft) {
		t.Errorf("err = %v", err)
	}
	m.fake(t, `case $1 in -A) exit 0;; esac; exec $REAL "$@"`)
	if _, err := m.Install(within(t), s, certs(newRoot(t, "b.test")), false); !errors.Is(err, ErrMissing) {
		t.Errorf("err = %v", err)
	}
	m.fake(t, `case $1 in -A) echo "line one" >&2; exit 3;; esac; exec $REAL "$@"`)
	if _, err := m.Install(within(t), s, certs(newRoot(t, "b.test")), false); err == nil || !strings.Contains(err.Error(), "certutil failed: line one") {
		t.Errorf("err = %v", err)
	}
	m.fake(t, `case $1 in -A) yes | head -c 1000000 >&2; exit 3;; esac; exec $REAL "$@"`)
	if _, err := m.Install(within(t), s, certs(newRoot(t, "b.test")), false); err == nil || len(err.Error()) > 500 {
		t.Errorf("err = %v", err)
	}
	wantList(t, s, line(a))
}

// A hanging certutil, and what it started, end with the call.
func TestCancel(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, oldPath)
	mark := filepath.Join(t.TempDir(), "started")
	m.fake(t, `sleep 1000 & echo $! >`+quote(mark)+`.new; mv `+quote(mark)+`.new `+quote(mark)+`; wait`)
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		_, err := m.Entries(ctx, s)
		ended <- err
	}()
	pid := waitForPID(t, mark)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	waitFor(t, "what certutil started to end", func() bool { return unix.Kill(pid, 0) == unix.ESRCH || isZombie(pid) })
}

func TestManyAtOnce(t *testing.T) {
	m := newMachine(t)
	s := Store{Kind: NSS, Path: filepath.Join(m.Home, oldPath), Owner: "Chromium"}
	var want []string
	var list []*x509.Certificate
	for _, host := range []string{"a.test", "b.test", "c.test", "d.test", "e.test", "f.test"} {
		c := newRoot(t, host)
		list, want = append(list, c), append(want, line(c))
	}
	var parts sync.WaitGroup
	for _, c := range list {
		parts.Go(func() {
			if _, err := m.Install(within(t), s, certs(c), false); err != nil {
				t.Error(err)
			}
		})
	}
	parts.Wait()
	wantList(t, s, want...)
	s.Present = true
	for range 3 {
		parts.Go(func() {
			if _, err := m.Uninstall(within(t), s, all, false); err != nil {
				t.Error(err)
			}
		})
	}
	parts.Wait()
	wantList(t, s)
}

// A run waits for another program's, and gives up with its context.
func TestLock(t *testing.T) {
	m := newMachine(t)
	s := m.makeDatabase(t, oldPath)
	release, err := lock(within(t), m.Home)
	check(t, err)
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, err := m.Install(ctx, s, certs(newRoot(t, "a.test")), false); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	wantList(t, s)
	release()
	_, err = m.Install(within(t), s, certs(newRoot(t, "a.test")), false)
	check(t, err)
}

func TestParseList(t *testing.T) {
	const text = `
Certificate Nickname                                         Trust Attributes
                                                             SSL,S/MIME,JAR/XPI

Kortti a.test 12345678                                       C,,  
a very long nickname that is longer than the column that certutil has for it CT,C,c
with, commas,,                                               u,u,u
Työ                                                          ,,   
`
	got := parseList([]byte(text))
	want := []row{
		{"Kortti a.test 12345678", "C,,"},
		{"a very long nickname that is longer than the column that certutil has for it", "CT,C,c"},
		{"with, commas,,", "u,u,u"}, {"Työ", ",,"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("Kortti a.test 12345678                                       C,,  \n"))
	f.Add([]byte("a b ,,\n\x00 CT,C,c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, r := range parseList(data) {
			if r.nickname != strings.TrimRight(r.nickname, " \t") || strings.Count(r.flags, ",") != 2 || strings.Contains(r.nickname, "\n") {
				t.Errorf("%q", r)
			}
		}
	})
}
