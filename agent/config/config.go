// Package config reads the agent's configuration: kortti.toml, which a person
// writes and the program never touches, and managed.toml beside it, which holds
// the hosts that were listed at run time. It is strict: an unknown key, a value
// out of range or a file that is named but unusable stops the start. It opens
// no socket and no card.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/kortti-id/kortti/agent/control"
)

// Defaults of the configuration file.
const (
	DefaultListen   = "127.0.0.1:8079"
	DefaultIdleLock = 15 * time.Minute
)

// Config is a read configuration. It is not changed after Load, except Hosts,
// which is safe for concurrent use.
type Config struct {
	// File is the kortti.toml that was read, or would have been.
	File string
	// named tells that File must be there.
	named bool
	// Fixed are the settings of control.SettingsChange that File sets.
	Fixed   []string
	Card    Card
	Proxy   Proxy
	Control Control
	// Listeners are the [[listener]] tables.
	Listeners []Listener
	Hosts     *Hosts
}

// Card is the [card] table.
type Card struct {
	// Modules are paths of PKCS#11 modules, or "auto".
	Modules []string
	// IdleLock is how long an unlocked card may go unused; 0 = for ever.
	IdleLock time.Duration
}

// Proxy is the [proxy] table.
type Proxy struct {
	// Listen is host:port with a literal loopback address; port 0 = any.
	Listen string
	// Upstream is the proxy on the way out as package upstream takes it: "",
	// "env" or a URL, perhaps with a password.
	Upstream string
}

// Control is the [control] table.
type Control struct {
	// Socket is the configured path, "" for the default: see Config.Socket.
	Socket string
}

// file is kortti.toml as it is written.
type file struct {
	Card struct {
		Modules  []string `toml:"modules"`
		IdleLock any      `toml:"idle_lock"` // a string, or the number 0
	} `toml:"card"`
	Proxy struct {
		Listen   string  `toml:"listen"`
		Upstream *string `toml:"upstream"`
	} `toml:"proxy"`
	Control struct {
		Socket string `toml:"socket"`
	} `toml:"control"`
	Host     []fileHost     `toml:"host"`
	Listener []fileListener `toml:"listener"`
}

// fileListener is a [[listener]] table.
type fileListener struct {
	Listen   string `toml:"listen"`
	Upstream string `toml:"upstream"`
}

// Listener is an address whose requests all go to one listed host.
type Listener struct {
	Listen     string // host:port with a literal loopback address; port 0 = any
	Host, Port string // lower-case ASCII and decimal
}

// String is the listener as the file writes its upstream.
func (l Listener) String() string {
	if l.Port == "443" {
		return "https://" + l.Host
	}
	return "https://" + net.JoinHostPort(l.Host, l.Port)
}

func (f fileListener) read() (Listener, error) {
	l := Listener{Listen: f.Listen, Port: "443"}
	bad := func(err error) (Listener, error) { return Listener{}, fmt.Errorf("[[listener]] %s: %w", f.Listen, err) }
	if err := checkLoopback(f.Listen); err != nil {
		return bad(err)
	}
	u, err := url.Parse(f.Upstream)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "" {
		return bad(fmt.Errorf(`upstream %q: want "https://" and a listed host, with no path`, f.Upstream))
	}
	name, port, err := ParseName(u.Host)
	if err != nil {
		return bad(err)
	}
	if strings.HasPrefix(name, "*") {
		return bad(fmt.Errorf("upstream %q must be one host", f.Upstream))
	}
	if l.Host = name; port != "" {
		l.Port = port
	}
	return l, nil
}

