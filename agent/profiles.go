package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/internal/atomicfile"
	"github.com/kortti-id/kortti/tlsclient"
)

// maxProfiles limits the file; a learning agent whose store is full forgets the
// oldest.
const maxProfiles = 1000

// profiles keeps what was learned about hosts, in a file: the agent's
// tlsclient.ProfileStore.
type profiles struct {
	path string

	mu  sync.Mutex // guards all, and the file
	all map[hostPort]tlsclient.Profile
}

type hostPort struct{ host, port string }

// openProfiles reads the file, which may be missing. What it holds can be
// learned anew, but a damaged file is an error like the others of the state.
func openProfiles(path string) (*profiles, error) {
	s := &profiles{path: path, all: make(map[hostPort]tlsclient.Profile)}
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the profiles of hosts: %w", err)
	}
	list, err := parseProfiles(raw)
	if err != nil {
		return nil, fmt.Errorf("read the profiles of hosts in %s: %w; delete the file to have them learned anew", path, err)
	}
	for _, p := range list {
		s.all[hostPort{p.Host, p.Port}] = tlsclient.Profile(p)
	}
	return s, nil
}

// parseProfiles reads a file's content strictly.
func parseProfiles(raw []byte) ([]control.Profile, error) {
	var list []control.Profile
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the list")
	}
	if len(list) > maxProfiles {
		return nil, fmt.Errorf("more than %d profiles", maxProfiles)
	}
	seen := make(map[hostPort]bool)
	for _, p := range list {
		port, err := strconv.ParseUint(p.Port, 10, 16)
		switch key := (hostPort{p.Host, p.Port}); {
		case p.Host == "" || p.Host != strings.ToLower(p.Host) || strings.ContainsAny(p.Host, " \t\r\n/@"):
			return nil, fmt.Errorf("%q is no host", p.Host)
		case err != nil || port == 0 || strconv.FormatUint(port, 10) != p.Port:
			return nil, fmt.Errorf("%q is no port", p.Port)
		case p.Since.IsZero() || p.Reason == "":
			return nil, fmt.Errorf("host %q: no reason, or no time", p.Host)
		case seen[key]:
			return nil, fmt.Errorf("host %q is there twice", p.Host)
		default:
			seen[key] = true
		}
	}
	return list, nil
}

// Get implements tlsclient.ProfileStore.
func (s *profiles) Get(host, port string) (tlsclient.Profile, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.all[hostPort{host, port}]
	return p, ok
}

// Put implements tlsclient.ProfileStore. What cannot be written counts all the
// same until the agent ends.
func (s *profiles) Put(p tlsclient.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := hostPort{p.Host, p.Port}
	if _, known := s.all[key]; !known && len(s.all) >= maxProfiles {
		oldest := slices.MinFunc(s.sorted(), func(a, b control.Profile) int { return a.Since.Compare(b.Since) })
		delete(s.all, hostPort{oldest.Host, oldest.Port})
	}
	s.all[key] = p
	return s.write()
}

// Delete implements tlsclient.ProfileStore.
func (s *profiles) Delete(host, port string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.all)
	maps.DeleteFunc(s.all, func(k hostPort, _ tlsclient.Profile) bool {
		return k.host == host && (port == "" || k.port == port)
	})
	if len(s.all) == before {
		return nil
	}
	return s.write()
}

// prune forgets the hosts that are not listed any more.
func (s *profiles) prune(listed func(host, port string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.all)
	maps.DeleteFunc(s.all, func(k hostPort, _ tlsclient.Profile) bool { return !listed(k.host, k.port) })
	if len(s.all) == before {
		return nil
	}
	return s.write()
}

// list returns all profiles that count, by host.
func (s *profiles) list() []control.Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(s.sorted(), func(p control.Profile) bool { return time.Since(p.Since) > tlsclient.ProfileLife })
}

// of returns those of a host; port "" means all its ports.
func (s *profiles) of(host, port string) []control.Profile {
	return slices.DeleteFunc(s.list(), func(p control.Profile) bool { return p.Host != host || port != "" && p.Port != port })
}

// sorted returns what is kept. The caller holds the lock.
func (s *profiles) sorted() []control.Profile {
	list := make([]control.Profile, 0, len(s.all))
	for _, p := range s.all {
		list = append(list, control.Profile(p))
	}
	slices.SortFunc(list, func(a, b control.Profile) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), strings.Compare(a.Port, b.Port))
	})
	return list
}

// write replaces the file. The caller holds the lock.
func (s *profiles) write() error {
	raw, err := json.MarshalIndent(s.sorted(), "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path, append(raw, '\n'))
}

func (a *Agent) getProfiles(*http.Request) (any, error) { return a.profiles.list(), nil }

// deleteProfile forgets what was learned about a host ("name" or "name:port").
func (a *Agent) deleteProfile(r *http.Request) (any, error) {
	name := strings.ToLower(strings.TrimSuffix(r.PathValue("host"), "."))
	host, port := name, ""
	if h, p, err := net.SplitHostPort(name); err == nil {
		host, port = h, p
	}
	if len(a.profiles.of(host, port)) == 0 {
		return nil, &control.Error{Code: control.CodeNotFound, Status: http.StatusNotFound,
			Message: "nothing special is known about " + name, Hint: "See what was learned with: kortti profiles"}
	}
	return nil, a.transport.ResetProfile(name)
}
