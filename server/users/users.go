// Package users keeps the accounts of the people who have shown a certificate:
// who they are, whether somebody has approved them, and which certificates they
// have used. It decides nothing about certificates and knows no HTTP.
//
//	store := users.New(db, time.Now)
//	user, created, err := store.Ensure(ctx, "dvv-citizen/99912345V", profile, users.CreateInactive)
//	if err == nil && !user.Active {
//		// wait for `kortti-server users approve`
//	}
package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/database"
)

// seenEvery is how often at most the time of a user's last visit is written.
const seenEvery = time.Minute

// ErrUnknown means that there is no such user.
var ErrUnknown = errors.New("no such user")

// ErrAmbiguous means that several users have the name; their keys differ.
var ErrAmbiguous = errors.New("several users have this name; give the key instead")

// Create says what happens when somebody without an account logs in.
type Create string

// The ways to treat people without an account.
const (
	CreateOff      Create = "off"      // refuse them
	CreateInactive Create = "inactive" // make an account that waits for approval
	CreateActive   Create = "active"   // make an account that may log in at once
)

// ParseCreate reads a Create; the empty string is CreateInactive.
func ParseCreate(s string) (Create, error) {
	switch c := Create(s); c {
	case "":
		return CreateInactive, nil
	case CreateOff, CreateInactive, CreateActive:
		return c, nil
	}
	return "", fmt.Errorf("%q is not one of off, inactive, active", s)
}

// User is an account. Key is what identifies it: two issuers may well give the
// same number, and so the same Username, to different people.
type User struct {
	ID        int64
	Key       string // issuer family "/" serialNumber
	Username  string
	FirstName string
	LastName  string
	Email     string
	Active    bool
	Roles     []string
	Created   time.Time
	LastSeen  time.Time // exact to a minute
}

// Name is the user's full name, or the user name of one without names.
func (u User) Name() string {
	if name := strings.TrimSpace(u.FirstName + " " + u.LastName); name != "" {
		return name
	}
	return u.Username
}

// Certificate is one with which a user has logged in.
type Certificate struct {
	SHA256    [32]byte // of the DER
	Issuer    string   // distinguished name, for showing
	Serial    string   // hexadecimal
	NotAfter  time.Time
	FirstSeen time.Time
	LastSeen  time.Time
}

// Store keeps users in a database. It is safe for concurrent use, also by
// several processes.
type Store struct {
	db  *database.DB
	now func() time.Time
}

// New returns the store of the users in db.
func New(db *database.DB, now func() time.Time) *Store {
	return &Store{db: db, now: now}
}

// Ensure returns the user with the key. A new one is made as create says; with
// CreateOff the error is ErrUnknown. The names of a known one follow the
// profile (people marry and get new cards); whether the user is active, and an
// e-mail address that the profile does not have, stay as they are.
func (s *Store) Ensure(ctx context.Context, key string, p fineid.Profile, create Create) (u User, created bool, err error) {
	if key == "" || p.Username == "" {
		return User{}, false, errors.New("a user needs a key and a user name, and the certificate gives none")
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		u, err = get(ctx, tx, "key = ?", key)
		if errors.Is(err, ErrUnknown) && create != CreateOff {
			created = true
			u, err = s.insert(ctx, tx, key, p, create == CreateActive)
			return err
		}
		if err != nil {
			return err
		}
		u.Username, u.FirstName, u.LastName = p.Username, p.FirstName, p.LastName
		if p.Email != "" {
			u.Email = p.Email
		}
		_, err = tx.ExecContext(ctx, `UPDATE users SET username = ?, first_name = ?, last_name = ?, email = ? WHERE id = ?`,
			u.Username, u.FirstName, u.LastName, u.Email, u.ID)
		return err
	})
	if err != nil {
		return User{}, false, fmt.Errorf("find or make the user: %w", err)
	}
	return u, created, nil
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, key string, p fineid.Profile, active bool) (User, error) {
	now := s.now().UTC().Truncate(time.Second)
	u := User{
		Key: key, Username: p.Username, FirstName: p.FirstName, LastName: p.LastName, Email: p.Email,
		Active: active, Created: now, LastSeen: now,
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO users (key, username, first_name, last_name, email, active, created, last_seen)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		u.Key, u.Username, u.FirstName, u.LastName, u.Email, u.Active, now.Unix(), now.Unix())
	if err != nil {
		return User{}, err
	}
	u.ID, err = result.LastInsertId()
	return u, err
}

// Get returns the user with the id, ErrUnknown if there is none.
func (s *Store) Get(ctx context.Context, id int64) (User, error) {
	return get(ctx, s.db.Reader(), "id = ?", id)
}

// ByKey returns the user with the key, ErrUnknown if there is none.
func (s *Store) ByKey(ctx context.Context, key string) (User, error) {
	return get(ctx, s.db.Reader(), "key = ?", key)
}

// List returns all users, those who wait for approval first.
func (s *Store) List(ctx context.Context) ([]User, error) {
	users, err := query(ctx, s.db.Reader(), "1 ORDER BY active, last_name, first_name, id")
	if err != nil {
		return nil, fmt.Errorf("list the users: %w", err)
	}
	return users, nil
}