// Load reads path and the managed.toml beside it. The path "" means the default
// file, which may be missing; a file that is named must be there.
func Load(path string) (*Config, error) {
	named := path != ""
	if !named {
		var err error
		if path, err = DefaultFile(); err != nil {
			return nil, err
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return load(path, named)
}

// Again reads the same files anew; c stays as it is.
func (c *Config) Again() (*Config, error) { return load(c.File, c.named) }

func load(path string, named bool) (*Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil && (named || !errors.Is(err, os.ErrNotExist)) {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	cfg, hosts, err := parse(path, raw)
	if err != nil {
		return nil, err
	}
	cfg.named = named
	if cfg.Hosts, err = loadHosts(path, hosts); err != nil {
		return nil, err
	}
	if err := cfg.useManaged(cfg.Hosts.settings); err != nil {
		return nil, inFile(cfg.Hosts.managedFile, err)
	}
	for _, l := range cfg.Listeners {
		if _, listed := cfg.Hosts.Lookup(l.Host, l.Port); !listed {
			err = errors.Join(err, fmt.Errorf("[[listener]] %s: %s is not listed; add a [[host]] table for %s", l.Listen, l, l.Host))
		}
	}
	if err := inFile(path, err); err != nil {
		return nil, err
	}
	return cfg, nil
}

// parse reads the content of the kortti.toml at path; the files that it names
// are not opened.
func parse(path string, raw []byte) (*Config, []fileHost, error) {
	var f file
	f.Card.Modules = []string{"auto"}
	f.Proxy.Listen = DefaultListen
	if err := decode(path, raw, &f); err != nil {
		return nil, nil, err
	}
	cfg := &Config{File: path, Proxy: Proxy{Listen: f.Proxy.Listen}, Control: Control{Socket: f.Control.Socket}}
	cfg.Card = Card{Modules: f.Card.Modules, IdleLock: DefaultIdleLock}
	problems := []error{
		checkModules(f.Card.Modules), inTable("[proxy]", checkLoopback(f.Proxy.Listen)),
		cfg.setIdle(f.Card.IdleLock), cfg.setUpstream(f.Proxy.Upstream),
	}
	if f.Card.IdleLock != nil {
		cfg.Fixed = append(cfg.Fixed, control.SettingIdleLock)
	}
	if f.Proxy.Upstream != nil {
		cfg.Fixed = append(cfg.Fixed, control.SettingUpstream)
	}
	if f.Control.Socket != "" && !filepath.IsAbs(f.Control.Socket) {
		problems = append(problems, fmt.Errorf("[control] socket %q must be an absolute path", f.Control.Socket))
	}
	for _, table := range f.Listener {
		l, err := table.read()
		problems = append(problems, err)
		cfg.Listeners = append(cfg.Listeners, l)
	}
	if err := inFile(path, problems...); err != nil {
		return nil, nil, err
	}
	return cfg, f.Host, nil
}

// decode reads TOML strictly: every unknown key is an error with file and line.
func decode(path string, raw []byte, into any) error {
	err := toml.NewDecoder(strings.NewReader(string(raw))).DisallowUnknownFields().Decode(into)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var all []error
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			all = append(all, fmt.Errorf("%s:%d: unknown key %q", path, row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, column := bad.Position()
		key := ""
		if len(bad.Key()) > 0 {
			key = strings.Join(bad.Key(), ".") + ": "
		}
		return fmt.Errorf("%s:%d:%d: %s%s", path, row, column, key, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func inTable(table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %w", table, err)
}

// inFile joins the errors that are not nil and puts the file's name before each.
func inFile(path string, problems ...error) error {
	var all []error
	for _, err := range problems {
		if err != nil {
			all = append(all, fmt.Errorf("%s: %w", path, err))
		}
	}
	return errors.Join(all...)
}

func checkModules(modules []string) error {
	if len(modules) == 0 {
		return errors.New(`[card] modules is empty: name a PKCS#11 module, or "auto"`)
	}
	for _, m := range modules {
		if m != "auto" && !filepath.IsAbs(m) {
			return fmt.Errorf(`[card] modules: %q must be an absolute path, or "auto"`, m)
		}
	}
	return nil
}

// checkLoopback keeps listeners off the network: whoever reaches one can log in
// with the card. A name is refused too, because what it means may change.
func checkLoopback(listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen %q: want ADDRESS:PORT, e.g. %s", listen, DefaultListen)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.Unmap().IsLoopback() {
		return fmt.Errorf("listen %q: only loopback addresses are allowed, e.g. %s", listen, DefaultListen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("listen %q: %q is not a port number", listen, port)
	}
	return nil
}
