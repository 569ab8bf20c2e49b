package card

import (
	"errors"
	"slices"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// Why PC/SC readers are not watched, for errors.Is on [Snapshot.NoPCSC].
var (
	ErrNoPCSC         = errors.New("this machine has no PC/SC library")
	ErrNoService      = errors.New("the smart card service does not run")
	ErrServiceRefused = errors.New("the smart card service refuses this user")
)

// PCSCReader is a reader as PC/SC sees it, without any module.
type PCSCReader struct {
	Name      string
	Present   bool // a card is in it
	Mute      bool // the card does not answer
	Exclusive bool // another program has the card to itself
	ATR       []byte
}

// Unrecognized is a reader with a card that no module shows.
type Unrecognized struct {
	Reader    string
	ATR       []byte // for KindOf; empty when the card is mute
	Mute      bool   // the card does not answer: is it the right way round?
	Exclusive bool   // another program has the card to itself
}

// showReaders adds to a snapshot what PC/SC knows and no module shows; mu must
// be held.
func (m *Manager) showReaders(s *Snapshot) {
	s.NoPCSC = noPCSC(m.pcsc)
	for _, r := range m.readers {
		s.PCSCReaders = append(s.PCSCReaders, PCSCReader{Name: r.Name, Present: r.Present, Mute: r.Mute, Exclusive: r.Exclusive, ATR: r.ATR})
		if r.Present && m.unrecognized(r) {
			s.Unrecognized = append(s.Unrecognized, Unrecognized{Reader: r.Name, ATR: r.ATR, Mute: r.Mute, Exclusive: r.Exclusive})
		}
	}
}

// unrecognized says whether every module has looked at the card in a reader and
// none shows it; mu must be held.
func (m *Manager) unrecognized(r wire.Reader) bool {
	for _, mod := range m.modules {
		looked := slices.ContainsFunc(mod.looked, func(was wire.Reader) bool { return sameCard(was, r) })
		shown := slices.ContainsFunc(mod.slots, func(s *slot) bool { return s.entry != nil && isReader(r.Name, s.reader) })
		if shown || !looked {
			return false
		}
	}
	return true
}

// strangeLooks is how often a card that no module shows is looked at again: the
// first reading may have failed, or PC/SC have missed that it took another's
// place, and OpenSC says the same of both as of a card that it does not know.
const strangeLooks = 5

// anyUnrecognized says whether a card that answers lies in a reader and no module
// shows it; mu must be held.
func (m *Manager) anyUnrecognized() bool {
	return slices.ContainsFunc(m.readers, func(r wire.Reader) bool {
		return r.Present && !r.Mute && !r.Exclusive && m.unrecognized(r)
	})
}

// readersTime is how long a module's first look waits for PC/SC.
const readersTime = 2 * time.Second

// awaitReaders waits for PC/SC's first answer, so that the first look tells of
// its cards which of them the module does not know; the look covers that answer
// too.
func (mod *module) awaitReaders() {
	timer := time.NewTimer(readersTime)
	defer timer.Stop()
	select {
	case <-mod.manager.readersFirst:
		mod.manager.mu.Lock() // held until the modules have been told of the readers
		defer mod.manager.mu.Unlock()
		select {
		case <-mod.kick:
		default:
		}
	case <-timer.C:
	case <-mod.manager.ctx.Done():
	}
}

// noteLook keeps which cards the module is going to see, at the least.
func (mod *module) noteLook() {
	mod.manager.mu.Lock()
	defer mod.manager.mu.Unlock()
	mod.looking = mod.manager.readers
}

// noPCSC tells which of the known reasons err is, nil if it is none.
func noPCSC(err error) error {
	var fault *wire.Fault
	if !errors.As(err, &fault) {
		return nil
	}
	switch fault.Kind {
	case wire.NoPCSC:
		return ErrNoPCSC
	case wire.NoService:
		return ErrNoService
	case wire.Refused:
		return ErrServiceRefused
	}
	return nil
}
