// Package limit counts what clients do, so that one that does too much of it is
// put off. Each client has a bucket of tokens that fills up again with time.
//
//	refusals := limit.New[netip.Prefix](5, 300, time.Now)
//	if refusals.Spent(limit.Network(address)) {
//		// answer 429
//	}
package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/kortti-id/kortti/server/internal/lru"
)

// maxBuckets bounds the clients that are remembered, each with some 200 bytes.
// Whoever has more addresses than that is not stopped by counting them.
const maxBuckets = 1 << 16

// Limiter has one bucket for each client. It is safe for concurrent use.
type Limiter[Client comparable] struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu      sync.Mutex // makes one bucket of two at the same moment
	buckets *lru.Cache[Client, *rate.Limiter]
}

// New makes a Limiter of buckets that hold burst tokens and get perSecond new
// ones each second.
func New[Client comparable](perSecond, burst int, now func() time.Time) *Limiter[Client] {
	return &Limiter[Client]{rate: rate.Limit(perSecond), burst: burst, now: now, buckets: lru.New[Client, *rate.Limiter](maxBuckets)}
}

// Take takes a token and tells whether there was one.
func (l *Limiter[Client]) Take(c Client) bool {
	return l.bucket(c).AllowN(l.now(), 1)
}

// Spent tells whether there is no token left, and takes none.
func (l *Limiter[Client]) Spent(c Client) bool {
	bucket, ok := l.buckets.Get(c)
	return ok && bucket.TokensAt(l.now()) < 1
}

func (l *Limiter[Client]) bucket(c Client) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket, ok := l.buckets.Get(c)
	if !ok {
		bucket = rate.NewLimiter(l.rate, l.burst)
		l.buckets.Put(c, bucket)
	}
	return bucket
}

// Network is what counts as one client: an IPv4 address, or the /64 network of
// an IPv6 address, of which a client can take any number (RFC 6177 section 2).
// The zero Prefix stands for an address that is not known.
func Network(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	network, _ := address.Prefix(bits) // fails for the zero Addr only
	return network
}
