package load

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
	"github.com/kortti-id/kortti/tlsclient"
)

// programs is how many programs there are; connections is how many of their
// connections to the proxy are open at once before the first card is pulled.
// Those that go away all the time come on top.
const (
	programs    = 2400
	connections = 2000
)

// duration is how long the load lasts after all programs have come;
// KORTTI_LOAD in the environment takes its place.
func duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("KORTTI_LOAD")
	if text == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(text)
	check(t, err)
	return d
}

// world is an agent with two cards, the hosts, and the programs' tally.
type world struct {
	agent        *process
	sites        *sites
	anna, bertta *softhsm.Card
	ids          map[*softhsm.Card]string // certificates, SHA-256
	roots        *x509.CertPool
	tally        *tally
	conns        sync.Map     // *counted: open connections of programs
	open         atomic.Int64 // how many those are
	highest      atomic.Int64
	front        *frontEnd
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	pki, err := fineidtest.New(fineidtest.Options{ECOnly: true, BaseURL: "http://127.0.0.1:1"})
	check(t, err)
	w := &world{ids: make(map[*softhsm.Card]string), tally: &tally{counts: make(map[[3]string]int), notes: make(map[string]int)}}
	w.anna = w.newCard(t, pki, filepath.Join(dir, "anna"), "ANNA")
	w.bertta = w.newCard(t, pki, filepath.Join(dir, "bertta"), "BERTTA")
	w.sites = startSites(t, pki, w.ids[w.anna], w.ids[w.bertta])
	check(t, os.WriteFile(filepath.Join(dir, "site.pem"), pki.WebRootsPEM(), 0o600))
	w.agent = startAgent(t, dir, w.config(t))
	w.roots = x509.NewCertPool()
	w.roots.AddCert(w.sites.open.Certificate())
	for host := range w.addresses(t) {
		trust, err := w.agent.Trust(within(t), host)
		check(t, err)
		w.roots.AppendCertsFromPEM([]byte(trust.PEM))
	}
	w.front = w.startFrontEnd(t)
	waitFor(t, "both cards", func() bool { return len(w.states(t)) == 2 })
	return w
}

func (w *world) newCard(t *testing.T, pki *fineidtest.PKI, dir, name string) *softhsm.Card {
	t.Helper()
	c, err := softhsm.Create(dir, softhsm.Spec{Label: name})
	check(t, err)
	id := []byte{softhsm.AuthenticationID}
	public, err := c.PublicKey(id)
	check(t, err)
	issued, err := pki.Issue(pki.CitizenEC, fineidtest.Leaf{PublicKey: public, GivenName: name, Surname: "TESTINEN"})
	check(t, err)
	check(t, c.ImportCertificate(id, "todentamisvarmenne", issued.Certificate.Raw))
	check(t, c.ImportCertificate([]byte{0x47}, "CA", pki.CitizenEC.Certificate.Raw))
	check(t, c.ResetCounts())
	sum := sha256.Sum256(issued.Certificate.Raw)
	w.ids[c] = hex.EncodeToString(sum[:])
	return c
}

// addresses says where each listed host is.
func (w *world) addresses(t *testing.T) map[string]string {
	t.Helper()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, closed.Close())
	s := w.sites
	at := func(l net.Listener) string { return l.Addr().String() }
	return map[string]string{
		annaH2: at(s.h2.Listener), berttaH2: at(s.h2.Listener), failH2: at(s.h2.Listener), stranger: at(s.h2.Listener),
		anna12: at(s.tls12.Listener), berttaH1: at(s.h1.Listener), failH1: at(s.h1.Listener),
		reset: at(s.reset), silent: at(s.silent), refused: at(closed),
	}
}

func (w *world) config(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "[card]\nmodules = [%q, %q]\nidle_lock = \"0s\"\n", w.anna.Module(), w.bertta.Module())
	for host, address := range w.addresses(t) {
		belongs, consent := w.sites.belongs[host], "always"
		if belongs == "" {
			belongs = w.ids[w.bertta]
		}
		if host == berttaH1 {
			consent = "ask"
		}
		fmt.Fprintf(&b, "[[host]]\nname = %q\naddress = %q\ntls_roots = \"site.pem\"\ncard = %q\nconsent = %q\n", host, address, belongs, consent)
	}
	return b.String()
}

// states are those of the inserted cards, by their labels.
func (w *world) states(t *testing.T) map[string]control.State {
	t.Helper()
	status, err := w.agent.Status(within(t))
	check(t, err)
	states := make(map[string]control.State)
	for _, c := range status.Cards {
		states[c.Label] = c.State
	}
	return states
}

