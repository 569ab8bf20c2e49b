package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/kortti-id/kortti/agent/internal/atomicfile"
	"github.com/kortti-id/kortti/card"
)

// choices are the certificates that the person chose for hosts: those to be
// remembered in a file, the others until the card is locked or removed.
type choices struct {
	path string

	mu     sync.Mutex        // guards what follows, and the file
	byHost map[string]string // host -> SHA-256 of the certificate; in the file
	once   map[string]string // the same, not in the file
}

func openChoices(path string) (*choices, error) {
	c := &choices{path: path, once: make(map[string]string)}
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		raw, err = []byte("{}"), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the choices of certificates: %w", err)
	}
	if c.byHost, err = parseChoices(raw); err != nil {
		return nil, fmt.Errorf("read the choices of certificates in %s: %w; delete the file to be asked anew", path, err)
	}
	return c, nil
}

func parseChoices(raw []byte) (map[string]string, error) {
	var byHost map[string]string
	if err := json.Unmarshal(raw, &byHost); err != nil {
		return nil, err
	}
	for host, f := range byHost {
		if _, err := card.ParseFingerprint(f); err != nil || host == "" {
			return nil, fmt.Errorf("host %q: %w", host, err)
		}
	}
	return byHost, nil
}

// get returns the choice for a host, "" when there is none.
func (c *choices) get(host string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.once[host]; f != "" {
		return f
	}
	return c.byHost[host]
}

// end forgets the choices of a certificate that were not to be remembered.
func (c *choices) end(certificate string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.once, func(_, f string) bool { return f == certificate })
}

// put keeps a choice; "" forgets it. What cannot be written is not kept.
func (c *choices) put(host, certificate string, remember bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if certificate != "" && !remember {
		c.once[host] = certificate
		return nil
	}
	delete(c.once, host)
	next := maps.Clone(c.byHost)
	if next == nil {
		next = make(map[string]string)
	}
	if next[host] = certificate; certificate == "" {
		delete(next, host)
	}
	raw, err := json.MarshalIndent(next, "", "\t")
	if err == nil {
		err = atomicfile.Write(c.path, append(raw, '\n'))
	}
	if err == nil {
		c.byHost = next
	}
	return err
}
