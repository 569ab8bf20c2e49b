package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

const listsCard = "[[host]]\nname = \"card.test\"\n"

// rewrite writes kortti.toml anew: its head as options writes it, then text.
func (r *rig) rewrite(t *testing.T, listen, text string) {
	t.Helper()
	text = "[proxy]\nlisten = \"" + listen + "\"\n[control]\nsocket = \"" + r.Socket() + "\"\n" + text
	check(t, os.WriteFile(filepath.Join(r.dir, "kortti.toml"), []byte(text), 0o600))
}

func (r *rig) listed(t *testing.T) string {
	t.Helper()
	hosts, err := r.client.Hosts(within(t))
	check(t, err)
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (f *fakeCards) idle() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.idleLock
}

// A reload takes over what can change while the agent runs, and names the rest.
func TestReload(t *testing.T) {
	cards := newFakeCards()
	r := startFake(t, cards, listsCard)
	r.rewrite(t, "127.0.0.1:1", "[card]\nidle_lock = \"5m\"\n[[host]]\nname = \"other.test\"\n")
	got, err := r.client.Reload(within(t))
	check(t, err)
	if !slices.Equal(got.Kept, []string{"[proxy] listen"}) {
		t.Errorf("kept %q", got.Kept)
	}
	changed := strings.Join(got.Changed, "\n")
	for _, want := range []string{"idle_lock: 5m0s", "card.test is not listed any more", "other.test is listed"} {
		if !strings.Contains(changed, want) {
			t.Errorf("changed %q lacks %q", got.Changed, want)
		}
	}
	if names := r.listed(t); names != "other.test" || cards.idle() != 5*time.Minute {
		t.Errorf("hosts %s, idle lock %v", names, cards.idle())
	}
	again, err := r.client.Reload(within(t))
	check(t, err)
	if len(again.Changed) != 0 || !slices.Equal(again.Kept, got.Kept) {
		t.Errorf("a second reload: %+v", again)
	}
}

// With anything wrong a reload changes nothing, and says so.
func TestReloadOfABadFile(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key":  "[card]\nidle_lock = \"5m\"\nidel = 1\n[[host]]\nname = \"other.test\"\n",
		"broken":       "[[host]]\nname = \"other.test\"\n[card\n",
		"bad host":     "[card]\nidle_lock = \"5m\"\n[[host]]\nname = \"other.test\"\n[[host]]\nname = \"a b\"\n",
		"missing file": "",
	} {
		t.Run(name, func(t *testing.T) {
			cards := newFakeCards()
			r := startFake(t, cards, listsCard)
			if r.rewrite(t, "127.0.0.1:0", text); text == "" {
				check(t, os.Remove(filepath.Join(r.dir, "kortti.toml")))
			}
			_, err := r.client.Reload(within(t))
			if e := wantCode(t, err, "configuration"); !strings.Contains(e.Hint, "Nothing has changed") || !strings.Contains(e.Message, "kortti.toml") {
				t.Errorf("%+v", e)
			}
			if names := r.listed(t); names != "card.test" || cards.idle() != 0 {
				t.Errorf("hosts %s, idle lock %v", names, cards.idle())
			}
		})
	}
}

