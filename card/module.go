package card

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// maxBackoff is the longest pause before a module that failed is tried again.
const maxBackoff = time.Minute

// module is a configured PKCS#11 module, read by a lister child. One goroutine
// runs it.
type module struct {
	manager *Manager
	path    string
	first   chan struct{}      // closed after the first inventory
	refresh chan chan struct{} // requests for a fresh inventory, closed when done
	kick    chan struct{}      // holds one token when PC/SC has news

	lister   *process // used by the goroutine only
	ignored  []string // readers that the lister leaves alone; used by the goroutine only
	failures int      // in a row; used by the goroutine only
	unread   int      // looks in a row that could not read a token; used by the goroutine only
	strange  int      // looks again at a card that no module shows; used by the goroutine only

	info            ModuleInfo    // guarded by Manager.mu
	slots           []*slot       // guarded by Manager.mu
	looked, looking []wire.Reader // PC/SC's readers when its last look, and this one, began; guarded by Manager.mu
	stale           bool          // PC/SC was started anew, which some modules do not survive; guarded by Manager.mu
}

// slot is a slot and the card in it; guarded by Manager.mu. Its id is not here:
// it is another in each process.
type slot struct {
	place
	entry *entry
}

// place says where a slot is: the reader, and which of the reader's slots from
// 0. Some modules have one for each PIN of a card.
type place struct {
	reader  string
	ordinal int
}

// places returns where each of a child's slots is.
func places(infos []wire.SlotInfo) []place {
	at := make([]place, len(infos))
	count := map[string]int{}
	for i, info := range infos {
		at[i] = place{info.Description, count[info.Description]}
		count[info.Description]++
	}
	return at
}

func newModule(m *Manager, path string) *module {
	return &module{manager: m, path: path, first: make(chan struct{}), refresh: make(chan chan struct{}), kick: make(chan struct{}, 1), info: ModuleInfo{Path: path}}
}

// wake has the module read soon.
func (mod *module) wake() {
	select {
	case mod.kick <- struct{}{}:
	default:
	}
}

// run reads the module until the manager ends: after news from PC/SC, and where
// a slot has no PC/SC reader with a kept lister once in every Poll.
func (mod *module) run() {
	m := mod.manager
	defer mod.stopLister()
	mod.awaitReaders()
	mod.inventory(false)
	close(mod.first)
	timer := time.NewTimer(mod.pause())
	defer timer.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case done := <-mod.refresh:
			mod.stopLister()
			mod.failures = 0
			mod.inventory(true)
			close(done)
		case <-mod.kick:
			mod.inventory(false)
		case <-timer.C:
			mod.inventory(false)
		}
		timer.Reset(mod.pause())
	}
}

// pause ends a lister that is not needed any more and returns the time to the
// next inventory.
func (mod *module) pause() time.Duration {
	poll := mod.manager.config.Poll
	if bad := max(mod.failures, mod.unread); bad > 0 {
		return min(poll<<min(bad-1, 10), max(poll, maxBackoff))
	}
	mod.manager.mu.Lock()
	watched, strange := mod.manager.watched(mod), mod.manager.anyUnrecognized()
	mod.manager.mu.Unlock()
	if strange && mod.strange < strangeLooks {
		mod.strange++
		mod.stopLister() // a new one meets the card anew
		return poll
	}
	mod.strange = 0
	if watched {
		mod.stopLister()
		return time.Hour // a look at a card that nothing has happened to
	}
	return poll
}

func (mod *module) stopLister() {
	if mod.lister != nil {
		mod.lister.close(ErrClosed)
		mod.lister = nil
	}
}

