package server

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kortti-id/kortti/server/door"
	"github.com/kortti-id/kortti/server/revoke"
)

// counters counts decisions by event and code. Both are from fixed lists, so
// nobody outside can make it grow.
type counters struct {
	mu        sync.Mutex // guards decisions
	decisions map[[2]string]uint64

	handshakesRefused           atomic.Uint64 // connections that came too fast
	auditFailures               atomic.Uint64 // decisions that could not be put on record
	reloadsDone, reloadsRefused atomic.Uint64
}

func (c *counters) reloaded(err error) {
	if err != nil {
		c.reloadsRefused.Add(1)
		return
	}
	c.reloadsDone.Add(1)
}

func (c *counters) add(event, code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decisions == nil {
		c.decisions = make(map[[2]string]uint64)
	}
	c.decisions[[2]string{event, code}]++
}

func (c *counters) snapshot() map[[2]string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.decisions)
}

// adminHandler serves what is not for the public.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.writeMetrics(w)
	})
	mux.HandleFunc("GET "+door.HealthPath, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// writeMetrics writes the Prometheus text format.
func (s *Server) writeMetrics(w io.Writer) {
	fmt.Fprintln(w, "# HELP kortti_server_decisions_total Decisions about requests, by event and reason.")
	fmt.Fprintln(w, "# TYPE kortti_server_decisions_total counter")
	decisions := s.counters.snapshot()
	byName := func(a, b [2]string) int { return strings.Compare(a[0]+" "+a[1], b[0]+" "+b[1]) }
	for _, k := range slices.SortedFunc(maps.Keys(decisions), byName) {
		fmt.Fprintf(w, "kortti_server_decisions_total{event=%q,code=%q} %d\n", k[0], k[1], decisions[k])
	}
	fmt.Fprintln(w, "# HELP kortti_server_revocation_total Checks for revocation, by what came of them.")
	fmt.Fprintln(w, "# TYPE kortti_server_revocation_total counter")
	c := s.inForce.Load().revocation.Counters()
	for _, m := range []struct {
		result string
		n      uint64
	}{
		{"asked", c.Asked}, {"cached", c.Cached}, {"good", c.Good}, {"revoked", c.Revoked},
		{"listed", c.Listed}, {"failed", c.Failed}, {"grace", c.Grace}, {"open", c.Open},
	} {
		fmt.Fprintf(w, "kortti_server_revocation_total{result=%q} %d\n", m.result, m.n)
	}
	s.writeLists(w, s.inForce.Load().revocation.Lists())
	fmt.Fprintln(w, "# HELP kortti_server_audit_failures_total Decisions that could not be written to the audit log.")
	fmt.Fprintln(w, "# TYPE kortti_server_audit_failures_total counter")
	fmt.Fprintf(w, "kortti_server_audit_failures_total %d\n", s.counters.auditFailures.Load())
	fmt.Fprintln(w, "# HELP kortti_server_handshakes_refused_total Connections closed because too many came from one network.")
	fmt.Fprintln(w, "# TYPE kortti_server_handshakes_refused_total counter")
	fmt.Fprintf(w, "kortti_server_handshakes_refused_total %d\n", s.counters.handshakesRefused.Load())
	fmt.Fprintln(w, "# HELP kortti_server_reloads_total Configurations that were put into force while running, and those that were refused.")
	fmt.Fprintln(w, "# TYPE kortti_server_reloads_total counter")
	fmt.Fprintf(w, "kortti_server_reloads_total{result=\"done\"} %d\n", s.counters.reloadsDone.Load())
	fmt.Fprintf(w, "kortti_server_reloads_total{result=\"refused\"} %d\n", s.counters.reloadsRefused.Load())
	fmt.Fprintln(w, "# HELP kortti_server_trust_info The trust epoch: a hash of anchors and policy, the same on machines with the same ones.")
	fmt.Fprintln(w, "# TYPE kortti_server_trust_info gauge")
	fmt.Fprintf(w, "kortti_server_trust_info{epoch=%q} 1\n", s.inForce.Load().verifier.Epoch())
}

func (s *Server) writeLists(w io.Writer, lists []revoke.ListState) {
	for _, m := range []struct {
		name, kind, help string
		value            func(revoke.ListState) float64
	}{
		{"entries", "gauge", "Certificates on a revocation list.", func(l revoke.ListState) float64 { return float64(l.Entries) }},
		{"seconds_left", "gauge", "How long a revocation list is still an answer; negative when it is stale or missing.", func(l revoke.ListState) float64 {
			if l.ThisUpdate.IsZero() {
				return -1
			}
			return l.NextUpdate.Sub(s.options.Now()).Seconds()
		}},
		{"fetches_total", "counter", "Attempts to fetch a revocation list.", func(l revoke.ListState) float64 { return float64(l.Fetches) }},
		{"failures_total", "counter", "Attempts that brought no list in force.", func(l revoke.ListState) float64 { return float64(l.Failures) }},
	} {
		fmt.Fprintf(w, "# HELP kortti_server_crl_%s %s\n# TYPE kortti_server_crl_%[1]s %[3]s\n", m.name, m.help, m.kind)
		for _, l := range lists {
			fmt.Fprintf(w, "kortti_server_crl_%s{issuer=%q,address=%q} %g\n", m.name, l.Issuer, l.Address, m.value(l))
		}
	}
}
