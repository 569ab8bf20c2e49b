package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/screen"
	"github.com/kortti-id/kortti/tests/desktop"
)

// awayTime is the most that may pass between the screen's lock and the cards'.
const awayTime = time.Second

// surroundings are a world with a desktop around it.
type surroundings struct {
	*world
	logind *desktop.Logind
	saver  *desktop.Saver
}

func newSurroundings(t *testing.T, hostKeys string) surroundings {
	t.Helper()
	system, session := desktop.NewBus(t), desktop.NewBus(t)
	logind := system.NewLogind().Come()
	logind.AddSession("c1", uint32(os.Getuid()), false, true)
	saver := session.NewSaver("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver", false)
	s := surroundings{newWatchedWorld(t, screen.Buses{System: system.Address, Session: session.Address}, hostKeys), logind, saver}
	waitFor(t, "the screen to be watched", func() bool {
		status, err := s.client.Status(within(t))
		check(t, err)
		return status.ScreenLock == control.Watch{Watched: true, Detail: "logind's session c1, org.gnome.ScreenSaver"} &&
			status.Sleep == control.Watch{Watched: true, Detail: "logind"}
	})
	return s
}

// TestScreenLock locks the card in every way in which the person goes away.
func TestScreenLock(t *testing.T) {
	s := newSurroundings(t, "consent = \"always\"\n")
	var reasons []string
	for _, test := range []struct {
		reason      string
		leave, back func()
	}{
		{"the screen was locked", func() { s.saver.SetActive(true) }, func() { s.saver.SetActive(false) }},
		{"the screen was locked", func() { s.logind.Lock("c1") }, func() {}},
		{"the screen was locked", func() { s.logind.Set("c1", true, true, false) }, func() { s.logind.Set("c1", false, true, false) }},
		{"the session was switched away", func() { s.logind.Set("c1", false, false, false) }, func() { s.logind.Set("c1", false, true, false) }},
		{"the machine goes to sleep", func() { s.logind.PrepareForSleep(true) }, func() { s.logind.PrepareForSleep(false) }},
		{"the session ended", func() { s.logind.RemoveSession("c1") }, func() {}},
	} {
		s.unlockNow(t)
		if r := s.curl(within(t), "/"); r.status != 200 {
			t.Fatalf("%+v", r)
		}
		hung := s.curling(t, "/hang")
		<-s.hanging
		stream, err := s.client.Events(within(t), false)
		check(t, err)
		gone := time.Now()
		test.leave()
		if ev := next(t, stream, control.EventLock); ev.Reason != test.reason {
			t.Errorf("the event says %q, want %q", ev.Reason, test.reason)
		}
		if r := <-hung; r.err == nil {
			t.Errorf("%s: a response under way outlived it: %+v", test.reason, r)
		}
		status, err := s.client.Status(within(t))
		check(t, err)
		if d := time.Since(gone); status.Cards[0].State != control.Locked || d > awayTime {
			t.Errorf("%s: the card is %s after %v", test.reason, status.Cards[0].State, d)
		}
		stream.Close()
		wantReply(t, s.curl(within(t), "/"), 503, control.CodeNoFrontEnd)
		test.back() // does not unlock
		wantReply(t, s.curl(within(t), "/"), 503, control.CodeNoFrontEnd)
		reasons = append(reasons, test.reason)
	}
	records, err := s.client.Audit(within(t), 0)
	check(t, err)
	var locks []string
	for _, r := range records {
		if r.Decision == audit.Lock {
			locks = append(locks, r.Reason)
		}
	}
	if fmt.Sprint(locks) != fmt.Sprint(reasons) {
		t.Errorf("audit: %q, want %q", locks, reasons)
	}
}

// TestSleepAfterLock holds sleep until the card itself is locked.
func TestSleepAfterLock(t *testing.T) {
	s := newSurroundings(t, "")
	s.unlockNow(t)
	waitFor(t, "the delay lock", func() bool { return s.logind.Delays() == 1 })
	s.logind.PrepareForSleep(true)
	waitFor(t, "the end of the delay lock", func() bool { return s.logind.Delays() == 0 })
	for _, r := range s.cards.Snapshot().Readers {
		if r.Card != nil && r.Card.State.String() != string(control.Locked) {
			t.Errorf("the machine may sleep with the card %s", r.Card.State)
		}
	}
}

// TestScreenLockWhileAsking closes the prompts that are open.
func TestScreenLockWhileAsking(t *testing.T) {
	s := newSurroundings(t, "")
	stream := s.attend(t)
	end := s.curling(t, "/")
	p := next(t, stream, control.EventPrompt).Prompt
	s.saver.SetActive(true)
	ev := next(t, stream, control.EventPromptClosed)
	if ev.Prompt.ID != p.ID || ev.Code != control.CodeAway || !strings.HasSuffix(ev.Reason, ": the screen was locked") {
		t.Errorf("%+v", ev)
	}
	wantReply(t, <-end, 503, control.CodeAway)
}
