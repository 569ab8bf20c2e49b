package database

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the files of migrations/ that the database has not had yet,
// in the order of their names and in one transaction. The number of those
// applied is kept in SQLite's user_version. A file that has been released is
// never edited; a change of the schema is a new file.
func (db *DB) migrate(ctx context.Context) error {
	if names, _, err := db.pending(ctx, db.read); err == nil && len(names) == 0 {
		return nil
	}
	return db.Write(ctx, func(tx *sql.Tx) error {
		// Look again under the write lock: another process may have migrated.
		names, newest, err := db.pending(ctx, tx)
		if err != nil {
			return err
		}
		for _, name := range names {
			script, err := migrations.ReadFile(name)
			if err != nil {
				return fmt.Errorf("read the migration %s: %w", name, err)
			}
			if _, err := tx.ExecContext(ctx, string(script)); err != nil {
				return fmt.Errorf("database %s: apply %s: %w", db.path, name, err)
			}
		}
		// A PRAGMA takes no parameters; the number is ours.
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", newest)); err != nil {
			return db.explain(err)
		}
		return nil
	})
}

// pending gives the files of migrations/ that the database has not had yet, and
// the version that it has after them.
func (db *DB) pending(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (names []string, newest int, err error) {
	names, err = fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, 0, fmt.Errorf("list the migrations: %w", err)
	}
	var have int
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return nil, 0, db.explain(err)
	}
	if have > len(names) {
		return nil, 0, fmt.Errorf("database %s has schema version %d and this program knows only up to %d; run the newer kortti-server that made it", db.path, have, len(names))
	}
	return names[have:], len(names), nil
}
