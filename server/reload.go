package server

import (
	"slices"
	"strings"
)

// Reload puts a new configuration into force, all of it or nothing: on an error,
// which is of type Problems, the old one stays. Requests that come after it are
// decided by the new one, also on connections and in sessions from before. What
// cannot change while the server runs (addresses, the user store, the audit log)
// stays as it was, and kept names the settings that wait for a restart.
func (s *Server) Reload(c Config) (kept []string, err error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	defer func() { s.counters.reloaded(err) }()
	c = c.withDefaults()
	before := s.inForce.Load()
	old := before.config
	for _, setting := range []struct {
		key      string
		old, new *string
	}{
		{"listen.https", &old.Listen.HTTPS, &c.Listen.HTTPS},
		{"listen.http", &old.Listen.HTTP, &c.Listen.HTTP},
		{"listen.group", &old.Listen.Group, &c.Listen.Group},
		{"listen.admin", &old.Listen.Admin, &c.Listen.Admin},
		{"users.store", &old.Users.Store, &c.Users.Store},
		{"audit.dir", &old.Audit.Dir, &c.Audit.Dir},
		{"audit.instance", &old.Audit.Instance, &c.Audit.Instance},
	} {
		if *setting.new != *setting.old {
			kept = append(kept, setting.key)
			*setting.new = *setting.old
		}
	}
	for _, setting := range []struct {
		key      string
		old, new *Duration
	}{
		{"audit.segment", &old.Audit.Segment, &c.Audit.Segment},
		{"audit.keep", &old.Audit.Keep, &c.Audit.Keep},
	} {
		if *setting.new != *setting.old {
			kept = append(kept, setting.key)
			*setting.new = *setting.old
		}
	}
	if c.Limits.Handshakes != old.Limits.Handshakes {
		kept = append(kept, "limits.handshakes")
		c.Limits.Handshakes = old.Limits.Handshakes
	}
	p, err := s.open(c)
	if err != nil {
		return nil, err
	}
	if err := s.furnish(c, p); err != nil {
		p.close()
		return nil, err
	}
	before.close() // requests under way may still ask it
	epoch := p.verifier.Epoch()
	s.log.Info("configuration reloaded", "trust", epoch[:12])
	if len(kept) > 0 {
		slices.Sort(kept)
		s.log.Warn("some settings wait for a restart", "settings", strings.Join(kept, " "))
	}
	return kept, nil
}