// dial counts the connections of programs.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	for n := w.open.Add(1); ; {
		if h := w.highest.Load(); n <= h || w.highest.CompareAndSwap(h, n) {
			break
		}
	}
	one := &counted{Conn: c, w: w}
	w.conns.Store(one, nil)
	return one, nil
}

// counted is a connection of a program.
type counted struct {
	net.Conn
	w    *world
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() {
		c.w.open.Add(-1)
		c.w.conns.Delete(c)
	})
	return c.Conn.Close()
}

// quit closes what the programs' transports have kept.
func (w *world) quit() {
	w.conns.Range(func(c, _ any) bool {
		c.(*counted).Close()
		return true
	})
}

// frontEnd is a person who answers every prompt at once, with the right PIN.
type frontEnd struct {
	end     func()
	answers sync.WaitGroup
	pins    atomic.Int64 // entered and taken
	refused atomic.Int64
}

func (w *world) startFrontEnd(t *testing.T) *frontEnd {
	t.Helper()
	f := &frontEnd{}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := w.agent.Events(ctx, true)
	check(t, err)
	f.end = sync.OnceFunc(func() {
		cancel()
		f.answers.Wait()
		stream.Close()
	})
	t.Cleanup(f.end)
	f.answers.Go(func() {
		for {
			ev, err := stream.Next()
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the event stream ended: %v", err)
				}
				return
			}
			if ev.Kind == control.EventPrompt && !ev.Prompt.Leased {
				f.answers.Go(func() { f.answer(ctx, t, w.agent.Client, *ev.Prompt) })
			}
		}
	})
	return f
}

func (f *frontEnd) answer(ctx context.Context, t *testing.T, c *control.Client, p control.Prompt) {
	lease, err := c.Lease(ctx, p.ID)
	if err != nil {
		return // closed meanwhile: the card is gone
	}
	yes := true
	a := control.Answer{LeaseToken: lease, Allow: &yes, Remember: true}
	if p.Kind == control.PromptPIN {
		a = control.Answer{LeaseToken: lease, PIN: control.Secret("1234")}
	}
	_, err = c.Answer(ctx, p.ID, a)
	var e *control.Error
	switch {
	case err == nil && p.Kind == control.PromptPIN:
		f.pins.Add(1)
	case errors.As(err, &e) && slices.Contains([]string{control.CodePINWrong, control.CodePINRepeated, control.CodePINFinalTry, control.CodePINLocked}, e.Code):
		t.Errorf("the right PIN was answered with %v", err)
	case err != nil:
		f.refused.Add(1)
	}
}

// TestLoad is the whole: see the package's comment.
func TestLoad(t *testing.T) {
	w := newWorld(t)
	before := w.rest(t)
	over := make(chan struct{})
	var running sync.WaitGroup
	w.come(t, &running, over)
	waitFor(t, fmt.Sprint(connections, " connections at once"), func() bool { return w.highest.Load() >= connections })
	cycles := w.disturb(t, duration(t))
	close(over)
	ended := make(chan struct{})
	go func() { running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(stuckAfter + patience):
		t.Fatalf("programs do not end\n%s", w.agent.stacks(t))
	}
	w.judge(t, cycles)
	w.quit()

	w.sites.close()
	check(t, w.agent.Lock(within(t), control.CardSelection{}))
	w.agent.Close()
	var now held
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if now = w.agent.holdings(t); !now.exceeds(before) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent holds %+v, before the load %+v\n%s", now, before, w.agent.stacks(t))
		}
	}
	t.Logf("before %+v, after %+v", before, now)
}

// come starts the programs, some at a time: those that are there go on meanwhile.
func (w *world) come(t *testing.T, running *sync.WaitGroup, over <-chan struct{}) {
	t.Helper()
	const atOnce = 100
	var begun atomic.Int64
	all := kinds()
	for i, n := 0, 0; n < programs; i++ {
		for range all[i%len(all)].share {
			p := newProgram(w, n, all[i%len(all)])
			running.Go(func() { p.run(over, func() { begun.Add(1) }) })
			n++
		}
		waitFor(t, "the programs before", func() bool { return n-int(begun.Load()) < atOnce })
	}
}

