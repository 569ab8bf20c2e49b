package card

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/card/internal/wire"
)

// limits are the time-outs of what children do.
type limits struct {
	load, slots, token, login, pad, sign, present time.Duration

	service time.Duration // between two looks for a PC/SC service that is missing
}

// defaultLimits leave room for slow readers: listing has been seen to take 30 s.
var defaultLimits = limits{
	load: 30 * time.Second, slots: 30 * time.Second, token: 60 * time.Second,
	login: 30 * time.Second, pad: 2 * time.Minute, sign: 30 * time.Second, present: 10 * time.Second,
	service: 2 * time.Second,
}

// Manager watches modules, readers and cards, and unlocks and locks cards. Its
// methods may be called concurrently.
type Manager struct {
	config Config
	limits limits
	pins   *pinMemory
	puks   *pinMemory
	memory *memory
	ctx    context.Context // ends at Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // the goroutines of modules and unlocked cards
	state  atomic.Pointer[Snapshot]

	signatures, logins, refused, kept, locks, children atomic.Uint64

	idleLock atomic.Int64 // a time.Duration

	readersFirst chan struct{} // closed when PC/SC has answered once
	readersOnce  sync.Once

	mu          sync.Mutex // guards all below, and the fields of modules and entries that say so
	modules     []*module
	readers     []wire.Reader   // PC/SC's
	pcsc        error           // why there are none
	readersSeen map[string]bool // the names of PC/SC's readers so far
	resets      map[*pendingReset]bool
	epoch       uint64
	closed      bool
	subscribers map[*subscriber]bool
}

// NewManager starts reading the modules that config names; [Manager.Wait] says
// when that has been done once. A module that cannot be used is no error here:
// the snapshot says what is wrong with it, and the others work.
func NewManager(config Config) (*Manager, error) {
	return newManager(config, defaultLimits)
}

func newManager(config Config, limits limits) (*Manager, error) {
	if config.Poll <= 0 {
		config.Poll = time.Second
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Executable == "" {
		path, err := ownExecutable()
		if err != nil {
			return nil, err
		}
		config.Executable = path
	}
	paths, err := modulePaths(config.Modules)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		config: config, limits: limits, pins: newPINMemory(roleUser), puks: newPINMemory(rolePUK), memory: newMemory(),
		readersSeen: map[string]bool{}, resets: map[*pendingReset]bool{}, subscribers: map[*subscriber]bool{},
		readersFirst: make(chan struct{}), pcsc: errNotAsked,
	}
	m.idleLock.Store(int64(config.IdleLock))
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	for _, path := range paths {
		m.modules = append(m.modules, newModule(m, path))
	}
	m.publish()
	for _, mod := range m.modules {
		m.wg.Go(mod.run)
	}
	m.wg.Go(m.watchReaders)
	return m, nil
}

// errNotAsked is the state of PC/SC before its first answer.
var errNotAsked = errors.New("PC/SC has not been asked yet")

// ownExecutable returns a path by which this program starts itself. On Linux it
// is one that an upgrade of the installed file does not change: manager and
// children must be of one version.
func ownExecutable() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file to start children for cards: %w", err)
	}
	return path, nil
}

// modulePaths resolves "auto" and drops repetitions.
func modulePaths(configured []string) ([]string, error) {
	if len(configured) == 0 {
		return nil, errors.New(`no PKCS#11 module is configured: give paths or "auto"`)
	}
	var paths []string
	seen := map[string]bool{}
	for _, name := range configured {
		found := []string{name}
		if name == "auto" {
			found = Discover()
		} else if !filepath.IsAbs(name) {
			return nil, fmt.Errorf(`PKCS#11 module %q: give its full path, or "auto"`, name)
		}
		for _, path := range found {
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				real = path // its module will say that it is missing
			}
			if !seen[real] {
				seen[real] = true
				paths = append(paths, path)
			}
		}
	}
	return paths, nil
}

// Close locks all cards, ends all children and returns when they are gone.
// Channels of subscribers are closed.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.wg.Wait()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	err := m.Lock("", "the program ends")
	m.cancel(ErrClosed)
	m.wg.Wait()
	m.mu.Lock()
	subscribers := m.subscribers
	m.subscribers = nil
	m.mu.Unlock()
	for s := range subscribers {
		s.close()
	}
	return err
}

// Snapshot returns what is known now. It never waits for a module.
func (m *Manager) Snapshot() Snapshot { return *m.state.Load() }

// Counters returns the counts since the start.
func (m *Manager) Counters() Counters {
	return Counters{
		Signatures: m.signatures.Load(), Logins: m.logins.Load(), LoginsRefused: m.refused.Load(),
		KeptFromCard: m.kept.Load(), Locks: m.locks.Load(), Children: m.children.Load(),
	}
}

// SetIdleLock changes Config.IdleLock for all cards, also for those that are
// unlocked: within a Poll they are measured by it.
func (m *Manager) SetIdleLock(after time.Duration) { m.idleLock.Store(int64(after)) }

