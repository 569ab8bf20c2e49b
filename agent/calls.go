package agent

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/doctor"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/tlsclient"
)

// Audit records in one answer.
const (
	auditDefault = 100
	auditMax     = 10_000
)

func (a *Agent) getStatus(r *http.Request) (any, error) {
	s := control.Status{
		Version: a.options.Version, PID: os.Getpid(), Uptime: int64(time.Since(a.started).Seconds()),
		Proxy: a.Proxy(), Cards: []control.CardLock{}, Counters: a.counters(),
	}
	watched := a.screen.State()
	s.ScreenLock, s.Sleep = control.Watch(watched.Screen), control.Watch(watched.Sleep)
	s.RootsEnding = a.rootsEnding()
	for _, reader := range a.cards.Snapshot().Readers {
		if c := reader.Card; c != nil {
			s.Cards = append(s.Cards, control.CardLock{Card: c.ID, Label: c.Label, State: control.State(c.State.String())})
		}
	}
	return s, nil
}

func (a *Agent) getCards(r *http.Request) (any, error) {
	a.settle(r.Context())
	return CardsOf(a.cards.Snapshot()), nil
}

func (a *Agent) getDoctor(r *http.Request) (any, error) {
	a.settle(r.Context())
	facts := doctor.Gather(a.cards.Snapshot(), a.Proxy(), true)
	watched := a.screen.State()
	facts.Screen, facts.Sleep = control.Watch(watched.Screen), control.Watch(watched.Sleep)
	trust, err := a.trustStatus(r.Context())
	if err != nil {
		return nil, err
	}
	facts.Trust = &trust
	return control.Doctor{Findings: doctor.Examine(facts)}, nil
}

