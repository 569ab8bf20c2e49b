package agent

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/audit"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/systemd"
	"github.com/kortti-id/kortti/agent/upstream"
)

// Reload reads kortti.toml and managed.toml again and goes on with what they
// say. It takes over all of it or, with an error, nothing. What an agent cannot
// change while it runs is kept, and said. It is safe for concurrent use.
func (a *Agent) Reload() (control.Reload, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.tellService((*systemd.Notifier).Reloading)
	out, err := a.reload()
	a.counts.reload(err)
	status := "The proxy is at " + a.Proxy() + "."
	if err != nil {
		status += " The changed configuration cannot be used: " + err.Error()
		a.log.Error("the configuration was read again and cannot be used; nothing has changed", "error", err)
	} else {
		a.log.Info("the configuration was read again", "changed", len(out.Changed), "kept", len(out.Kept))
	}
	a.tellService(func(s *systemd.Notifier) error { return s.Ready(status) })
	return out, err
}

// reload is Reload with a.changing held.
func (a *Agent) reload() (control.Reload, error) {
	now := a.config.Load()
	next, err := now.Again()
	if err == nil {
		err = a.setWay(next)
	}
	if err != nil {
		return control.Reload{}, &control.Error{
			Code: "configuration", Status: http.StatusUnprocessableEntity, Message: err.Error(),
			Hint: "Nothing has changed. Correct the file and reload again.",
		}
	}
	// Nothing fails from here on.
	out := control.Reload{Changed: []string{}, Kept: keep(now, next)}
	if next.Card.IdleLock != now.Card.IdleLock {
		a.cards.SetIdleLock(next.Card.IdleLock)
		out.Changed = append(out.Changed, "[card] idle_lock: "+next.Card.IdleLock.String())
	}
	if next.Proxy.Upstream != now.Proxy.Upstream {
		out.Changed = append(out.Changed, fmt.Sprintf("[proxy] upstream: %q, for new connections", upstream.Shown(next.Proxy.Upstream)))
	}
	before := a.hosts.List()
	a.hosts.Replace(next.Hosts)
	next.Hosts = a.hosts
	a.config.Store(next)
	out.Changed = append(out.Changed, a.hostsChanged(before)...)
	if len(out.Changed) > 0 {
		a.audit.Write(control.AuditRecord{Decision: audit.Settings, Reason: "reload: " + strings.Join(out.Changed, "; ")})
	}
	return out, nil
}

// keep leaves in next what cannot change while the agent runs, and names it.
func keep(now, next *config.Config) []string {
	kept := []string{}
	for _, k := range []struct {
		what string
		same bool
		keep func()
	}{
		{"[card] modules", slices.Equal(now.Card.Modules, next.Card.Modules), func() { next.Card.Modules = now.Card.Modules }},
		{"[proxy] listen", now.Proxy.Listen == next.Proxy.Listen, func() { next.Proxy.Listen = now.Proxy.Listen }},
		{"[control] socket", now.Control.Socket == next.Control.Socket, func() { next.Control.Socket = now.Control.Socket }},
		{"[[listener]]", slices.Equal(now.Listeners, next.Listeners), func() { next.Listeners = now.Listeners }},
	} {
		if !k.same {
			k.keep()
			kept = append(kept, k.what)
		}
	}
	return kept
}

// hostsChanged ends what belongs to hosts that were listed otherwise before, and
// says what is different.
func (a *Agent) hostsChanged(before []config.Host) (changed []string) {
	after := a.hosts.List()
	find := func(list []config.Host, h config.Host) *config.Host {
		i := slices.IndexFunc(list, func(o config.Host) bool { return o.String() == h.String() })
		if i < 0 {
			return nil
		}
		return &list[i]
	}
	for _, h := range before {
		if find(after, h) != nil {
			continue
		}
		a.hostChanged(h, audit.HostDropped)
		if err := a.forget(h); err != nil {
			a.log.Warn("what was kept for a host is left behind", "host", h.String(), "error", err)
		}
		changed = append(changed, fmt.Sprintf("host %s is not listed any more", h))
	}
	for _, h := range after {
		was := find(before, h)
		if was != nil && was.Equal(h) {
			continue
		}
		a.hostChanged(h, audit.HostListed)
		if was == nil {
			changed = append(changed, fmt.Sprintf("host %s is listed", h))
		} else {
			changed = append(changed, fmt.Sprintf("host %s has other settings", h))
		}
	}
	return changed
}

// setWay changes the way out to what the configuration says, for connections
// made from now on.
func (a *Agent) setWay(c *config.Config) error {
	if err := a.way.Set(c.Proxy.Upstream); err != nil {
		return fmt.Errorf("%s: [proxy] upstream: %w", c.File, err)
	}
	return nil
}

func (a *Agent) postReload(r *http.Request) (any, error) {
	if _, err := decode[struct{}](r); err != nil {
		return nil, err
	}
	return result(a.Reload())
}

func (a *Agent) getSettings(*http.Request) (any, error) {
	cfg := a.config.Load()
	listeners := []control.Listener{}
	for i, l := range cfg.Listeners {
		listeners = append(listeners, control.Listener{Address: a.fixedListeners[i].Addr().String(), Upstream: l.String()})
	}
	return control.Settings{
		Upstream: upstream.Shown(cfg.Proxy.Upstream), Listeners: listeners,
		ConfigFile: cfg.File, ManagedFile: a.hosts.ManagedFile(), StateDir: a.options.StateDir,
		Modules: cfg.Card.Modules, IdleLock: cfg.Card.IdleLock.String(), Proxy: cfg.Proxy.Listen, Socket: a.socket,
		Fixed: append([]string{}, cfg.Fixed...),
	}, nil
}

// putSettings changes settings in managed.toml, all that the call names or none.
func (a *Agent) putSettings(r *http.Request) (any, error) {
	change, err := decode[control.SettingsChange](r)
	if err != nil {
		return nil, err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	now := a.config.Load()
	next, err := now.With(change)
	var fixed *config.FixedError
	switch {
	case errors.As(err, &fixed):
		return nil, err
	case err != nil:
		return nil, badRequest(err.Error())
	}
	if err := a.setWay(next); err != nil {
		return nil, badRequest(err.Error())
	}
	if err := now.Save(change); err != nil {
		return nil, errors.Join(err, a.setWay(now))
	}
	a.cards.SetIdleLock(next.Card.IdleLock)
	a.config.Store(next)
	a.audit.Write(control.AuditRecord{Decision: audit.Settings, Reason: fmt.Sprintf("idle_lock %v, upstream %q", next.Card.IdleLock, upstream.Shown(next.Proxy.Upstream))})
	return a.getSettings(r)
}
