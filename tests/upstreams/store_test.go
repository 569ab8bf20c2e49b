package upstreams_test

import (
	"strings"
	"sync"

	"github.com/kortti-id/kortti/tlsclient"
)

// store keeps profiles beyond the life of a transport.
type store struct {
	mu  sync.Mutex
	all map[string]tlsclient.Profile
}

func newStore() *store { return &store{all: make(map[string]tlsclient.Profile)} }

func (s *store) config(c *tlsclient.Config) { c.Profiles = s }

func (s *store) Get(host, port string) (tlsclient.Profile, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.all[host+":"+port]
	return p, ok
}

func (s *store) Put(p tlsclient.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[p.Host+":"+p.Port] = p
	return nil
}

func (s *store) Delete(host, port string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.all {
		if k == host+":"+port || port == "" && strings.HasPrefix(k, host+":") {
			delete(s.all, k)
		}
	}
	return nil
}