// streamEvents sends events until the front end goes away or the agent ends. A
// front end that answers prompts first gets those that are open; one that opens
// meanwhile may come twice, with the same ID.
func (a *Agent) streamEvents(w http.ResponseWriter, r *http.Request) {
	events, stop := a.events.subscribe()
	defer stop()
	var open []control.Prompt
	if r.URL.Query().Get("prompts") == "1" {
		defer a.desk.Attend()()
		open = a.desk.List()
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	send := func(ev control.Event) error {
		raw, err := json.Marshal(ev)
		if err == nil {
			_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", ev.Kind, raw)
		}
		if err == nil {
			err = out.Flush()
		}
		return err
	}
	err := out.Flush() // the front end's call returns: from here on it misses nothing
	for _, p := range open {
		if err == nil {
			err = send(control.Event{Kind: control.EventPrompt, Card: p.Card, Certificate: p.Certificate, Host: p.Host, Prompt: &p})
		}
	}
	for err == nil {
		select {
		case <-r.Context().Done():
			return
		case ev, ok := <-events:
			if !ok {
				return
			}
			err = send(ev)
		}
	}
}

func (a *Agent) postUnlock(r *http.Request) (any, error) {
	sel, err := decode[control.CardSelection](r)
	if err != nil {
		return nil, err
	}
	a.settle(r.Context())
	return result(a.openUnlock(sel))
}

func (a *Agent) postLock(r *http.Request) (any, error) {
	sel, err := decode[control.CardSelection](r)
	if err != nil {
		return nil, err
	}
	return nil, a.lock(sel)
}

func (a *Agent) getHosts(*http.Request) (any, error) {
	list := []control.Host{}
	for _, h := range a.hosts.List() {
		list = append(list, hostOf(h))
	}
	return list, nil
}

func hostOf(h config.Host) control.Host {
	return control.Host{Name: h.String(), Card: h.Card, Consent: string(h.Consent), Address: h.Address, TLSRoots: h.TLSRoots, Managed: h.Managed}
}

// hostName is the path's host as the list writes it.
func hostName(r *http.Request) (string, error) {
	name, port, err := config.ParseName(r.PathValue("name"))
	if err != nil {
		return "", badRequest(err.Error())
	}
	return config.Host{Name: name, Port: port}.String(), nil
}

func (a *Agent) getHost(r *http.Request) (any, error) {
	name, err := hostName(r)
	if err != nil {
		return nil, err
	}
	h, ok := a.hosts.Get(name)
	if !ok {
		return nil, config.ErrNotListed
	}
	return hostOf(h), nil
}

func (a *Agent) putHost(r *http.Request) (any, error) {
	name, err := hostName(r)
	if err != nil {
		return nil, err
	}
	in, err := decode[control.Host](r)
	if err != nil {
		return nil, err
	}
	if in.TLSRoots != "" && !filepath.IsAbs(in.TLSRoots) {
		return nil, badRequest("tls_roots must be an absolute path")
	}
	h, err := config.NewHost("/", name, in.Card, in.Consent, in.Address, in.TLSRoots)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if h, err = a.hosts.Put(h); err != nil {
		return nil, err
	}
	a.hostChanged(h, audit.HostListed)
	return hostOf(h), nil
}

func (a *Agent) deleteHost(r *http.Request) (any, error) {
	name, err := hostName(r)
	if err != nil {
		return nil, err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	h, _ := a.hosts.Get(name)
	if err := a.hosts.Delete(name); err != nil {
		return nil, err
	}
	a.hostChanged(h, audit.HostDropped)
	return nil, a.forget(h)
}

// forget drops what was kept for a host that is not listed any more.
func (a *Agent) forget(h config.Host) error {
	if err := a.choices.put(h.Name, "", true); err != nil {
		return err
	}
	if err := a.profiles.prune(a.listed); err != nil {
		return err
	}
	for _, other := range a.hosts.List() {
		if other.Name == h.Name { // the same host, another port: one root for all
			return nil
		}
	}
	return a.roots.Delete(h.Name)
}

func (a *Agent) listed(host, port string) bool {
	_, ok := a.hosts.Lookup(host, port)
	return ok
}

// hostChanged ends the connections and the prompts that were made with other
// settings.
func (a *Agent) hostChanged(h config.Host, decision string) {
	a.transport.EndHosts(func(host, port string) bool { return h.Match(host, port) > 0 })
	a.desk.End(func(q *prompt.Question, busy bool) (bool, error) {
		return !busy && h.Match(q.Host, h.Port) > 0, tlsclient.ErrHostEnded // prompts know no port
	})
	a.audit.Write(control.AuditRecord{Decision: decision, Host: h.String()})
	a.events.publish(control.Event{Kind: control.EventHost, Host: h.String(), Reason: decision})
}

func (a *Agent) getConsent(r *http.Request) (any, error) {
	for _, c := range a.consents.List() {
		if c.ID == r.PathValue("id") {
			return c, nil
		}
	}
	return nil, consent.ErrNotFound
}

func (a *Agent) deleteConsent(r *http.Request) (any, error) {
	id := r.PathValue("id")
	if err := a.consents.Delete(id); err != nil {
		return nil, err
	}
	a.audit.Write(control.AuditRecord{Decision: audit.ConsentEnded, Reason: id})
	return nil, nil
}

// queryHost is findHost for a call's query.
func (a *Agent) queryHost(r *http.Request) (entry config.Host, name, port string, err error) {
	query := r.URL.Query().Get("host")
	if query == "" {
		return entry, "", "", badRequest("the query names no host")
	}
	return a.findHost(query)
}

func (a *Agent) getWhy(r *http.Request) (any, error) {
	_, name, port, err := a.queryHost(r)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, "*") {
		return nil, badRequest("name one host, without a star")
	}
	a.settle(r.Context())
	if port != "" {
		name += ":" + port
	}
	why, err := a.transport.Why(r.Context(), name)
	if err != nil {
		return nil, err
	}
	out := control.Why{Host: why.Host, Asked: why.Asked, AcceptableCAs: append([]string{}, why.AcceptableCAs...), Rows: []control.WhyRow{}}
	for _, row := range why.Rows {
		out.Rows = append(out.Rows, control.WhyRow{Certificate: row.Fingerprint.String(), Subject: row.Subject, Kept: row.Kept, Rule: row.Rule})
	}
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		host = name
	}
	out.Profiles = a.profiles.of(host, port)
	if why.Chosen != nil {
		out.Chosen = why.Chosen.String()
	}
	return out, nil
}

func (a *Agent) getAudit(r *http.Request) (any, error) {
	limit := auditDefault
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > auditMax {
			return nil, badRequest(fmt.Sprintf("limit must be a number from 1 to %d", auditMax))
		}
		limit = n
	}
	return result(a.audit.Tail(limit))
}

// result makes an answer of a value and an error.
func result[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}
