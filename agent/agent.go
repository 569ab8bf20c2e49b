// Package agent is the desktop agent: it puts together the cards, the mutual-TLS
// client, the local proxy, the prompts and the control API, and decides who may
// use a card for what. It never loads a PKCS#11 module (package card's children
// do), never draws a window, and never writes kortti.toml.
//
//	func main() {
//		card.RunIfChild()
//		cfg, err := config.Load("")
//		a, err := agent.New(agent.Options{Config: cfg, Version: version})
//		err = a.Run(ctx) // until ctx ends
//	}
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/proxy"
	"github.com/kortti-id/kortti/agent/roots"
	"github.com/kortti-id/kortti/agent/screen"
	"github.com/kortti-id/kortti/agent/systemd"
	"github.com/kortti-id/kortti/agent/upstream"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// endTime is how long the control API's calls may go on when the agent ends.
const endTime = 3 * time.Second

// Options say what an agent runs with.
type Options struct {
	Config *config.Config
	// StateDir holds roots, consents, choices, profiles and the audit file; "" means
	// config.DefaultState.
	StateDir string
	// Home is below which the browsers' trust stores are looked for; "" means the
	// user's home folder.
	Home    string
	Version string
	// Buses are where the screen's lock and the machine's sleep are watched; zero
	// means the usual places.
	Buses screen.Buses
	// Sockets are those that systemd has opened for the agent; New takes them
	// over. Each must be one that Config names. What is not among them, the
	// agent opens.
	Sockets []systemd.Socket
	// Service is told of the agent's state; nil tells nobody.
	Service *systemd.Notifier
	// Log takes what happens, without secrets and names; nil discards it.
	Log *slog.Logger
}

// cards is what the agent needs of *card.Manager.
type cards interface {
	Wait(ctx context.Context) error
	Snapshot() card.Snapshot
	Subscribe() (<-chan card.Event, func())
	Unlock(ctx context.Context, f card.Fingerprint, pin *card.PIN, opts card.UnlockOptions) error
	ChangePIN(ctx context.Context, f card.Fingerprint, old, new *card.PIN, opts card.UnlockOptions) error
	UnblockPIN(ctx context.Context, f card.Fingerprint, puk, new *card.PIN, opts card.UnlockOptions) error
	Lock(card, reason string) error
	SetIdleLock(after time.Duration)
	Counters() card.Counters
	Close() error
}

// Agent is a running agent. Make it with New, then call Run once.
type Agent struct {
	options Options
	log     *slog.Logger
	started time.Time
	socket  string

	// changing is held while hosts or settings change.
	changing sync.Mutex
	config   atomic.Pointer[config.Config] // what the agent runs with

	cards     cards
	hosts     *config.Hosts
	desk      *prompt.Desk
	consents  *consent.Store
	choices   *choices
	profiles  *profiles
	audit     *audit.File
	roots     *roots.Store
	transport *tlsclient.Transport
	proxy     *proxy.Proxy
	way       *upstream.Dialer
	events    *hub
	screen    *screen.Watcher

	proxyListener   net.Listener
	fixedListeners  []net.Listener // as in the configuration's Listeners
	controlListener net.Listener
	counts          counts
	known           identities
	holds           holds

	closeOnce sync.Once
	closers   []func() // run by Close, the last first
}

// New opens everything that the agent needs: sockets, files, the card manager.
// What cannot be opened is an error that says what to do. The sockets take
// connections when it returns; Run answers them.
func New(o Options) (*Agent, error) {
	return assemble(o, func(c card.Config) (cards, tlsclient.Source, error) {
		m, err := card.NewManager(c)
		if err != nil {
			return nil, nil, err
		}
		return m, tlsclient.FromCards(m), nil
	})
}

// assemble is New with the cards' maker as a parameter, for tests.
func assemble(o Options, open func(card.Config) (cards, tlsclient.Source, error)) (_ *Agent, err error) {
	a := &Agent{options: o, log: o.Log, started: time.Now(), hosts: o.Config.Hosts, events: newHub(), counts: newCounts()}
	a.config.Store(o.Config)
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if err := a.listen(); err != nil {
		return nil, err
	}
	if err := a.openState(); err != nil {
		return nil, err
	}
	cfg := o.Config.Card
	var source tlsclient.Source
	a.cards, source, err = open(card.Config{Modules: cfg.Modules, IdleLock: cfg.IdleLock, Log: a.log})
	if err != nil {
		return nil, fmt.Errorf("start reading cards: %w", err)
	}
	a.onClose(func() {
		if err := a.cards.Close(); err != nil {
			a.log.Error("lock the cards", "error", err)
		}
	})
	a.desk = prompt.NewDesk(a.tellPrompt)
	a.screen = screen.New(screen.Config{Buses: o.Buses, Lock: a.away, Log: a.log})
	a.way, err = upstream.New(upstream.Config{Setting: o.Config.Proxy.Upstream, Own: a.own(), Direct: a.isHostAddress})
	if err != nil {
		return nil, fmt.Errorf("%s: [proxy] upstream: %w", o.Config.File, err)
	}
	a.transport = tlsclient.New(tlsclient.Config{
		Source: recorder{source, a}, Permit: a.permit, Unlock: a.unlock, Choose: a.choose,
		HostSettings: a.hostSettings, Profiles: a.profiles, Distrusted: roots.IsLocal, Log: a.log,
		DialContext: a.way.DialContext,
	})
	a.onClose(a.transport.Close)
	a.onClose(a.holds.wait)
	a.onClose(a.desk.Close) // before the transport waits for those who wait for prompts
	a.proxy, err = proxy.New(proxy.Config{
		Listen: o.Config.Proxy.Listen, Hosts: a.hosts, Transport: a, Roots: a.roots,
		Peer: peer.NewFinder().Lookup, Admit: a.admit, Explain: a.explainProxied, Upstream: a.way, Others: a.own()[1:], Log: a.log,
	})
	return a, err
}