// Wait returns when every module has been read once, well or not, and PC/SC has
// answered.
func (m *Manager) Wait(ctx context.Context) error {
	firsts := []<-chan struct{}{m.readersFirst}
	for _, mod := range m.modules {
		firsts = append(firsts, mod.first)
	}
	for _, first := range firsts {
		select {
		case <-first:
		case <-m.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Refresh reads every module again with fresh children and returns when that
// has been done. Unlocked cards stay unlocked.
func (m *Manager) Refresh(ctx context.Context) error {
	var waiting []chan struct{}
	for _, mod := range m.modules {
		done := make(chan struct{})
		select {
		case mod.refresh <- done:
			waiting = append(waiting, done)
		case <-m.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, done := range waiting {
		select {
		case <-done:
		case <-m.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// start starts a child and counts it.
func (m *Manager) start(role wire.Role, quiet bool) (*process, error) {
	p, err := startProcess(m.config.Executable, role, quiet, m.config.Log)
	if err == nil {
		m.children.Add(1)
	}
	return p, err
}

// entry is a card in a slot.
type entry struct {
	module *module
	place
	key  [sha256.Size]byte // what the memory knows it by
	card Card              // guarded by Manager.mu
	turn chan struct{}     // full while someone unlocks the card

	signer   *signer  // while unlocked; guarded by Manager.mu
	starting *process // the signer of an Unlock under way; guarded by Manager.mu
	locks    uint64   // calls of Lock so far, also those that found it locked; guarded by Manager.mu
	gone     error    // set when the card was removed; guarded by Manager.mu

	owed      bool // a PIN may be verified on the card: it is to be reset; guarded by Manager.mu
	resetting bool // a goroutine retries the reset; guarded by Manager.mu
}

// newEpoch raises the card's epoch; mu must be held.
func (m *Manager) newEpoch(e *entry) {
	m.epoch++
	e.card.Epoch = m.epoch
}

// setToken takes over what the token says of itself now; mu must be held.
func (m *Manager) setToken(e *entry, token wire.TokenInfo) {
	e.card.PIN = m.pinStateOf(e.card.Certificates, token)
}

// Flags of CK_TOKEN_INFO (PKCS#11 §3.2).
const (
	flagPINInitialized   = 0x8
	flagPINPad           = 0x100
	flagTokenInitialized = 0x400
	flagPINCountLow      = 0x10000
	flagPINFinalTry      = 0x20000
	flagPINLocked        = 0x40000
	flagPINToBeChanged   = 0x80000
	flagPUKFinalTry      = 0x200000 // CKF_SO_PIN_FINAL_TRY
	flagPUKLocked        = 0x400000 // CKF_SO_PIN_LOCKED
)

func pinState(t wire.TokenInfo) PINState {
	has := func(flag uint) bool { return t.Flags&flag != 0 }
	return PINState{
		Initialized: has(flagPINInitialized), PinPad: has(flagPINPad), CountLow: has(flagPINCountLow),
		FinalTry: has(flagPINFinalTry), Locked: has(flagPINLocked), ToBeChanged: has(flagPINToBeChanged),
		PUKFinalTry: has(flagPUKFinalTry), PUKLocked: has(flagPUKLocked),
		Min: int(t.MinPIN), Max: int(t.MaxPIN),
	}
}

// cardID names a card for as long as it stays in its slot.
func cardID(module string, at place, token wire.TokenInfo) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %q %q", module, at.reader, at.ordinal, token.Serial, token.Label))
	return hex.EncodeToString(sum[:8])
}

// publish builds the snapshot anew; mu must be held once the manager runs.
func (m *Manager) publish() {
	s := &Snapshot{Epoch: m.epoch}
	if m.pcsc != nil {
		s.PCSC = m.pcsc.Error()
	}
	if len(m.modules) == 0 {
		s.Modules = []ModuleInfo{{Path: "auto", Err: errNothingFound}}
	}
	taken := map[Fingerprint]string{}
	for _, mod := range m.modules {
		s.Modules = append(s.Modules, mod.info)
		for _, slot := range mod.slots {
			reader := Reader{Name: slot.reader, Module: mod.info.Path, Ordinal: slot.ordinal}
			if slot.entry != nil {
				card := slot.entry.card
				card.Certificates = withoutDoubles(card.Certificates, mod.info.Path, taken)
				reader.Card = &card
			}
			s.Readers = append(s.Readers, reader)
		}
	}
	m.showReaders(s)
	m.state.Store(s)
}

// errNothingFound is shown where "auto" stands for nothing.
var errNothingFound = &Error{
	Op: "find PKCS#11 modules", Err: fmt.Errorf("%w: there is none in the usual places", ErrModule),
	Hint: "Install the card issuer's program (for FINeID: Atostek ID from DVV, dvv.fi) or OpenSC, which must be 0.27 or newer for FINeID, or give the module's path in the configuration.",
}

// withoutDoubles offers a certificate that two slots show, as when two modules
// read one card, once only; taken says which module offers which.
func withoutDoubles(certs []Certificate, module string, taken map[Fingerprint]string) []Certificate {
	certs = slices.Clone(certs)
	for i := range certs {
		c := &certs[i]
		if other, ok := taken[c.Fingerprint]; ok && c.Login {
			c.Login, c.WhyNot = false, "the same card is used through "+other
		} else if c.Login {
			taken[c.Fingerprint] = module
		}
	}
	return certs
}
