package cards

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tests/pcscd"
	"github.com/kortti-id/kortti/tests/virtualcard"
)

// output is what a program has written so far.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// holder holds the card in a way of its own until its input ends, and leaves
// the card as it is.
const holder = `use Chipcard::PCSC;
my ($reader, $how) = @ARGV;
my $share = $how eq "exclusive" ? $Chipcard::PCSC::SCARD_SHARE_EXCLUSIVE : $Chipcard::PCSC::SCARD_SHARE_SHARED;
my $service = new Chipcard::PCSC();
my $card;
until ($card = new Chipcard::PCSC::Card($service, $reader, $share)) { select(undef, undef, undef, 0.02); }
if ($how eq "transaction") { $card->BeginTransaction() or die $Chipcard::PCSC::errno; }
$| = 1;
print "ready\n";
<STDIN>;
if ($how eq "transaction") { $card->EndTransaction($Chipcard::PCSC::SCARD_LEAVE_CARD); }
$card->Disconnect($Chipcard::PCSC::SCARD_LEAVE_CARD);
`

// hold has another program hold the card in the first reader: "shared", inside
// a "transaction", or "exclusive". It lets go when the returned function is
// called, or the test ends.
func hold(t *testing.T, how string) (letGo func()) {
	t.Helper()
	cmd := exec.Command("perl", "-e", holder, pcscd.Reader0, how)
	stdin, err := cmd.StdinPipe()
	check(t, err)
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	check(t, cmd.Start())
	letGo = sync.OnceFunc(func() {
		stdin.Close()
		cmd.Wait()
	})
	t.Cleanup(letGo)
	for end := time.Now().Add(patience); !strings.Contains(said.String(), "ready"); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the other program does not hold the card: %s", said.String())
		}
	}
	return letGo
}

// Lock is confirmed by the card also while another program keeps it powered.
func TestLockWhileTheCardIsShared(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		c.mustUnlock(t, m)
		check(t, c.sign(m))
		hold(t, "shared")
		if !c.Verified() {
			t.Fatal("the card lost its PIN before the lock")
		}
		check(t, m.Lock("", "test"))
		if c.Verified() {
			t.Error("the card still has a verified PIN after the lock")
		}
	})
}

// Idle locks like the command does.
func TestIdleLock(t *testing.T) {
	eachProfile(t, func(t *testing.T, p virtualcard.Profile) {
		pcscd.Start(t)
		c := newCard(t, virtualcard.Spec{Profile: p})
		m := start(t, card.Config{IdleLock: 200 * time.Millisecond})
		c.insert(t, pcscd.Address0)
		c.ready(t, m)
		hold(t, "shared")
		c.mustUnlock(t, m)
		waitFor(t, "the card to be idle and locked", func() bool { return !c.Verified() })
		waitFor(t, "the manager to say so", func() bool { s, ok := c.state(m); return ok && s == card.Locked })
	})
}

// Another program's transaction keeps the card from being reset. That is said,
// nothing can be signed, and the reset comes when the program lets go.
func TestLockDuringATransaction(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	m := start(t, card.Config{})
	c.insert(t, pcscd.Address0)
	c.ready(t, m)
	c.mustUnlock(t, m)
	letGo := hold(t, "transaction")
	err := m.Lock("", "test")
	if !errors.Is(err, card.ErrLockNotConfirmed) {
		t.Fatalf("Lock: %v", err)
	}
	if s, ok := c.state(m); !ok || s != card.LockNotConfirmed {
		t.Errorf("state %v, %v", s, ok)
	}
	if err := c.sign(m); !errors.Is(err, card.ErrLocked) {
		t.Errorf("sign: %v", err)
	}
	letGo()
	waitFor(t, "the reset when the other program let go", func() bool { s, ok := c.state(m); return ok && s == card.Locked })
	if c.Verified() {
		t.Error("the card still has a verified PIN")
	}
}

// A card that another program has to itself cannot be read; when it lets go,
// the card is there.
func TestExclusiveHolder(t *testing.T) {
	pcscd.Start(t)
	c := newCard(t, virtualcard.Spec{Profile: virtualcard.MyEIDEC})
	c.insert(t, pcscd.Address0)
	letGo := hold(t, "exclusive")
	m := start(t, card.Config{})
	if _, ok := c.state(m); ok {
		t.Fatal("the card is shown although another program has it to itself")
	}
	letGo()
	c.ready(t, m)
	c.mustUnlock(t, m)
}