// rest uses every host once, locks the cards again and says what the agent holds
// when nothing goes on any more.
func (w *world) rest(t *testing.T) held {
	t.Helper()
	for i, k := range kinds() {
		p := newProgram(w, -1-i, k)
		for _, host := range k.hosts {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if result := k.turn(p, ctx, host); result != done && result != left {
				t.Errorf("%s at %s: %s; %v", k.name, host, result, w.tally.notes)
			}
			cancel()
		}
		p.web.CloseIdleConnections()
	}
	w.quit()
	check(t, w.agent.Lock(within(t), control.CardSelection{}))
	w.sites.plain.CloseClientConnections()
	w.sites.open.CloseClientConnections()
	w.agent.Close()
	var last held
	steady := 0
	waitFor(t, "the agent to be at rest", func() bool {
		now := w.agent.holdings(t)
		if now.exceeds(last) || last.exceeds(now) {
			last, steady = now, 0
		}
		steady++
		return steady == 30
	})
	return last
}

// disturb pulls and locks Anna's card in turn, each at least once, and waits each
// time until she is served again. It returns how often her card was unlocked.
func (w *world) disturb(t *testing.T, d time.Duration) (cycles int) {
	t.Helper()
	served := func(pins int64) { // after the card has been unlocked so often
		waitFor(t, "Anna's PIN", func() bool { return w.front.pins.Load() > pins })
		turns := w.annasTurns()
		waitFor(t, "Anna to be served", func() bool { return w.annasTurns() > turns })
	}
	for end := time.Now().Add(d); time.Now().Before(end) || cycles < 2; cycles++ {
		pins := w.front.pins.Load()
		if cycles%2 == 0 {
			check(t, w.anna.Pull())
			waitFor(t, "the removal", func() bool { _, there := w.states(t)["ANNA"]; return !there })
			check(t, w.anna.Insert())
		} else {
			cards, err := w.agent.Cards(within(t))
			check(t, err)
			for _, r := range cards.Readers {
				if r.Card != nil && r.Card.Label == "ANNA" {
					check(t, w.agent.Lock(within(t), control.CardSelection{Card: r.Card.ID}))
				}
			}
		}
		served(pins)
	}
	return cycles
}

func (w *world) annasTurns() int {
	return w.tally.count(func(_, host, result string) bool { return (host == annaH2 || host == anna12) && result == done })
}

// withoutCard are the codes of requests that came while Anna's card was out or locked.
var withoutCard = []string{control.CodeCardRemoved, control.CodeLocked, control.CodeNoCard, "no-certificate", "timeout", cut}

// judge looks at what the programs and the hosts have seen.
func (w *world) judge(t *testing.T, cycles int) {
	t.Helper()
	if n := w.sites.wrong.Load(); n != 0 {
		t.Errorf("%d requests came with another certificate than the host's card has", n)
	}
	for _, key := range slices.SortedFunc(maps.Keys(w.tally.counts), func(a, b [3]string) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		host, result := key[1], key[2]
		annas := host == annaH2 || host == anna12
		if result != done && result != left && !(annas && slices.Contains(withoutCard, result)) {
			t.Errorf("%s at %s: %d times %s", key[0], host, w.tally.counts[key], result)
		}
	}
	// Under this load a host may stall, so that it gets further connections.
	for _, host := range listed {
		lives := 2 // of Bertta's card: before and during the load
		if host == annaH2 || host == anna12 {
			lives += cycles
		}
		for _, protocol := range []string{"h2", "http/1.1", ""} {
			if n := w.sites.handshakes(host, protocol); n > lives*tlsclient.TicketlessConns {
				t.Errorf("%s: %d full handshakes over %q in %d lives of the card", host, n, protocol, lives)
			}
		}
	}
	if t.Failed() {
		for _, note := range slices.Sorted(maps.Keys(w.tally.notes)) {
			t.Log(w.tally.notes[note], note)
		}
		t.Log(w.agent.log.String())
	}
	turns := w.tally.count(func(string, string, string) bool { return true })
	status, err := w.agent.Status(within(t))
	check(t, err)
	t.Logf("%d turns, %d at listed hosts; at most %d connections at once; %d ends of the card; %d PINs; %d full handshakes, %d resumed, %d signatures avoided",
		turns, w.sites.requests.Load(), w.highest.Load(), cycles, w.front.pins.Load(),
		status.Counters.HandshakesFull, status.Counters.HandshakesResumed, status.Counters.SignaturesAvoided)
	if w.tally.count(func(_, _, result string) bool { return result == stuck }) > 0 {
		t.Logf("%s", w.agent.stacks(t))
	}
}
