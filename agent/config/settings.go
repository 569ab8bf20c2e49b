package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/upstream"
)

// managedSettings are those of managed.toml; nil is not set.
type managedSettings struct {
	idleLock, upstream *string
}

// useManaged takes over what managed.toml sets and File does not.
func (c *Config) useManaged(s managedSettings) error {
	if s.idleLock != nil && !c.fixes(control.SettingIdleLock) {
		if err := c.setIdle(*s.idleLock); err != nil {
			return err
		}
	}
	if s.upstream != nil && !c.fixes(control.SettingUpstream) {
		return c.setUpstream(s.upstream)
	}
	return nil
}

func (c *Config) fixes(setting string) bool { return slices.Contains(c.Fixed, setting) }

// With is the configuration after a change, which Save then writes. What File
// sets is a *FixedError.
func (c *Config) With(change control.SettingsChange) (*Config, error) {
	next := *c
	for _, s := range []struct {
		name, shown string
		given       bool
		set         func() error
	}{
		{control.SettingIdleLock, "[card] idle_lock", change.IdleLock != nil, func() error { return next.setIdle(*change.IdleLock) }},
		{control.SettingUpstream, "[proxy] upstream", change.Upstream != nil, func() error { return next.setUpstream(change.Upstream) }},
	} {
		if !s.given {
			continue
		}
		if c.fixes(s.name) {
			return nil, &FixedError{What: s.shown, File: c.File}
		}
		if err := s.set(); err != nil {
			return nil, err
		}
	}
	return &next, nil
}

// Save writes a change into managed.toml; what it leaves out stays there.
func (c *Config) Save(change control.SettingsChange) error { return c.Hosts.saveSettings(change) }

// setIdle takes what stands at idle_lock; nil leaves it.
func (c *Config) setIdle(value any) error {
	switch v := value.(type) {
	case nil:
		return nil
	case int64:
		if v == 0 {
			c.Card.IdleLock = 0
			return nil
		}
	case string:
		if d, err := time.ParseDuration(v); err == nil && d >= 0 {
			c.Card.IdleLock = d
			return nil
		}
	}
	return fmt.Errorf(`[card] idle_lock %v: want a time such as "15m", or 0 for never`, value)
}

// setUpstream takes what stands at upstream; nil leaves it.
func (c *Config) setUpstream(value *string) error {
	if value == nil {
		return nil
	}
	if err := upstream.Check(*value); err != nil {
		return fmt.Errorf("[proxy] upstream: %w", err)
	}
	c.Proxy.Upstream = *value
	return nil
}
