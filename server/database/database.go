// Package database opens the one database of the server, in which users and
// sessions are kept: an SQLite file in WAL mode with one writing connection and
// a pool of reading ones. It keeps the schema up to date and says in plain
// words why a database cannot be used. It knows nothing of what is stored.
//
// Several processes may have the same file open: the server, a second server
// and `kortti-server users approve` beside them. A committed write survives the
// end of the process and the loss of power (synchronous=FULL).
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite" // also the driver "sqlite"
)

// readers is how many connections read at once; a point lookup takes
// microseconds, so more would only hold more memory.
const readers = 4

// DB is an open database. It is safe for concurrent use.
type DB struct {
	path string
	// write is limited to one connection: with several, SQLite's busy back-off
	// starves some writers for a second and more.
	write *sql.DB
	read  *sql.DB
}

// Path gives the file of a data source name such as "sqlite:kortti.db".
func Path(dsn string) (string, error) {
	scheme, rest, found := strings.Cut(dsn, ":")
	switch {
	case found && scheme == "sqlite" && rest != "":
		return rest, nil
	case found && (scheme == "postgres" || scheme == "postgresql"):
		return "", errors.New("postgres databases are not supported by this version; use sqlite:FILE")
	}
	return "", fmt.Errorf("data source %q is not of the form sqlite:FILE", dsn)
}

// Open opens the database of dsn ("sqlite:FILE"), makes the file (mode 0600)
// where there is none, and brings the schema up to date. The caller closes it.
func Open(ctx context.Context, dsn string) (*DB, error) {
	path, err := Path(dsn)
	if err != nil {
		return nil, err
	}
	if err := usable(path, true); err != nil {
		return nil, err
	}
	return open(ctx, path)
}

// OpenExisting is like Open but makes no file: the error is fs.ErrNotExist where
// there is none. It is for command-line tools, which often run as another
// user than the server and must not leave a file that the server cannot write.
func OpenExisting(ctx context.Context, dsn string) (*DB, error) {
	path, err := Path(dsn)
	if err != nil {
		return nil, err
	}
	if err := usable(path, false); err != nil {
		return nil, err
	}
	return open(ctx, path)
}

// Check says whether Open would succeed, without making a database or changing
// the schema of one.
func Check(ctx context.Context, dsn string) error {
	path, err := Path(dsn)
	if err != nil {
		return err
	}
	err = usable(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // and it can be made: its directory is writable
	}
	if err != nil {
		return err
	}
	db, err := connect(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Write(ctx, func(tx *sql.Tx) error {
		_, _, err := db.pending(ctx, tx)
		return err
	})
}

func open(ctx context.Context, path string) (*DB, error) {
	db, err := connect(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := db.migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// busyTimeout is how long a process waits for others that write.
const busyTimeout = 5 * time.Second

// busyCode is SQLite's SQLITE_BUSY, without what it says beyond that.
const busyCode = 5

// connect opens both pools and proves that each of them works.
func connect(ctx context.Context, path string) (*DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the database %s: %w", path, err)
	}
	// A "file:" URI, unlike a plain name, may hold any character.
	uri := "file:" + (&url.URL{Path: abs}).EscapedPath() +
		fmt.Sprintf("?_busy_timeout=%d", busyTimeout.Milliseconds()) + "&_foreign_keys=1&_journal_mode=WAL&_synchronous=FULL&_dqs=0"
	db := &DB{path: path}
	// A transaction that reads first and writes later fails at once with
	// SQLITE_BUSY_SNAPSHOT, whatever the timeout; an immediate one waits.
	if db.write, err = sql.Open("sqlite", uri+"&_txlock=immediate"); err != nil {
		return nil, db.explain(err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", uri+"&_query_only=1"); err != nil {
		return nil, errors.Join(db.explain(err), db.write.Close())
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	for _, pool := range []*sql.DB{db.write, db.read} {
		if err := ping(ctx, pool); err != nil {
			return nil, errors.Join(db.explain(err), db.Close())
		}
	}
	return db, nil
}

// ping makes a pool's first connection. To make a new file a WAL one does not wait
// for other processes that do the same, as everything later does.
func ping(ctx context.Context, pool *sql.DB) error {
	for deadline := time.Now().Add(busyTimeout); ; {
		err := pool.PingContext(ctx)
		var refused *sqlite.Error
		busy := errors.As(err, &refused) && refused.Code()&0xff == busyCode
		if !busy || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Close closes all connections.
func (db *DB) Close() error {
	return errors.Join(db.read.Close(), db.write.Close())
}

// Write runs f in one transaction that holds the write lock from its start; it
// is rolled back when f returns an error. f must not call Write or Reader.
func (db *DB) Write(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return db.explain(err)
	}
	defer tx.Rollback() // does nothing after Commit
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return db.explain(err)
	}
	return nil
}

// Reader is the pool for reading; a write through it fails.
func (db *DB) Reader() *sql.DB { return db.read }

// Ready says whether the database can be read now.
func (db *DB) Ready(ctx context.Context) error {
	var one int
	if err := db.read.QueryRowContext(ctx, "SELECT count(*) FROM users WHERE id = 0").Scan(&one); err != nil {
		return db.explain(err)
	}
	return nil
}

func (db *DB) explain(err error) error {
	return fmt.Errorf("database %s: %w", db.path, err)
}

// usable makes the file where there is none and create says so, and looks at
// what is there: SQLite's own "unable to open database file (14)" does not say
// what a person has to do. It never opens a file that is there: closing it again
// would drop the locks of every other connection of this process (fcntl(2)), by
// which other processes know that the database is in use.
func usable(path string, create bool) error {
	if err := usableDir(path); err != nil {
		return err
	}
	if create {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("database %s: %w", path, err)
		}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("database %s does not exist yet; the first start of the server makes it: %w", path, fs.ErrNotExist)
	case err != nil:
		return fmt.Errorf("database %s: %w", path, err)
	case info.IsDir():
		return fmt.Errorf("database %s is a directory; name a file in it", path)
	}
	if err := accessFile(path); err != nil {
		return fmt.Errorf("database %s is not writable (%w); give the user that runs the server write access to the file", path, err)
	}
	return nil
}

// usableDir says whether SQLite can make its -wal and -shm files beside path.
func usableDir(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("database %s: the directory %s does not exist; make it, owned by the user that runs the server", path, dir)
	case err != nil:
		return fmt.Errorf("database %s: %w", path, err)
	case !info.IsDir():
		return fmt.Errorf("database %s: %s is not a directory", path, dir)
	}
	if err := accessDir(dir); err != nil {
		return fmt.Errorf("database %s: the directory %s is not writable (%w); SQLite makes files beside the database, so give the user that runs the server write access to the directory", path, dir, err)
	}
	return nil
}
