-- Times are Unix seconds, UTC.
CREATE TABLE users (
	id         INTEGER PRIMARY KEY,
	key        TEXT NOT NULL UNIQUE, -- issuer family "/" serialNumber
	username   TEXT NOT NULL,
	first_name TEXT NOT NULL,
	last_name  TEXT NOT NULL,
	email      TEXT NOT NULL,
	active     INTEGER NOT NULL,
	roles      TEXT NOT NULL DEFAULT '', -- separated by spaces
	created    INTEGER NOT NULL,
	last_seen  INTEGER NOT NULL
) STRICT;

CREATE INDEX users_username ON users (username);

CREATE TABLE certificates (
	user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	sha256     BLOB NOT NULL,
	issuer     TEXT NOT NULL,
	serial     TEXT NOT NULL,
	not_after  INTEGER NOT NULL,
	first_seen INTEGER NOT NULL,
	last_seen  INTEGER NOT NULL,
	PRIMARY KEY (user_id, sha256)
) STRICT, WITHOUT ROWID;
