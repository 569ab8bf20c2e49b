package presets

import (
	"net/url"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/config"
)

// Each preset can be listed as it stands, and says where it comes from.
func TestPresets(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9.-]+$`)
	seen := map[string]bool{}
	for _, p := range All() {
		if !name.MatchString(p.Name) || seen[p.Name] {
			t.Errorf("the name %q is none, or there twice", p.Name)
		}
		seen[p.Name] = true
		if p.Title == "" || p.Source == "" || len(p.Hosts) == 0 {
			t.Errorf("%s lacks its title, its source or its hosts", p.Name)
		}
		_, dayErr := time.Parse(time.DateOnly, p.Date)
		_, monthErr := time.Parse("2006-01", p.Date)
		if dayErr != nil && monthErr != nil {
			t.Errorf("%s: %q is no date", p.Name, p.Date)
		}
		for _, host := range slices.Concat(p.Hosts, p.Via) {
			if seen[host] {
				t.Errorf("%s is there twice", host)
			}
			seen[host] = true
			h, err := config.NewHost("/", host, "", "", "", "")
			if err != nil || h.String() != host {
				t.Errorf("%s: %q cannot be listed: %v", p.Name, host, err)
			}
		}
		if u, err := url.Parse(p.Start); p.Start != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
			t.Errorf("%s: %q is no place to start", p.Name, p.Start)
		}
		if got, ok := Find(p.Name); !ok || got.Title != p.Title {
			t.Errorf("%s is not found", p.Name)
		}
		for _, via := range p.Via {
			if got, ok := Behind(via); !ok || got.Name != p.Name {
				t.Errorf("%s does not lead to %s", via, p.Name)
			}
		}
	}
	if _, ok := Find("nothing"); ok {
		t.Error("a preset that does not exist was found")
	}
	if _, ok := Behind("kortti.tunnistautuminen.suomi.fi"); ok {
		t.Error("a host that asks is taken for one on the way")
	}
}