// inventory reads slots and new cards, or again all locked cards, and keeps
// what went wrong.
func (mod *module) inventory(again bool) {
	mod.noteLook()
	err := mod.read(again)
	if err == nil {
		mod.failures = 0
		return
	}
	m := mod.manager
	if m.ctx.Err() != nil {
		return
	}
	mod.failures++
	mod.stopLister()
	err = failure("read the cards of "+mod.path, err)
	level := slog.LevelDebug // it is tried again and again
	if mod.setFailed(err) {
		level = slog.LevelWarn
	}
	m.config.Log.Log(m.ctx, level, "a PKCS#11 module cannot be read", "module", mod.path, "error", err, "hint", Hint(err))
}

// setFailed shows the module's error and forgets its locked cards; an unlocked
// card, and one whose PIN is being typed, has a process of its own that tells
// how it is. It returns whether the error is another than before.
func (mod *module) setFailed(err error) (news bool) {
	m := mod.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	news = mod.setError(err)
	for _, s := range mod.slots {
		if s.entry != nil && s.entry.signer == nil && s.entry.starting == nil {
			m.forget(s, s.entry, err)
		}
	}
	mod.looked = mod.looking
	mod.publishError(news)
	return news
}

// setError keeps why the module cannot be used, or nil, and returns whether that
// is something new that went wrong; Manager.mu must be held.
func (mod *module) setError(err error) (news bool) {
	news = err != nil && (mod.info.Err == nil || mod.info.Err.Error() != err.Error())
	mod.info.Err = err
	return news
}

// publishError publishes, and tells of the module's error if it is new;
// Manager.mu must be held.
func (mod *module) publishError(news bool) {
	mod.manager.publish() // before the event, or who reads it finds the old state
	if news {
		mod.manager.emit(Event{Kind: ModuleFailed, Reason: mod.info.Err.Error()})
	}
}

// unreadable says why a card that the module shows cannot be shown here;
// Manager.mu must be held.
func (mod *module) unreadable(infos []wire.SlotInfo) error {
	for i, at := range places(infos) {
		if s := mod.slot(at); infos[i].Unread != nil && s != nil && s.entry == nil {
			return failure("read the card in "+at.reader+" with "+mod.path, infos[i].Unread)
		}
	}
	return nil
}

// read starts the lister if there is none that fits, and brings the slots up to
// date.
func (mod *module) read(again bool) error {
	m := mod.manager
	ignored, stale := mod.toIgnore()
	if stale || !slices.Equal(ignored, mod.ignored) {
		mod.stopLister()
	}
	mod.ignored = ignored
	if mod.lister == nil {
		if err := mod.startLister(); err != nil {
			return err
		}
	}
	answer, _, err := mod.lister.call(m.ctx, m.limits.slots, wire.Request{Op: wire.Slots}, nil)
	if err != nil {
		return err
	}
	fresh := map[place]*entry{}
	unread := false
	for i, at := range places(answer.Slots) {
		info := &answer.Slots[i]
		switch {
		case info.Unread != nil || !info.Present:
		case !hasToken(*info) && mod.holdsCard(at): // half-read, while its file was written to
			info.Unread = &wire.Fault{Kind: wire.Protocol, Text: "the token says that nobody has initialised it"}
		case hasToken(*info) && !mod.known(at, *info, again):
			if fresh[at], err = mod.readToken(at, info, again); err != nil {
				return err
			}
			unread = unread || fresh[at] == nil // gone again, or so it seems: look soon
		}
		if info.Unread != nil {
			m.config.Log.Debug("a token cannot be read just now", "module", mod.path, "reader", at.reader, "error", info.Unread)
			unread = true
		}
	}
	mod.noteUnread(unread)
	mod.update(answer.Slots, fresh)
	return nil
}

// toIgnore returns the readers that a lister must leave alone, since a signer
// works with the card in them, and whether an older lister is of no use any more.
func (mod *module) toIgnore() (readers []string, stale bool) {
	m := mod.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	stale, mod.stale = mod.stale, false
	for _, other := range m.modules {
		for _, s := range other.slots {
			if s.entry == nil || s.entry.signer == nil && s.entry.starting == nil {
				continue
			}
			if r, ok := m.readerOf(s.reader); ok && !slices.Contains(readers, r.Name) {
				readers = append(readers, r.Name)
			}
		}
	}
	return readers, stale
}

