package peer

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Many connections whose programs are asked for at once cost one search.
func TestManyAtOnce(t *testing.T) {
	const connections = 100
	f := NewFinder()
	f.processes.searching.Lock() // as if a search were under way
	var asked sync.WaitGroup
	for range connections {
		near, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
		p, err := lookup(f, near)
		if err != nil {
			t.Fatal(err)
		}
		asked.Go(func() {
			if got := p.Program(); got.PID != os.Getpid() {
				t.Errorf("%+v", got)
			}
		})
	}
	// A socket that nobody holds any more must not keep the others waiting.
	asked.Go(func() {
		if got := f.processes.find(f.uid, 0); got != (Program{}) {
			t.Errorf("%+v", got)
		}
	})
	waiting := func() int {
		f.processes.mu.Lock()
		defer f.processes.mu.Unlock()
		if f.processes.next == nil {
			return 0
		}
		return len(f.processes.next.wanted)
	}
	for end := time.Now().Add(20 * time.Second); waiting() < connections+1; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("only %d wait for the search", waiting())
		}
	}
	one := f.processes.next
	f.processes.searching.Unlock()
	asked.Wait()
	if len(one.found) != connections {
		t.Errorf("one search found %d of %d", len(one.found), connections)
	}
}