// Settings that are changed by the API count at once, are kept, and are all
// taken over or none.
func TestSettingsAreChanged(t *testing.T) {
	cards := newFakeCards()
	r := startFake(t, cards, listsCard)
	change := func(idle, upstream string) (control.Settings, error) {
		return r.client.PutSettings(within(t), control.SettingsChange{IdleLock: &idle, Upstream: &upstream})
	}
	s, err := change("7m", "http://proxy.example:3128")
	check(t, err)
	if s.IdleLock != "7m0s" || !strings.Contains(s.Upstream, "proxy.example:3128") || cards.idle() != 7*time.Minute {
		t.Errorf("%+v, idle lock %v", s, cards.idle())
	}
	got, err := r.client.Reload(within(t))
	check(t, err)
	if len(got.Changed) != 0 {
		t.Errorf("what was set is forgotten: %q", got.Changed)
	}
	for _, bad := range [][2]string{{"soon", ""}, {"9m", "socks5://proxy.example"}} {
		if _, err := change(bad[0], bad[1]); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	check(t, os.Remove(s.ManagedFile))
	check(t, os.Mkdir(s.ManagedFile, 0o700)) // it cannot be written now
	if _, err := change("9m", ""); err == nil {
		t.Error("settings that cannot be kept were taken")
	}
	after, err := r.client.Settings(within(t))
	check(t, err)
	if after.IdleLock != s.IdleLock || after.Upstream != s.Upstream || cards.idle() != 7*time.Minute {
		t.Errorf("something was taken over: %+v, idle lock %v", after, cards.idle())
	}
}

// What belongs to a host ends when a reload drops it: connections, requests that
// wait for the person, and their prompt. Nothing dials again by itself.
func TestReloadEndsDroppedHosts(t *testing.T) {
	w := newWorld(t, "consent = \"always\"\n")
	w.unlockNow(t)
	stream := w.attend(t)
	hung := w.curling(t, "/hang")
	<-w.hanging
	dials := w.dials.Load()
	list := func(text string) {
		w.rewrite(t, "127.0.0.1:0", fmt.Sprintf("[card]\nmodules = [%q]\n%s", w.card.Module(), text))
	}
	listed := fmt.Sprintf("[[host]]\nname = %q\naddress = %q\ntls_roots = \"site.pem\"\nconsent = \"always\"\n", siteName, w.site.Listener.Addr())
	list("")
	got, err := w.client.Reload(within(t))
	check(t, err)
	if r := <-hung; r.err == nil && r.code() != "host-changed" || len(got.Changed) != 1 || len(got.Kept) != 0 {
		t.Errorf("%+v; %+v", r, got)
	}
	if n := w.transport.Counters().Connections; n != 0 || w.dials.Load() != dials {
		t.Errorf("%d connections are open, %d new ones were made", n, w.dials.Load()-dials)
	}

	list(listed) // with a new root
	_, err = w.client.Reload(within(t))
	check(t, err)
	trust, err := w.client.Trust(within(t), siteName)
	check(t, err)
	check(t, os.WriteFile(w.root, []byte(trust.PEM), 0o600))
	check(t, w.client.Lock(within(t), control.CardSelection{}))
	waiting := w.curling(t, "/")
	p := next(t, stream, control.EventPrompt).Prompt
	list("")
	_, err = w.client.Reload(within(t))
	check(t, err)
	wantReply(t, <-waiting, 503, "host-changed")
	if closed := next(t, stream, control.EventPromptClosed); closed.Prompt == nil || closed.Prompt.ID != p.ID {
		t.Errorf("%+v", closed)
	}
	if open, err := w.client.Prompts(within(t)); err != nil || len(open) != 0 {
		t.Errorf("%v %v", open, err)
	}
}

// Reloads at the same time as each other and as other changes leave what the
// files say, whoever was last.
func TestConcurrentReloads(t *testing.T) {
	r := startFake(t, newFakeCards(), listsCard)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 10 {
				if _, err := r.client.Reload(within(t)); err != nil {
					t.Errorf("reload: %v", err)
				}
			}
		})
		all.Go(func() {
			name := fmt.Sprintf("h%d.test", i)
			for range 10 {
				if _, err := r.client.PutHost(within(t), control.Host{Name: name}); err != nil {
					t.Errorf("put: %v", err)
				}
				if i%2 == 0 {
					if err := r.client.DeleteHost(within(t), name); err != nil {
						t.Errorf("delete: %v", err)
					}
				}
			}
		})
	}
	all.Wait()
	got, err := r.client.Reload(within(t))
	check(t, err)
	if names := r.listed(t); len(got.Changed) != 0 || names != "card.test h1.test h3.test h5.test h7.test" {
		t.Errorf("%s; %+v", names, got)
	}
}
