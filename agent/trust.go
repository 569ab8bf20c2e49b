package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/roots"
	"github.com/kortti-id/kortti/agent/truststore"
)

// trustMachine is where trust stores are looked for.
func (a *Agent) trustMachine() (*truststore.Machine, error) {
	home := a.options.Home
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("find the browsers' trust stores: %w", err)
		}
	}
	return &truststore.Machine{Home: home, Files: filepath.Join(a.options.StateDir, "trust")}, nil
}

// listedRoots are the local roots of the listed hosts, in the list's order. A
// host whose root cannot be used comes with an error.
func (a *Agent) listedRoots() (list []*roots.Root, shown []control.Root) {
	shown = []control.Root{}
	for _, h := range a.hosts.List() {
		if slices.ContainsFunc(shown, func(r control.Root) bool { return r.Host == h.Name }) {
			continue // one root for all ports
		}
		root, err := a.roots.Get(h.Name)
		if err != nil {
			shown = append(shown, control.Root{Host: h.Name, Error: err.Error()})
			continue
		}
		list, shown = append(list, root), append(shown, rootOf(h.Name, root))
	}
	return list, shown
}

func rootOf(host string, root *roots.Root) control.Root {
	return control.Root{
		Host: host, PEM: string(root.PEM()), SHA256: root.SHA256(),
		NotAfter: root.NotAfter(), RenewAt: root.RenewAt(),
	}
}

// rootsEnding are the listed hosts whose roots should be made anew.
func (a *Agent) rootsEnding() (hosts []string) {
	list, _ := a.listedRoots()
	for _, root := range list {
		if !time.Now().Before(root.RenewAt()) {
			hosts = append(hosts, root.Host)
		}
	}
	return hosts
}

// getTrust answers with the root of one host, or with what all stores hold.
func (a *Agent) getTrust(r *http.Request) (any, error) {
	if !r.URL.Query().Has("host") {
		return result(a.trustStatus(r.Context()))
	}
	entry, _, _, err := a.queryHost(r)
	if err != nil {
		return nil, err
	}
	root, err := a.roots.Get(entry.Name)
	if err != nil {
		return nil, err
	}
	return rootOf(entry.Name, root), nil
}

func (a *Agent) trustStatus(ctx context.Context) (control.TrustStatus, error) {
	m, err := a.trustMachine()
	if err != nil {
		return control.TrustStatus{}, err
	}
	list, shown := a.listedRoots()
	status := control.TrustStatus{Roots: shown, Stores: []control.TrustStore{}}
	for _, s := range m.Find() {
		if s.NeverStarted() {
			continue // there is nothing yet that could hold a root
		}
		out := control.TrustStore{
			Kind: string(s.Kind), Path: s.Path, Owner: s.Owner, Browser: s.Browser,
			Present: s.Present, Shadowed: s.Shadowed, Roots: []control.TrustedRoot{},
		}
		entries, err := m.Entries(ctx, s)
		if err != nil {
			out.Error, out.Hint = err.Error(), truststore.Hint(err)
		} else {
			out.Roots = trustRows(list, entries)
		}
		status.Stores = append(status.Stores, out)
	}
	return status, ctx.Err()
}

// trustRows compares what a store holds with the roots in use.
func trustRows(list []*roots.Root, entries []truststore.Entry) []control.TrustedRoot {
	rows := []control.TrustedRoot{}
	for _, root := range list {
		row := control.TrustedRoot{Host: root.Host, SHA256: root.SHA256(), State: control.TrustMissing}
		for _, e := range entries {
			if !e.Certificate.Equal(root.Certificate) {
				continue
			}
			if row.State != control.TrustMissing {
				row.State = control.TrustDuplicate
				break
			}
			row.Nickname, row.State = e.Nickname, control.TrustUntrusted
			if e.Trusted {
				row.State = control.TrustTrusted
			}
		}
		rows = append(rows, row)
	}
	for _, e := range entries {
		if !slices.ContainsFunc(list, func(r *roots.Root) bool { return r.Certificate.Equal(e.Certificate) }) {
			rows = append(rows, control.TrustedRoot{Host: e.Host(), SHA256: e.SHA256(), Nickname: e.Nickname, State: control.TrustStale})
		}
	}
	return rows
}

