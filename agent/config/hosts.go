package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/pelletier/go-toml/v2"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/internal/atomicfile"
)

// ErrNotListed tells that no host is listed under that name.
var ErrNotListed = errors.New("host is not listed")

// FixedError tells that a host or setting stands in kortti.toml, which the
// program never writes and which wins over managed.toml.
type FixedError struct{ What, File string }

func (e *FixedError) Error() string {
	return fmt.Sprintf("%s is set in %s, which wins", e.What, e.File)
}

func fixedHost(name, file string) error { return &FixedError{What: "host " + name, File: file} }

// Hosts is the list of hosts: those of kortti.toml, which only Replace changes,
// and those of managed.toml, which Put and Delete change. It keeps the rest of
// managed.toml too. It is safe for concurrent use.
type Hosts struct {
	file        string // kortti.toml
	managedFile string

	mu       sync.RWMutex // guards what follows, and the file managed.toml
	fixed    []Host
	managed  []Host
	settings managedSettings
}

type managedFile struct {
	Card struct {
		IdleLock *string `toml:"idle_lock,omitempty"`
	} `toml:"card,omitempty"`
	Proxy struct {
		Upstream *string `toml:"upstream,omitempty"`
	} `toml:"proxy,omitempty"`
	Host []fileHost `toml:"host"`
}

const managedHead = "# Written by kortti. Do not edit: settings of your own belong in kortti.toml, which wins.\n\n"

// loadHosts makes the list from kortti.toml's tables and the managed.toml beside it.
func loadHosts(path string, tables []fileHost) (*Hosts, error) {
	h := &Hosts{file: path, managedFile: filepath.Join(filepath.Dir(path), "managed.toml")}
	var err error
	if h.fixed, err = readHosts(path, tables); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(h.managedFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the managed hosts: %w", err)
	}
	var f managedFile
	if err := decode(h.managedFile, raw, &f); err != nil {
		return nil, err
	}
	if h.managed, err = readHosts(h.managedFile, f.Host); err != nil {
		return nil, err
	}
	for i := range h.managed {
		h.managed[i].Managed = true
	}
	h.settings = managedSettings{f.Card.IdleLock, f.Proxy.Upstream}
	return h, nil
}

func readHosts(path string, tables []fileHost) ([]Host, error) {
	var hosts []Host
	var problems []error
	for _, t := range tables {
		host, err := NewHost(filepath.Dir(path), t.Name, t.Card, t.Consent, t.Address, t.TLSRoots)
		if err == nil && find(hosts, host.String()) >= 0 {
			err = fmt.Errorf("host %s is listed twice", host)
		}
		problems = append(problems, err)
		hosts = append(hosts, host)
	}
	if err := inFile(path, problems...); err != nil {
		return nil, err
	}
	return hosts, nil
}

// ManagedFile is the path of managed.toml.
func (h *Hosts) ManagedFile() string { return h.managedFile }

// Lookup returns the entry that lists the host most closely; kortti.toml wins
// over managed.toml.
func (h *Hosts) Lookup(host, port string) (Host, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var best Host
	score := 0
	for _, entry := range slices.Concat(h.fixed, h.managed) {
		if s := entry.Match(host, port); s > score {
			best, score = entry, s
		}
	}
	return best, score > 0
}

// List returns the hosts in force, those of kortti.toml first.
func (h *Hosts) List() []Host {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := slices.Clone(h.fixed)
	for _, entry := range h.managed {
		if find(h.fixed, entry.String()) < 0 {
			list = append(list, entry)
		}
	}
	return list
}

// Get returns the host listed under this name, as Host.String gives it.
func (h *Hosts) Get(name string) (Host, bool) {
	for _, entry := range h.List() {
		if entry.String() == name {
			return entry, true
		}
	}
	return Host{}, false
}

// Put lists a host in managed.toml, or changes it there. A host that
// kortti.toml lists is a *FixedError.
func (h *Hosts) Put(host Host) (Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if find(h.fixed, host.String()) >= 0 {
		return Host{}, fixedHost(host.String(), h.file)
	}
	host.Managed = true
	next := slices.Clone(h.managed)
	if i := find(next, host.String()); i >= 0 {
		next[i] = host
	} else {
		next = append(next, host)
	}
	return host, h.save(next, h.settings)
}

// Delete takes a host off managed.toml: ErrNotListed when no file lists it, and
// a *FixedError when kortti.toml does.
func (h *Hosts) Delete(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if find(h.fixed, name) >= 0 {
		return fixedHost(name, h.file)
	}
	i := find(h.managed, name)
	if i < 0 {
		return fmt.Errorf("%s: %w", name, ErrNotListed)
	}
	return h.save(slices.Delete(slices.Clone(h.managed), i, i+1), h.settings)
}

// Replace takes over what other holds, which was read from the same files.
func (h *Hosts) Replace(other *Hosts) {
	other.mu.RLock()
	fixed, managed, settings := other.fixed, other.managed, other.settings
	other.mu.RUnlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fixed, h.managed, h.settings = fixed, managed, settings
}

// saveSettings writes changed settings into managed.toml.
func (h *Hosts) saveSettings(change control.SettingsChange) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.settings
	if change.IdleLock != nil {
		next.idleLock = change.IdleLock
	}
	if change.Upstream != nil {
		next.upstream = change.Upstream
	}
	return h.save(h.managed, next)
}

// save writes managed.toml and, when that worked, takes over what is in it.
func (h *Hosts) save(next []Host, settings managedSettings) error {
	var f managedFile
	f.Card.IdleLock, f.Proxy.Upstream = settings.idleLock, settings.upstream
	for _, host := range next {
		f.Host = append(f.Host, fileHost{
			Name: host.String(), Card: host.Card, Consent: string(host.Consent),
			Address: host.Address, TLSRoots: host.TLSRoots,
		})
	}
	raw, err := toml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write %s: %w", h.managedFile, err)
	}
	if err := atomicfile.Write(h.managedFile, bytes.Join([][]byte{[]byte(managedHead), raw}, nil)); err != nil {
		return err
	}
	h.managed, h.settings = next, settings
	return nil
}

func find(hosts []Host, name string) int {
	return slices.IndexFunc(hosts, func(h Host) bool { return h.String() == name })
}