// unreadLooks is how many looks in a row, each by a new lister, may fail to
// read a token before its card counts as gone.
const unreadLooks = 5

// noteUnread ends a lister that could not read a token. SoftHSM's answers
// CKR_GENERAL_ERROR for ever once another process, our signer, wrote to the
// token while it looked; a new one reads it well.
func (mod *module) noteUnread(unread bool) {
	if !unread {
		mod.unread = 0
		return
	}
	mod.unread++
	mod.stopLister()
}

// startLister starts a child and loads the module in it.
func (mod *module) startLister() error {
	m := mod.manager
	if _, err := os.Stat(mod.path); err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	lister, err := m.start(wire.Module, false)
	if err != nil {
		return err
	}
	mod.lister = lister
	request, configuration := m.loadRequest(mod.path, openscLister, mod.ignored)
	answer, _, err := lister.call(m.ctx, m.limits.load, request, configuration)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mod.info.Description = answer.Description
	return nil
}

// hasToken says whether there is a card that can be used; SoftHSM always has a
// slot with a token that nobody has initialised.
func hasToken(info wire.SlotInfo) bool {
	return info.Present && info.Token.Flags&(flagTokenInitialized|flagPINInitialized) != 0
}

// known says whether the card in the slot needs no reading.
func (mod *module) known(at place, info wire.SlotInfo, again bool) bool {
	m := mod.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	s := mod.slot(at)
	if s == nil || s.entry == nil || s.entry.card.ID != cardID(mod.path, at, info.Token) {
		return false
	}
	return !again || s.entry.signer != nil
}

// holdsCard says whether a card is known in the slot.
func (mod *module) holdsCard(at place) bool {
	mod.manager.mu.Lock()
	defer mod.manager.mu.Unlock()
	s := mod.slot(at)
	return s != nil && s.entry != nil
}

// slot returns the slot at a place, or nil; Manager.mu must be held.
func (mod *module) slot(at place) *slot {
	for _, s := range mod.slots {
		if s.place == at {
			return s
		}
	}
	return nil
}

// slotOf returns the slot that holds e, or nil; Manager.mu must be held.
func (mod *module) slotOf(e *entry) *slot {
	for _, s := range mod.slots {
		if s.entry == e {
			return s
		}
	}
	return nil
}