// postTrust changes the trust stores. A store that cannot be changed does not
// keep the others from it.
func (a *Agent) postTrust(r *http.Request) (any, error) {
	in, err := decode[control.TrustRequest](r)
	if err != nil {
		return nil, err
	}
	if in.All == (len(in.Hosts) > 0) {
		return nil, badRequest("name hosts, or all of them")
	}
	m, err := a.trustMachine()
	if err != nil {
		return nil, err
	}
	c := &trustChange{TrustRequest: in, machine: m}
	switch in.Action {
	case control.TrustInstall:
		err = a.planInstall(c)
	case control.TrustUninstall:
		err = a.planUninstall(c)
	default:
		return nil, badRequest(`the action must be "install" or "uninstall"`)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range m.Find() {
		c.store(r.Context(), s)
	}
	if !in.Print {
		a.tidyTrust(r.Context(), m)
	}
	c.finish()
	return c.result, r.Context().Err()
}

// planInstall finds the roots to install. Those that end soon are made anew
// first: the browsers have to be started again either way.
func (a *Agent) planInstall(c *trustChange) error {
	names, err := a.trustHosts(c.TrustRequest, true)
	if err != nil {
		return err
	}
	get := a.roots.Renew
	if c.Print {
		get = a.roots.Get
	}
	for _, name := range names {
		root, err := get(name)
		if err != nil {
			e := explain(err)
			c.add(control.TrustChange{Host: name, Change: control.TrustFailed, Error: e.Message, Hint: e.Hint})
			continue
		}
		c.want = append(c.want, root.Certificate)
	}
	return nil
}

func (a *Agent) planUninstall(c *trustChange) error {
	names, err := a.trustHosts(c.TrustRequest, false)
	c.drop = func(e truststore.Entry) bool { return c.All || slices.Contains(names, e.Host()) }
	return err
}

// trustHosts are the names of a request as roots carry them. Hosts that are not
// listed are refused where they must be.
func (a *Agent) trustHosts(in control.TrustRequest, listed bool) (names []string, err error) {
	if in.All {
		for _, h := range a.hosts.List() {
			names = append(names, h.Name)
		}
	}
	for _, text := range in.Hosts {
		entry, name, _, err := a.findHost(text)
		switch {
		case err == nil:
			name = entry.Name
		case listed || name == "":
			return nil, err
		}
		names = append(names, name)
	}
	var once []string
	for _, name := range names {
		if !slices.Contains(once, name) {
			once = append(once, name)
		}
	}
	return once, nil
}

// tidyTrust removes the files of roots that are neither in use nor in any store.
func (a *Agent) tidyTrust(ctx context.Context, m *truststore.Machine) {
	list, _ := a.listedRoots()
	var used []*x509.Certificate
	for _, root := range list {
		used = append(used, root.Certificate)
	}
	for _, s := range m.Find() {
		entries, err := m.Entries(ctx, s)
		if err != nil {
			return // who knows what is in there
		}
		for _, e := range entries {
			used = append(used, e.Certificate)
		}
	}
	m.Tidy(used)
}

// trustChange is one POST /v1/trust on its way through the stores.
type trustChange struct {
	control.TrustRequest
	machine *truststore.Machine
	want    []*x509.Certificate         // install
	drop    func(truststore.Entry) bool // uninstall
	result  control.TrustResult
}

func (c *trustChange) add(change control.TrustChange) {
	c.result.Changes = append(c.result.Changes, change)
}

// store changes one store, and says what became of each root in it.
func (c *trustChange) store(ctx context.Context, s truststore.Store) {
	say := func(e truststore.Entry, outcome control.TrustOutcome) {
		c.add(control.TrustChange{Store: s.Path, Owner: s.Owner, Host: e.Host(), SHA256: e.SHA256(), Change: outcome})
	}
	if s.Kind == truststore.System && !c.System {
		c.leaveSystem(ctx, s)
		return
	}
	var r truststore.Result
	var err error
	if c.drop == nil {
		if len(c.want) == 0 {
			return
		}
		r, err = c.machine.Install(ctx, s, c.want, c.Print)
	} else {
		r, err = c.machine.Uninstall(ctx, s, c.drop, c.Print)
	}
	if err != nil {
		outcome := control.TrustFailed
		if errors.Is(err, truststore.ErrNoProfile) {
			outcome = control.TrustSkipped
		}
		c.add(control.TrustChange{Store: s.Path, Owner: s.Owner, Change: outcome, Error: err.Error(), Hint: truststore.Hint(err)})
		return
	}
	installed, removed := control.TrustInstalled, control.TrustRemoved
	if len(r.Commands) > 0 {
		installed, removed = control.TrustPlanned, control.TrustPlanned
	}
	for _, e := range r.Removed {
		say(e, removed)
	}
	for _, e := range r.Added {
		say(e, installed)
	}
	for _, cert := range c.want {
		if !slices.ContainsFunc(r.Added, func(e truststore.Entry) bool { return e.Certificate.Equal(cert) }) {
			say(truststore.Entry{Certificate: cert}, control.TrustAlready)
		}
	}
	for _, command := range r.Commands {
		c.result.Commands = append(c.result.Commands, command.String())
	}
	if (r.Done || len(r.Commands) > 0) && s.Browser != "" && !slices.Contains(c.result.Restart, s.Browser) {
		c.result.Restart = append(c.result.Restart, s.Browser)
	}
}

// leaveSystem tells of roots that an uninstall leaves in the system's store,
// because nobody asked for that one.
func (c *trustChange) leaveSystem(ctx context.Context, s truststore.Store) {
	entries, err := c.machine.Entries(ctx, s)
	if err != nil || c.drop == nil || !slices.ContainsFunc(entries, c.drop) {
		return
	}
	c.add(control.TrustChange{
		Store: s.Path, Owner: s.Owner, Change: control.TrustFailed,
		Error: "the system's store still holds what was to be removed", Hint: "Take it along with --system.",
	})
}

// finish adds what is true of all stores together.
func (c *trustChange) finish() {
	if c.result.Changes == nil {
		c.result.Changes = []control.TrustChange{}
	}
	for _, browser := range truststore.Running() {
		if slices.Contains(c.result.Restart, browser) {
			c.result.Running = append(c.result.Running, browser)
		}
	}
}

// findHost finds the listed host that a text means: the name as it is listed,
// or a name that an entry covers. The name comes with ErrNotListed too.
func (a *Agent) findHost(text string) (entry config.Host, name, port string, err error) {
	if name, port, err = config.ParseName(text); err != nil {
		return entry, "", "", badRequest(err.Error())
	}
	if entry, ok := a.hosts.Get(config.Host{Name: name, Port: port}.String()); ok {
		return entry, name, port, nil
	}
	for _, entry := range a.hosts.List() {
		if port == "" && entry.Match(name, entry.Port) > 0 || entry.Match(name, port) > 0 {
			return entry, name, entry.Port, nil
		}
	}
	return entry, name, "", fmt.Errorf("%s: %w", text, config.ErrNotListed)
}