func (a *Agent) openState() (err error) {
	dir := a.options.StateDir
	if dir == "" {
		if dir, err = config.DefaultState(); err != nil {
			return err
		}
		a.options.StateDir = dir
	}
	if err := a.lockState(dir); err != nil {
		return err
	}
	if a.audit, err = audit.Open(filepath.Join(dir, "audit.jsonl"), a.log); err != nil {
		return err
	}
	a.onClose(func() { a.audit.Close() })
	if a.consents, err = consent.Open(filepath.Join(dir, "consents.json")); err != nil {
		return err
	}
	if a.choices, err = openChoices(filepath.Join(dir, "choices.json")); err != nil {
		return err
	}
	if a.profiles, err = openProfiles(filepath.Join(dir, "profiles.json")); err != nil {
		return err
	}
	a.roots, err = roots.Open(filepath.Join(dir, "roots"), func(root *roots.Root, renewed bool) {
		a.log.Info("made a local root", "host", root.Host, "renewed", renewed)
		a.events.publish(control.Event{Kind: control.EventHost, Host: root.Host, Reason: "root made"})
	})
	return err
}

// lockState keeps other agents, with other sockets, from writing the same files.
func (a *Agent) lockState(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := takeLock(filepath.Join(dir, "lock"), func(who string) error {
		return fmt.Errorf("an agent is already running%s that keeps its files in %s; stop it first, or set another XDG_STATE_HOME", who, dir)
	})
	if err != nil {
		return fmt.Errorf("the agent's files: %w", err)
	}
	a.onClose(func() { lock.Close() })
	return nil
}

// own are the addresses of our listeners, the proxy's first.
func (a *Agent) own() []netip.AddrPort {
	var own []netip.AddrPort
	for _, l := range append([]net.Listener{a.proxyListener}, a.fixedListeners...) {
		own = append(own, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return own
}

// isHostAddress tells what the settings of a listed host say to connect to: its
// DNS name is the upstream proxy's business, that address is not.
func (a *Agent) isHostAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	return err == nil && slices.ContainsFunc(a.hosts.List(), func(h config.Host) bool {
		return h.Address != "" && h.Dial(host, port) == address
	})
}

// Proxy is the address that the proxy listens on, host:port.
func (a *Agent) Proxy() string { return a.proxyListener.Addr().String() }

// Socket is the path of the control socket.
func (a *Agent) Socket() string { return a.socket }

// Run serves until ctx ends, and then returns nil, or until a part fails. All
// cards are locked, all sockets closed and all goroutines ended when it returns.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	all := []func(context.Context) error{a.watch, a.watchScreen, a.serveProxy, a.serveControl}
	for i, l := range a.fixedListeners {
		to := a.options.Config.Listeners[i]
		all = append(all, func(ctx context.Context) error { return a.proxy.ServeFixed(ctx, l, to.Host, to.Port) })
	}
	failed := make(chan error, len(all))
	for _, part := range all {
		parts.Go(func() {
			err := part(ctx)
			if err != nil {
				failed <- err
			}
			cancel(err) // the parts live and end together
		})
	}
	a.tellService(func(s *systemd.Notifier) error { return s.Ready("The proxy is at " + a.Proxy() + ".") })
	<-ctx.Done()
	a.tellService((*systemd.Notifier).Stopping)
	a.desk.Close() // requests that wait for a person wait no longer
	parts.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (a *Agent) serveProxy(ctx context.Context) error { return a.proxy.Serve(ctx, a.proxyListener) }

func (a *Agent) serveControl(ctx context.Context) error {
	// Streams end by the base context; other calls get endTime to finish.
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		a.events.close()
		limit, cancel := context.WithTimeout(base, endTime)
		defer cancel()
		if server.Shutdown(limit) != nil {
			end()
			server.Close()
		}
	})
	err := server.Serve(a.controlListener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the control socket: %w", err)
}

// tellService tells systemd something; that it cannot be told stops nothing.
func (a *Agent) tellService(tell func(*systemd.Notifier) error) {
	if err := tell(a.options.Service); err != nil {
		a.log.Warn("systemd does not know how the agent is", "error", err)
	}
}

// Close ends an agent that was never Run, and is harmless after Run.
func (a *Agent) Close() {
	a.closeOnce.Do(func() {
		for i := len(a.closers) - 1; i >= 0; i-- {
			a.closers[i]()
		}
	})
}

func (a *Agent) onClose(f func()) { a.closers = append(a.closers, f) }
