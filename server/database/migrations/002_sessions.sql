CREATE TABLE sessions (
	token_sha256 BLOB PRIMARY KEY, -- the token itself is never stored
	user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	certificate  BLOB NOT NULL,    -- SHA-256 of the certificate's DER
	created      INTEGER NOT NULL,
	last_seen    INTEGER NOT NULL,
	expires      INTEGER NOT NULL  -- absolute limit, never beyond notAfter
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_certificate ON sessions (certificate);
CREATE INDEX sessions_expires ON sessions (expires);
