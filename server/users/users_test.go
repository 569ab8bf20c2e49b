package users_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/users"
)

var maija = fineid.Profile{Username: "99912345V", FirstName: "Maija", LastName: "Mäkelä"}

const maijaKey = "dvv-citizen/99912345V"

// clock is a time that the test moves.
type clock struct{ t atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(c.t.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.t.Add(int64(d / time.Second)) }

func open(t *testing.T, path string) (*users.Store, *clock) {
	t.Helper()
	db, err := database.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := new(clock)
	c.t.Store(1_800_000_000)
	return users.New(db, c.now), c
}

func newStore(t *testing.T) (*users.Store, *clock) {
	return open(t, filepath.Join(t.TempDir(), "k.db"))
}

func TestEnsureCreates(t *testing.T) {
	for _, test := range []struct {
		create users.Create
		active bool
		err    error
	}{
		{users.CreateOff, false, users.ErrUnknown},
		{users.CreateInactive, false, nil},
		{users.CreateActive, true, nil},
	} {
		t.Run(string(test.create), func(t *testing.T) {
			store, c := newStore(t)
			u, created, err := store.Ensure(t.Context(), maijaKey, maija, test.create)
			if !errors.Is(err, test.err) || created != (test.err == nil) || u.Active != test.active {
				t.Fatalf("got %+v, %v, %v", u, created, err)
			}
			if err != nil {
				return
			}
			again, created, err := store.Ensure(t.Context(), maijaKey, maija, users.CreateOff)
			if err != nil || created || again.ID != u.ID || !again.Created.Equal(c.now()) {
				t.Errorf("second time: %+v, %v, %v", again, created, err)
			}
			if u.Name() != "Maija Mäkelä" {
				t.Errorf("name %q", u.Name())
			}
		})
	}
}

func TestEnsureFollowsTheProfile(t *testing.T) {
	store, _ := newStore(t)
	ctx := t.Context()
	first := maija
	first.Email = "maija@example.fi"
	if _, _, err := store.Ensure(ctx, maijaKey, first, users.CreateInactive); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Approve(ctx, maijaKey); err != nil {
		t.Fatal(err)
	}
	married := maija
	married.LastName = "Virtanen"
	if _, _, err := store.Ensure(ctx, maijaKey, married, users.CreateInactive); err != nil {
		t.Fatal(err)
	}
	u, err := store.ByKey(ctx, maijaKey)
	if err != nil || u.LastName != "Virtanen" || u.Email != "maija@example.fi" || !u.Active {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestEnsureNeedsAnIdentity(t *testing.T) {
	store, _ := newStore(t)
	if _, _, err := store.Ensure(t.Context(), "", maija, users.CreateActive); err == nil {
		t.Error("made a user without a key")
	}
	if _, _, err := store.Ensure(t.Context(), "x509-1/", fineid.Profile{}, users.CreateActive); err == nil {
		t.Error("made a user without a name")
	}
}

// Many first logins at once, through two openings of one file as two processes
// have them, make one account.
func TestEnsureRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.db")
	a, _ := open(t, path)
	b, _ := open(t, path)
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 20 {
		store := []*users.Store{a, b}[i%2]
		all.Go(func() {
			_, created, err := store.Ensure(context.Background(), maijaKey, maija, users.CreateInactive)
			if err != nil {
				t.Error(err)
			}
			if created {
				made.Add(1)
			}
		})
	}
	all.Wait()
	list, err := a.List(t.Context())
	if err != nil || len(list) != 1 || made.Load() != 1 {
		t.Errorf("%d users, %d times made, %v", len(list), made.Load(), err)
	}
}

func TestApproveIsSeenByAnotherOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.db")
	server, _ := open(t, path)
	command, _ := open(t, path)
	u, _, err := server.Ensure(t.Context(), maijaKey, maija, users.CreateInactive)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do     func(context.Context, string) (users.User, error)
		who    string
		active bool
	}{
		{command.Approve, maija.Username, true},
		{command.Deactivate, maijaKey, false},
	} {
		if _, err := step.do(t.Context(), step.who); err != nil {
			t.Fatal(err)
		}
		if u, err = server.Get(t.Context(), u.ID); err != nil || u.Active != step.active {
			t.Errorf("active %v, want %v (%v)", u.Active, step.active, err)
		}
	}
}

