package agent

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// counts are those that the agent makes itself, by label. Their labels are
// codes of ours, never names of hosts, programs or people.
type counts struct {
	mu             sync.Mutex // guards all below
	prompts        map[control.PromptKind]uint64
	upstreamErrors map[string]uint64 // by code
	reloads        map[string]uint64 // by result
}

func newCounts() counts {
	return counts{prompts: map[control.PromptKind]uint64{}, upstreamErrors: map[string]uint64{}, reloads: map[string]uint64{}}
}

func (c *counts) prompt(kind control.PromptKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prompts[kind]++
}

func (c *counts) upstreamError(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upstreamErrors[code]++
}

func (c *counts) reload(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.reloads["failed"]++
		return
	}
	c.reloads["done"]++
}

func (a *Agent) counters() control.Counters {
	t := a.transport.Counters()
	c := control.Counters{
		Signatures: a.cards.Counters().Signatures, SignaturesAvoided: t.SignaturesAvoided,
		Prompts: a.desk.Raised(), HandshakesFull: t.Handshakes.Full, HandshakesResumed: t.Handshakes.Resumed,
		Requests: t.Requests, Connections: t.Connections,
	}
	a.counts.mu.Lock()
	defer a.counts.mu.Unlock()
	for _, n := range a.counts.upstreamErrors {
		c.UpstreamErrors += n
	}
	return c
}

// writeMetrics answers in Prometheus' text format, version 0.0.4.
func (a *Agent) writeMetrics(w http.ResponseWriter, _ *http.Request) {
	var m metrics
	c, cards := a.counters(), a.cards.Counters()
	m.family("kortti_build_info", "gauge", "The program's version; always 1.")
	m.labelled(1, "version", a.options.Version, "go", runtime.Version())
	m.gauge("kortti_start_time_seconds", "When the agent started, in Unix time.", uint64(a.started.Unix()))
	m.counter("kortti_card_signatures_total", "Proofs signed by cards.", c.Signatures)
	m.counter("kortti_signatures_avoided_total", "Requests that needed no new signature.", c.SignaturesAvoided)
	m.counter("kortti_card_logins_total", "PINs given to cards.", cards.Logins)
	m.counter("kortti_card_logins_refused_total", "Of these, PINs that cards refused.", cards.LoginsRefused)
	m.counter("kortti_card_locks_total", "Ends of a card's unlocked state.", cards.Locks)
	m.counter("kortti_requests_total", "Requests sent to listed hosts.", c.Requests)
	m.gauge("kortti_connections", "Connections to listed hosts that are open.", uint64(c.Connections))
	m.family("kortti_upstream_handshakes_total", "counter", "TLS handshakes with hosts.")
	m.labelled(c.HandshakesFull, "kind", "full")
	m.labelled(c.HandshakesResumed, "kind", "resumed")

	a.counts.mu.Lock()
	m.family("kortti_upstream_errors_total", "counter", "Requests that failed at the host or on the way to it.")
	m.each("code", a.counts.upstreamErrors)
	m.family("kortti_prompts_total", "counter", "Prompts shown to the person.")
	for _, kind := range promptKinds {
		m.labelled(a.counts.prompts[kind], "kind", string(kind))
	}
	m.family("kortti_reloads_total", "counter", "Times that the configuration was read again.")
	for _, result := range []string{"done", "failed"} {
		m.labelled(a.counts.reloads[result], "result", result)
	}
	a.counts.mu.Unlock()

	m.gauge("kortti_prompts_open", "Prompts that wait for an answer.", uint64(len(a.desk.List())))
	m.gauge("kortti_hosts", "Listed hosts.", uint64(len(a.hosts.List())))
	readers := a.cards.Snapshot().Readers
	m.gauge("kortti_readers", "Card readers, as the modules show them.", uint64(len(readers)))
	states := map[card.State]uint64{}
	for _, r := range readers {
		if r.Card != nil {
			states[r.Card.State]++
		}
	}
	m.family("kortti_cards", "gauge", "Inserted cards.")
	for _, s := range []card.State{card.Locked, card.Unlocked, card.LockNotConfirmed} {
		m.labelled(states[s], "state", s.String())
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(m.Bytes())
}

var promptKinds = []control.PromptKind{
	control.PromptPIN, control.PromptPINChange, control.PromptPINUnblock, control.PromptConsent, control.PromptCertificate,
}

// metrics writes metrics, each family's samples after its head.
type metrics struct {
	bytes.Buffer
	name string
}

func (m *metrics) family(name, kind, help string) {
	m.name = name
	fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (m *metrics) counter(name, help string, value uint64) {
	m.family(name, "counter", help)
	m.labelled(value)
}

func (m *metrics) gauge(name, help string, value uint64) {
	m.family(name, "gauge", help)
	m.labelled(value)
}

// each writes a sample for every value of a label.
func (m *metrics) each(label string, values map[string]uint64) {
	for _, value := range slices.Sorted(maps.Keys(values)) {
		m.labelled(values[value], label, value)
	}
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labelled writes a sample with pairs of a label and its value.
func (m *metrics) labelled(value uint64, labels ...string) {
	m.WriteString(m.name)
	open := "{"
	for pair := range slices.Chunk(labels, 2) {
		fmt.Fprintf(m, `%s%s="%s"`, open, pair[0], labelEscapes.Replace(pair[1]))
		open = ","
	}
	if len(labels) > 0 {
		m.WriteString("}")
	}
	fmt.Fprintf(m, " %d\n", value)
}
