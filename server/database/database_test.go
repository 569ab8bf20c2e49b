package database_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kortti-id/kortti/server/database"
)

// childVar names the database that this test binary, started again, writes to.
const childVar = "KORTTI_TEST_DATABASE"

// childWrites is how many transactions each child commits.
const childWrites = 50

func TestMain(m *testing.M) {
	if path := os.Getenv(childVar); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child opens the database as soon as its standard input closes, so that
// several children start at once, and counts a row up.
func child(path string) error {
	bufio.NewReader(os.Stdin).ReadByte()
	ctx := context.Background()
	db, err := database.Open(ctx, "sqlite:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	for range childWrites {
		if err := bump(ctx, db); err != nil {
			return err
		}
	}
	return nil
}

// bump reads a counter and writes it back, which loses counts unless the whole
// transaction holds the write lock.
func bump(ctx context.Context, db *database.DB) error {
	return db.Write(ctx, func(tx *sql.Tx) error {
		var n int
		err := tx.QueryRowContext(ctx, `SELECT created FROM users WHERE key = 'counter'`).Scan(&n)
		if errors.Is(err, sql.ErrNoRows) {
			_, err = tx.ExecContext(ctx, `INSERT INTO users (key, username, first_name, last_name, email, active, created, last_seen)
				VALUES ('counter', '', '', '', '', 0, 1, 0)`)
			return err
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE users SET created = ? WHERE key = 'counter'`, n+1)
		return err
	})
}

func TestProcessesShareOneFile(t *testing.T) {
	const children = 4
	path := filepath.Join(t.TempDir(), "space and ? %.db")
	start, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for range children {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVar+"="+path)
		cmd.Stdin = start
		var out strings.Builder
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("child: %v: %s", err, out.String())
			}
		})
	}
	start.Close()
	stdin.Close() // all children go
	running.Wait()

	db, err := database.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.Reader().QueryRow(`SELECT created FROM users WHERE key = 'counter'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if want := children * childWrites; n != want {
		t.Errorf("counted %d of %d writes", n, want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

// Opening a database a second time in one process must not cost the first
// opening its locks, by which other processes know that it is in use.
func TestLocksSurviveASecondOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.db")
	for range 2 {
		db, err := database.Open(t.Context(), "sqlite:"+path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A lock of the open file sees those of its own process as another's.
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if lock.Type == unix.F_UNLCK {
		t.Error("no lock is left on the open database")
	}
}

func TestReaderCannotWrite(t *testing.T) {
	db, err := database.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "k.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := db.Reader().Exec(`DELETE FROM users`); err == nil {
		t.Error("the reading pool wrote")
	}
}

func TestUnusable(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := write("text", strings.Repeat("this is no database\n", 100))
	newer := filepath.Join(dir, "newer.db")
	db, err := database.Open(t.Context(), "sqlite:"+newer)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("PRAGMA user_version = 99")
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, dsn, want string }{
		{"no scheme", "kortti.db", "sqlite:FILE"},
		{"postgres", "postgres://db/kortti", "not supported by this version"},
		{"no directory", "sqlite:" + dir + "/none/k.db", "does not exist; make it"},
		{"under a file", "sqlite:" + text + "/k.db", "is not a directory"},
		{"a directory", "sqlite:" + dir, "is a directory"},
		{"not a database", "sqlite:" + text, "not a database"},
		{"newer schema", "sqlite:" + newer, "newer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			db, err := database.Open(t.Context(), test.dsn)
			if err == nil {
				db.Close()
				t.Fatal("opened")
			}
			for _, err := range []error{err, database.Check(t.Context(), test.dsn)} {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v; want %q in it", err, test.want)
				}
			}
		})
	}
}

// TestUnwritable looks at file permissions as an ordinary user would.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	readonly := filepath.Join(dir, "readonly.db")
	if err := os.WriteFile(readonly, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, path, want string }{
		{"directory", filepath.Join(closed, "k.db"), "directory " + closed + " is not writable"},
		{"file", readonly, "is not writable (permission denied)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var openErr, checkErr error
			asNobody(t, dir, func() {
				openErr = openClose(test.path)
				checkErr = database.Check(context.Background(), "sqlite:"+test.path)
			})
			for _, err := range []error{openErr, checkErr} {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v; want %q in it", err, test.want)
				}
			}
		})
	}
}

func openClose(path string) error {
	db, err := database.Open(context.Background(), "sqlite:"+path)
	if err != nil {
		return err
	}
	return db.Close()
}

// asNobody runs f on a thread that has, for files, the rights of an ordinary
// user: root passes every permission check.
func asNobody(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		// The raw call changes this thread only; syscall.Setresuid all of them.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Errorf("become nobody: %v", errno)
			return
		}
		f()
	}()
	<-done
}

func TestCheckMakesNothing(t *testing.T) {
	dir := t.TempDir()
	dsn := "sqlite:" + filepath.Join(dir, "k.db")
	if err := database.Check(t.Context(), dsn); err != nil {
		t.Error(err)
	}
	if db, err := database.OpenExisting(t.Context(), dsn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenExisting without a file: %v, %v", db, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
