package card

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// journal counts records by level.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) count(part string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), part)
}

// A module that cannot be used is tried again and again, and warned of once.
func TestUnusableModuleWarnsOnce(t *testing.T) {
	var log journal
	start(t, Config{
		Modules: []string{"/nowhere/module.so"}, Poll: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	waitFor(t, "three tries", func() bool { return log.count("a PKCS#11 module cannot be read") >= 3 })
	if n := log.count("level=WARN"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// A card counts as unknown when every module has looked at it, and not before.
func TestUnrecognizedAfterEveryLook(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	m := &Manager{ctx: ctx, readers: []wire.Reader{
		{Name: "Reader 0", Present: true, ATR: []byte{0x3b, 0}, Events: 3}, {Name: "Reader 1"}, {Name: "Reader 2", Present: true, Mute: true},
	}}
	first, second := newModule(m, "/a.so"), newModule(m, "/b.so")
	m.modules = []*module{first, second}
	unknown := func() string {
		m.mu.Lock()
		defer m.mu.Unlock()
		var s Snapshot
		m.showReaders(&s)
		var names []string
		for _, u := range s.Unrecognized {
			names = append(names, u.Reader)
		}
		return strings.Join(names, ", ")
	}
	step := func(what, want string) {
		t.Helper()
		if got := unknown(); got != want {
			t.Errorf("%s: unrecognised are %q, want %q", what, got, want)
		}
	}
	step("nobody has looked", "")
	first.noteLook()
	first.looked = first.looking
	step("one has looked", "")
	second.noteLook()
	step("the other is looking", "")
	second.looked = second.looking
	step("both have", "Reader 0, Reader 2")
	second.slots = []*slot{{place: place{reader: "Reader 2"}, entry: &entry{}}}
	step("one shows a card", "Reader 0")
	m.readers = append([]wire.Reader{}, m.readers...)
	m.readers[0].Events += 2 // taken out and put back, or another
	step("another card", "")
}