func TestWhoIsAmbiguous(t *testing.T) {
	store, _ := newStore(t)
	ctx := t.Context()
	for _, key := range []string{maijaKey, "other/99912345V"} {
		if _, _, err := store.Ensure(ctx, key, maija, users.CreateInactive); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Approve(ctx, maija.Username); !errors.Is(err, users.ErrAmbiguous) {
		t.Errorf("approved one of two: %v", err)
	}
	if u, err := store.Approve(ctx, "other/99912345V"); err != nil || u.Key != "other/99912345V" {
		t.Errorf("by key: %+v, %v", u, err)
	}
	if u, err := store.ByKey(ctx, maijaKey); err != nil || u.Active {
		t.Errorf("the other one: %+v, %v", u, err)
	}
	if _, err := store.Approve(ctx, "nobody"); !errors.Is(err, users.ErrUnknown) {
		t.Errorf("approved nobody: %v", err)
	}
}

// The serialNumber of another issuer's certificate may hold a slash.
func TestUserNameLikeAKey(t *testing.T) {
	store, _ := newStore(t)
	ctx := t.Context()
	impostor := fineid.Profile{Username: maijaKey}
	if _, _, err := store.Ensure(ctx, "other/"+maijaKey, impostor, users.CreateInactive); err != nil {
		t.Fatal(err)
	}
	if u, err := store.Approve(ctx, maijaKey); !errors.Is(err, users.ErrUnknown) {
		t.Errorf("approved in Maija's place: %+v, %v", u, err)
	}
	if _, _, err := store.Ensure(ctx, maijaKey, maija, users.CreateActive); err != nil {
		t.Fatal(err)
	}
	if u, err := store.Deactivate(ctx, maijaKey); err != nil || u.Username != maija.Username {
		t.Errorf("deactivated %+v, %v", u, err)
	}
}

func TestRoles(t *testing.T) {
	store, _ := newStore(t)
	ctx := t.Context()
	if _, _, err := store.Ensure(ctx, maijaKey, maija, users.CreateActive); err != nil {
		t.Fatal(err)
	}
	if _, err := store.SetRoles(ctx, maijaKey, []string{"two words"}); err == nil {
		t.Error("took a role of two words")
	}
	if _, err := store.SetRoles(ctx, maijaKey, []string{"doctor", "admin"}); err != nil {
		t.Fatal(err)
	}
	u, err := store.ByKey(ctx, maijaKey)
	if err != nil || !slices.Equal(u.Roles, []string{"doctor", "admin"}) || !u.Active {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestSeenIsWrittenOnceAMinute(t *testing.T) {
	store, c := newStore(t)
	ctx := t.Context()
	u, _, err := store.Ensure(ctx, maijaKey, maija, users.CreateActive)
	if err != nil {
		t.Fatal(err)
	}
	seen := func() time.Time {
		t.Helper()
		if err := store.Seen(ctx, u); err != nil {
			t.Fatal(err)
		}
		if u, err = store.Get(ctx, u.ID); err != nil {
			t.Fatal(err)
		}
		return u.LastSeen
	}
	start := c.now()
	c.advance(59 * time.Second)
	if got := seen(); !got.Equal(start) {
		t.Errorf("written after 59 s: %v", got)
	}
	c.advance(time.Second)
	if got := seen(); !got.Equal(c.now()) {
		t.Errorf("not written after 60 s: %v", got)
	}
}

func TestCertificates(t *testing.T) {
	store, c := newStore(t)
	ctx := t.Context()
	u, _, err := store.Ensure(ctx, maijaKey, maija, users.CreateActive)
	if err != nil {
		t.Fatal(err)
	}
	old := users.Certificate{SHA256: [32]byte{1}, Issuer: "CN=CA", Serial: "01", NotAfter: c.now().Add(time.Hour).UTC()}
	renewed := old
	renewed.SHA256 = [32]byte{2}
	first := c.now()
	for _, cert := range []users.Certificate{old, renewed, renewed} {
		c.advance(time.Minute)
		if err := store.CertificateSeen(ctx, u.ID, cert); err != nil {
			t.Fatal(err)
		}
	}
	list, err := store.Certificates(ctx, u.ID)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d certificates, %v", len(list), err)
	}
	got := list[0]
	if got.SHA256 != renewed.SHA256 || !got.NotAfter.Equal(renewed.NotAfter) ||
		!got.FirstSeen.Equal(first.Add(2*time.Minute)) || !got.LastSeen.Equal(c.now()) {
		t.Errorf("got %+v", got)
	}
}

func TestParseCreate(t *testing.T) {
	if c, err := users.ParseCreate(""); err != nil || c != users.CreateInactive {
		t.Errorf("default is %q, %v", c, err)
	}
	if _, err := users.ParseCreate("yes"); err == nil {
		t.Error("took yes")
	}
}