// readToken reads a card that is new, all of it again or only as far as it is not
// remembered. It returns nil and notes in info what is wrong if the card is gone
// again or cannot be read.
func (mod *module) readToken(at place, info *wire.SlotInfo, again bool) (*entry, error) {
	m := mod.manager
	key := tokenKey(mod.path, info.Token)
	light := !again && m.memory.knows(key)
	answer, _, err := mod.lister.call(m.ctx, m.limits.token, wire.Request{Op: wire.Token, Slot: info.ID, Light: light}, nil)
	if err == nil && light && !m.memory.complete(key, answer.Token) {
		m.memory.forget(key)
		return mod.readToken(at, info, true)
	}
	if answer.Fault != nil {
		if errors.Is(failure("read the card", answer.Fault), ErrRemoved) {
			info.Present = false
		} else {
			info.Unread = answer.Fault
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	token := *answer.Token
	if !light {
		m.memory.keep(key, token)
	}
	e := &entry{module: mod, place: at, key: key, turn: make(chan struct{}, 1), card: Card{
		ID: cardID(mod.path, at, token), Label: token.Label, Serial: token.Serial,
		Manufacturer: token.Manufacturer, Model: token.Model,
		Certificates: readCertificates(token.Certificates, token.Mechanisms, time.Now()),
	}}
	m.pins.noteInserted(e.card.Certificates)
	m.setToken(e, token) // nobody else has the entry yet
	return e, nil
}

// update makes the slots what the module says, with the new cards in fresh.
func (mod *module) update(infos []wire.SlotInfo, fresh map[place]*entry) {
	m := mod.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	before := mod.slots
	mod.looked = mod.looking
	mod.slots = nil
	for i, at := range places(infos) {
		s := &slot{place: at}
		if j := slices.IndexFunc(before, func(old *slot) bool { return old.place == at }); j >= 0 {
			s = before[j]
			before = slices.Delete(slices.Clone(before), j, j+1)
		}
		mod.slots = append(mod.slots, s)
		mod.updateCard(s, infos[i], fresh[at])
	}
	for _, s := range before {
		switch {
		case mod.wasIgnored(s): // it has nothing to say about this one
			mod.slots = append(mod.slots, s)
		case s.entry != nil:
			m.forget(s, s.entry, ErrRemoved)
		}
	}
	news := mod.setError(mod.unreadable(infos))
	slices.SortStableFunc(mod.slots, func(a, b *slot) int { return cmp.Compare(a.reader, b.reader) })
	mod.publishError(news)
}

// wasIgnored says whether the lister was to leave a slot's reader alone.
func (mod *module) wasIgnored(s *slot) bool {
	return slices.ContainsFunc(mod.ignored, func(reader string) bool { return isReader(reader, s.reader) })
}

// updateCard makes s hold the card that info tells of; Manager.mu must be held.
func (mod *module) updateCard(s *slot, info wire.SlotInfo, fresh *entry) {
	m := mod.manager
	if info.Unread != nil {
		if e := s.entry; e == nil || e.signer != nil || e.starting != nil || mod.unread < unreadLooks {
			return // the next look will tell; an unlocked card is watched by its signer
		}
		info.Present = false
	}
	if e := s.entry; e != nil {
		id := cardID(mod.path, s.place, info.Token)
		if fresh != nil {
			id = fresh.card.ID // read after info
		}
		gone := !hasToken(info) || e.card.ID != id
		changed := fresh != nil && e.signer == nil && !sameCertificates(fresh.card.Certificates, e.card.Certificates)
		if gone || changed {
			m.forget(s, e, ErrRemoved)
		}
	}
	switch {
	case s.entry != nil:
		m.setToken(s.entry, info.Token)
	case fresh != nil:
		s.entry = fresh
		if m.unconfirmed(s.reader) {
			fresh.card.State, fresh.owed = LockNotConfirmed, true
		}
		m.newEpoch(fresh)
		m.publish()
		m.emit(Event{Kind: Inserted, Card: fresh.card.ID, Epoch: fresh.card.Epoch})
	}
}

func sameCertificates(a, b []Certificate) bool {
	return slices.EqualFunc(a, b, func(a, b Certificate) bool { return a.Fingerprint == b.Fingerprint })
}

// forget takes a card out of its slot and kills what could sign with it; mu
// must be held. It is for what a module says, and a module may be wrong about a
// card that has kept its power, and with it its verified PIN: unless PC/SC
// agrees that the card is gone, it is reset.
func (m *Manager) forget(s *slot, e *entry, why error) {
	ended := m.drop(s, e, why)
	if reader, ok := m.resettable(e.reader); ok && e.owed {
		m.resetAfter(ended, reader, e.card.ID)
	}
}

// drop takes a card that is gone out of its slot, kills what could sign with it
// and returns that; mu must be held.
func (m *Manager) drop(s *slot, e *entry, why error) (ended []*process) {
	s.entry = nil
	e.gone = why
	m.newEpoch(e)
	if e.starting != nil {
		e.starting.end(why)
		ended = append(ended, e.starting)
	}
	if e.signer != nil {
		e.signer.process.end(why)
		ended = append(ended, e.signer.process)
		m.locks.Add(1)
		e.signer = nil
	}
	m.publish()
	m.emit(Event{Kind: Removed, Card: e.card.ID, Reason: why.Error(), Epoch: e.card.Epoch})
	return ended
}
