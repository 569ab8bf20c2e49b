package truststore

import (
	"context"
	"crypto/x509"
	"os"
	"slices"

	"github.com/kortti-id/kortti/agent/roots"
)

// rounds is how often a removal is tried: another program may put something
// back meanwhile.
const rounds = 3

func isLocal(c *x509.Certificate) bool { return roots.IsLocal(c) }

// Entries lists the local roots in a store, also those of other agents.
func (m *Machine) Entries(ctx context.Context, s Store) ([]Entry, error) {
	if s.Kind == System {
		return listSystem(s)
	}
	return m.listNSS(ctx, s)
}

// Result is what became of one store.
type Result struct {
	// Added and Removed are what changed, or would change by Commands.
	Added, Removed []Entry
	// Commands are left for the person: all of them when nothing but a plan was
	// asked for, and those that only root can run.
	Commands []Command
	// Done says that the store was changed.
	Done bool
}

// Install makes a store trust the roots, and removes earlier roots of the same
// hosts, so that each host has one. With only plan set nothing is changed.
//
// Two calls at once, in one process or several, come after each other.
func (m *Machine) Install(ctx context.Context, s Store, list []*x509.Certificate, plan bool) (Result, error) {
	hosts := map[string]bool{}
	for _, c := range list {
		hosts[roots.HostOf(c)] = true
	}
	return m.change(ctx, s, list, func(e Entry) bool {
		return hosts[e.Host()] && !contains(list, e.Certificate)
	}, plan)
}

// Uninstall removes the local roots that drop names, every copy of them, and
// nothing else. With only plan set nothing is changed.
func (m *Machine) Uninstall(ctx context.Context, s Store, drop func(Entry) bool, plan bool) (Result, error) {
	return m.change(ctx, s, nil, drop, plan)
}

func (m *Machine) change(ctx context.Context, s Store, want []*x509.Certificate, drop func(Entry) bool, plan bool) (Result, error) {
	switch {
	case s.NeverStarted() && len(want) > 0:
		return Result{}, ErrNoProfile
	case s.Kind == System && !s.Present && len(want) > 0:
		return Result{}, ErrSystem
	case !s.Present && len(want) == 0:
		return Result{}, nil
	}
	release, err := lock(ctx, m.Home)
	if err != nil {
		return Result{}, err
	}
	defer release()
	s.Present = s.Present || hasDatabase(s.Path) // made by another run meanwhile
	have, err := m.Entries(ctx, s)
	if err != nil {
		return Result{}, err
	}
	commands, err := m.plan(s, have, want, drop)
	result := Result{Added: added(have, want), Removed: slices.DeleteFunc(slices.Clone(have), func(e Entry) bool { return !drop(e) })}
	if err != nil || len(commands) == 0 {
		return result, err
	}
	if plan || s.Kind == System && os.Geteuid() != 0 {
		result.Commands = commands
		return result, nil
	}
	if s.Kind != System {
		if err := m.checkWrite(ctx, s); err != nil {
			return Result{}, err
		}
	}
	result.Done = true
	return result, m.carryOut(ctx, s, commands, want, drop)
}

// carryOut runs a plan and looks whether the store is then as it should be.
func (m *Machine) carryOut(ctx context.Context, s Store, commands []Command, want []*x509.Certificate, drop func(Entry) bool) error {
	for round := 1; ; round++ {
		for _, c := range commands {
			if err := m.run(ctx, c); err != nil {
				return err
			}
		}
		s.Present = true
		have, err := m.Entries(ctx, s)
		if err != nil {
			return err
		}
		if commands, err = m.plan(s, have, want, drop); err != nil || len(commands) == 0 {
			return err
		}
		if round == rounds {
			if slices.ContainsFunc(have, drop) {
				return ErrLeft
			}
			return ErrMissing
		}
	}
}

func (m *Machine) plan(s Store, have []Entry, want []*x509.Certificate, drop func(Entry) bool) ([]Command, error) {
	if s.Kind == System {
		return m.planSystem(s, have, want, drop)
	}
	return m.planNSS(s, have, want, drop)
}

// added are the roots that a store does not trust yet.
func added(have []Entry, want []*x509.Certificate) (list []Entry) {
	for _, c := range want {
		if !slices.ContainsFunc(have, func(e Entry) bool { return e.Trusted && e.Certificate.Equal(c) }) {
			list = append(list, Entry{Nickname: nickname(c), Certificate: c, Trusted: true})
		}
	}
	return list
}
