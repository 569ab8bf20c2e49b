// Package session keeps the logins that last longer than one request: opaque
// random tokens, of which only the SHA-256 is stored, each associated with a
// user and with the certificate of the login. It has an idle and an absolute
// limit and never outlives the certificate. Whether the user is still active
// and the certificate still good is the caller's to ask at each request.
//
//	store := session.New(db, session.Limits{Idle: 30 * time.Minute, Absolute: 12 * time.Hour}, time.Now)
//	token, s, err := store.Create(ctx, user.ID, fingerprint, leaf.NotAfter)
//	session.SetCookie(w, token)
//	...
//	token, ok := session.FromRequest(r)
//	s, err = store.Get(ctx, token)
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kortti-id/kortti/server/database"
)

// CookieName is that of the session cookie. The prefix makes browsers insist on
// Secure, on Path=/ and on no Domain (RFC 6265bis section 4.1.3.2), so that no
// neighbouring host can plant one.
const CookieName = "__Host-kortti"

// ErrNone means that there is no such session, or that its time is over.
var ErrNone = errors.New("no session")

// Token is the secret of one session: 256 random bits.
type Token struct{ raw [32]byte }

// Value is the token as it stands in the cookie.
func (t Token) Value() string { return base64.RawURLEncoding.EncodeToString(t.raw[:]) }

// String keeps the secret out of logs.
func (t Token) String() string { return "session token" }

// GoString keeps the secret out of logs.
func (t Token) GoString() string { return t.String() }

// ParseToken reads what Value has written.
func ParseToken(s string) (Token, error) {
	var t Token
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder skips line breaks, so the text's own length counts too.
	if err != nil || len(raw) != len(t.raw) || len(s) != base64.RawURLEncoding.EncodedLen(len(raw)) {
		return Token{}, errors.New("not a session token")
	}
	copy(t.raw[:], raw)
	return t, nil
}

func (t Token) sum() []byte {
	sum := sha256.Sum256(t.raw[:])
	return sum[:]
}

// Session is one login.
type Session struct {
	UserID      int64
	Certificate [32]byte // SHA-256 of the DER of the login's certificate
	Created     time.Time
	LastSeen    time.Time // exact to a minute, or to a tenth of a shorter idle limit
	Expires     time.Time // absolute
}

// Limits are how long a session may last.
type Limits struct {
	Idle     time.Duration // without a request
	Absolute time.Duration // in all
}

// Check says whether the limits make sense.
func (l Limits) Check() error {
	if l.Idle < time.Second || l.Absolute < l.Idle {
		return fmt.Errorf("idle is %v and absolute %v; idle must be at least a second and absolute no shorter than idle", l.Idle, l.Absolute)
	}
	return nil
}

// Store keeps sessions in a database. It is safe for concurrent use, also by
// several processes.
type Store struct {
	db     *database.DB
	limits Limits
	now    func() time.Time
}

// New returns the store of the sessions in db.
func New(db *database.DB, limits Limits, now func() time.Time) (*Store, error) {
	if err := limits.Check(); err != nil {
		return nil, fmt.Errorf("session limits: %w", err)
	}
	return &Store{db: db, limits: limits, now: now}, nil
}

// Create starts a session that ends at notAfter of the certificate at the
// latest. Its token is new, whatever the browser has sent before.
func (s *Store) Create(ctx context.Context, userID int64, certificate [32]byte, notAfter time.Time) (Token, Session, error) {
	var token Token
	rand.Read(token.raw[:]) // never fails (crypto/rand)
	now := s.now().UTC().Truncate(time.Second)
	expires := now.Add(s.limits.Absolute)
	if notAfter.Before(expires) {
		expires = notAfter.UTC().Truncate(time.Second)
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		// Those whose time is over go with the next login; nothing finds them
		// meanwhile, so no clock has to run for it.
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires <= ?`, now.Unix()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (token_sha256, user_id, certificate, created, last_seen, expires)
			VALUES (?1, ?2, ?3, ?4, ?4, ?5)`, token.sum(), userID, certificate[:], now.Unix(), expires.Unix())
		return err
	})
	if err != nil {
		return Token{}, Session{}, fmt.Errorf("start a session: %w", err)
	}
	return token, Session{UserID: userID, Certificate: certificate, Created: now, LastSeen: now, Expires: expires}, nil
}

// Get returns the session of a token, or ErrNone.
func (s *Store) Get(ctx context.Context, token Token) (Session, error) {
	var found Session
	var certificate []byte
	var created, seen, expires int64
	err := s.db.Reader().QueryRowContext(ctx, `SELECT user_id, certificate, created, last_seen, expires
		FROM sessions WHERE token_sha256 = ?`, token.sum()).Scan(&found.UserID, &certificate, &created, &seen, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return Session{}, ErrNone
	}
	if err != nil {
		return Session{}, fmt.Errorf("read a session: %w", err)
	}
	copy(found.Certificate[:], certificate)
	found.Created, found.LastSeen, found.Expires = utc(created), utc(seen), utc(expires)
	now := s.now()
	if !now.Before(found.Expires) || !now.Before(found.LastSeen.Add(s.limits.Idle)) {
		return Session{}, ErrNone
	}
	return found, nil
}

// Touch notes that the session is in use. It writes at most once a minute, or
// once a tenth of a shorter idle limit.
func (s *Store) Touch(ctx context.Context, token Token, session Session) error {
	now := s.now()
	if now.Sub(session.LastSeen) < min(time.Minute, s.limits.Idle/10) {
		return nil
	}
	return s.write(ctx, `UPDATE sessions SET last_seen = ? WHERE token_sha256 = ?`, now.Unix(), token.sum())
}

// End ends the session of a token. There being none is no error.
func (s *Store) End(ctx context.Context, token Token) error {
	return s.write(ctx, `DELETE FROM sessions WHERE token_sha256 = ?`, token.sum())
}

// EndUser ends all sessions of a user.
func (s *Store) EndUser(ctx context.Context, userID int64) error {
	return s.write(ctx, `DELETE FROM sessions WHERE user_id = ?`, userID)
}

// EndCertificate ends all sessions that were started with a certificate, given
// by the SHA-256 of its DER.
func (s *Store) EndCertificate(ctx context.Context, certificate [32]byte) error {
	return s.write(ctx, `DELETE FROM sessions WHERE certificate = ?`, certificate[:])
}

func (s *Store) write(ctx context.Context, statement string, args ...any) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}

// SetCookie gives the browser a token. The cookie ends with the browser; the
// limits are kept here, where the browser cannot lengthen them.
func SetCookie(w http.ResponseWriter, token Token) {
	http.SetCookie(w, cookie(token.Value(), 0))
}

// ClearCookie takes the token away from the browser.
func ClearCookie(w http.ResponseWriter) {
	http.SetCookie(w, cookie("", -1))
}

func cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: CookieName, Value: value, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// FromRequest returns the request's token; ok is false where there is none,
// more than one, or something else under its name.
func FromRequest(r *http.Request) (token Token, ok bool) {
	cookies := r.CookiesNamed(CookieName)
	if len(cookies) != 1 {
		return Token{}, false
	}
	token, err := ParseToken(cookies[0].Value)
	return token, err == nil
}

func utc(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
