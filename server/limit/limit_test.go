package limit_test

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/server/limit"
)

func TestTake(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := limit.New[string](2, 3, func() time.Time { return now })
	for i, want := range []bool{true, true, true, false} {
		if l.Spent("a") == want || l.Take("a") != want {
			t.Errorf("%d: want %v", i, want)
		}
	}
	if l.Spent("b") || !l.Take("b") {
		t.Error("another client pays for the first one")
	}
	now = now.Add(500 * time.Millisecond)
	if l.Spent("a") || !l.Take("a") || l.Take("a") {
		t.Error("half a second fills in one token")
	}
}

// Of clients that come at the same moment no more pass than there are tokens.
func TestConcurrent(t *testing.T) {
	now := time.Now()
	l := limit.New[int](1, 50, func() time.Time { return now })
	var passed atomic.Int32
	var running sync.WaitGroup
	for range 200 {
		running.Go(func() {
			if l.Take(1) {
				passed.Add(1)
			}
		})
	}
	running.Wait()
	if passed.Load() != 50 {
		t.Errorf("%d passed, want 50", passed.Load())
	}
}

func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := limit.Network(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if limit.Network(netip.Addr{}).IsValid() {
		t.Error("no address is a network")
	}
}