// Approve lets a user in, named by key or user name. A name with a slash is a
// key: keys have one, and a user name that looks like somebody's key must not
// stand in for that person.
func (s *Store) Approve(ctx context.Context, who string) (User, error) {
	return s.change(ctx, who, func(u *User) { u.Active = true })
}

// Deactivate keeps a user out, named by key or user name. Sessions of the user
// let nobody in from now on; ending them is the caller's part.
func (s *Store) Deactivate(ctx context.Context, who string) (User, error) {
	return s.change(ctx, who, func(u *User) { u.Active = false })
}

// SetRoles replaces the roles of a user, named by key or user name. A role is
// a word without spaces; what it means is the application's matter.
func (s *Store) SetRoles(ctx context.Context, who string, roles []string) (User, error) {
	for _, role := range roles {
		if len(strings.Fields(role)) != 1 || strings.Fields(role)[0] != role {
			return User{}, fmt.Errorf("role %q is not one word", role)
		}
	}
	return s.change(ctx, who, func(u *User) { u.Roles = slices.Clone(roles) })
}

// change finds one user by key or user name and stores what edit does to it.
func (s *Store) change(ctx context.Context, who string, edit func(*User)) (u User, err error) {
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		where := "username = ?"
		if strings.Contains(who, "/") {
			where = "key = ?"
		}
		found, err := query(ctx, tx, where, who)
		if err != nil {
			return err
		}
		switch len(found) {
		case 0:
			return ErrUnknown
		case 1:
			u = found[0]
		default:
			return ErrAmbiguous
		}
		edit(&u)
		_, err = tx.ExecContext(ctx, `UPDATE users SET active = ?, roles = ? WHERE id = ?`,
			u.Active, strings.Join(u.Roles, " "), u.ID)
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", who, err)
	}
	return u, nil
}

// Seen notes that the user is here; it writes at most once a minute.
func (s *Store) Seen(ctx context.Context, u User) error {
	now := s.now()
	if now.Sub(u.LastSeen) < seenEvery {
		return nil
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE users SET last_seen = ? WHERE id = ?`, now.Unix(), u.ID)
		return err
	})
}

// CertificateSeen notes that the user has logged in with the certificate.
// FirstSeen and LastSeen of c are not read.
func (s *Store) CertificateSeen(ctx context.Context, userID int64, c Certificate) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO certificates (user_id, sha256, issuer, serial, not_after, first_seen, last_seen)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
			ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen`,
			userID, c.SHA256[:], c.Issuer, c.Serial, c.NotAfter.Unix(), s.now().Unix())
		return err
	})
}

// Certificates returns the certificates with which the user has logged in, the
// newest first.
func (s *Store) Certificates(ctx context.Context, userID int64) (list []Certificate, err error) {
	rows, err := s.db.Reader().QueryContext(ctx, `SELECT sha256, issuer, serial, not_after, first_seen, last_seen
		FROM certificates WHERE user_id = ? ORDER BY first_seen DESC, sha256`, userID)
	if err != nil {
		return nil, fmt.Errorf("list the certificates of a user: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c Certificate
		var sum []byte
		var notAfter, first, last int64
		if err := rows.Scan(&sum, &c.Issuer, &c.Serial, &notAfter, &first, &last); err != nil {
			return nil, fmt.Errorf("list the certificates of a user: %w", err)
		}
		copy(c.SHA256[:], sum)
		c.NotAfter, c.FirstSeen, c.LastSeen = utc(notAfter), utc(first), utc(last)
		list = append(list, c)
	}
	return list, rows.Err()
}

// ActiveCertificate tells whether an active user has logged in with the
// certificate of this SHA-256. Whether it is still good is not asked.
func (s *Store) ActiveCertificate(ctx context.Context, sha256 [32]byte) (bool, error) {
	var found bool
	err := s.db.Reader().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates JOIN users ON users.id = user_id
		WHERE sha256 = ? AND active)`, sha256[:]).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("look for a certificate: %w", err)
	}
	return found, nil
}

// querier is *sql.DB or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func get(ctx context.Context, q querier, where string, args ...any) (User, error) {
	found, err := query(ctx, q, where, args...)
	if err != nil {
		return User{}, fmt.Errorf("read a user: %w", err)
	}
	if len(found) == 0 {
		return User{}, ErrUnknown
	}
	return found[0], nil
}

func query(ctx context.Context, q querier, where string, args ...any) (list []User, err error) {
	rows, err := q.QueryContext(ctx, `SELECT id, key, username, first_name, last_name, email, active, roles, created, last_seen
		FROM users WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var u User
		var roles string
		var created, seen int64
		err := rows.Scan(&u.ID, &u.Key, &u.Username, &u.FirstName, &u.LastName, &u.Email, &u.Active, &roles, &created, &seen)
		if err != nil {
			return nil, err
		}
		u.Roles, u.Created, u.LastSeen = strings.Fields(roles), utc(created), utc(seen)
		list = append(list, u)
	}
	return list, rows.Err()
}

func utc(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
