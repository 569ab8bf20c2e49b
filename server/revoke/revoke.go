// Package revoke asks issuing CAs whether they have withdrawn a certificate,
// by OCSP (RFC 6960, RFC 8954), under a stated policy per issuing CA. Its
// Client is a verify.Checker.
//
// OCSP runs over plain HTTP, and every holder of a card has a key certified by
// the very CA that is asked, so an answer is believed only after all of this:
// it is signed by that CA or by a responder that the CA has appointed for it,
// valid now; it is about this certificate (name and key of the issuer, serial
// number); it is fresh, and it repeats our nonce. golang.org/x/crypto/ocsp
// checks little of that, so this package reads the answers itself.
//
// It asks only about certificates whose chain has been verified, only hosts
// that the rule allows, follows no redirect, and never fails open unless a rule
// says so and why. Answers are kept in memory for as long as they hold. It
// reads no revocation lists.
package revoke

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/server/internal/lru"
	"github.com/kortti-id/kortti/server/verify"
)

// Policy says what happens when no answer can be had.
type Policy string

// The policies. An answer that can be believed counts under all of them:
// revoked is refused, and so is a certificate that the responder does not know.
const (
	// Must refuses without an answer. It is the policy of every issuing CA
	// that no rule names.
	Must Policy = "must"
	// Grace takes the last good answer for Rule.Grace longer.
	Grace Policy = "grace"
	// Open lets the certificate in. It needs a reason.
	Open Policy = "open"
)

// Rule is the policy for one issuing CA.
type Rule struct {
	Issuer string        // the issuing CA's common name, or "*" for all that no other rule names
	Policy Policy        // "" = Must
	Grace  time.Duration // with Grace: how long after its end a good answer still counts
	Reason string        // with Open: why, for reports and audits
	// URL is asked in place of those in the certificate.
	URL string
	// Hosts may be asked, "host" or "host:port". Empty = the hosts that the
	// verified certificate names, as long as they are not in a private or
	// local network: such responders must be listed.
	Hosts []string
	// NoNonce accepts answers that do not repeat our nonce, for responders
	// that sign in advance. Such an answer counts for at most MaxAge after its
	// making, because whoever sits on the way can send it again.
	NoNonce bool
	// MaxAge bounds how long an answer is used; 0 = one hour.
	MaxAge time.Duration
}

// Config of a Client.
type Config struct {
	Rules   []Rule
	Timeout time.Duration    // for one question, all its URLs together; 0 = 5 s
	Now     func() time.Time // nil = time.Now
}

const (
	defaultTimeout = 5 * time.Second
	defaultMaxAge  = time.Hour
	// maxAnswers bounds the answers kept, one per certificate.
	maxAnswers = 16384
	// fallbackLife is how long a stand-in for a missing answer (Grace, Open)
	// is used before the responder is tried again, so that a responder that
	// hangs does not hold up every request.
	fallbackLife = 30 * time.Second
	// maxURLs bounds how many of a certificate's responders are tried.
	maxURLs = 3
)

// Client asks and remembers. It is safe for concurrent use and starts no
// goroutine.
type Client struct {
	rules   map[string]*rule
	timeout time.Duration
	now     func() time.Time
	answers *lru.Cache[key, known]

	mu      sync.Mutex // guards flights
	flights map[key]*flight

	counters counters
}

// key is a certificate as its issuing CA numbers it: name, public key, serial.
type key struct{ name, spki, serial string }

// known is what was learned about a certificate last.
type known struct {
	answer verify.Answer
	until  time.Time     // when it must be asked about again
	last   verify.Answer // the last answer of a responder, for Grace
	// unknown: the responder said that the CA never issued it; until it says
	// otherwise no policy lets the certificate in.
	unknown bool
}

// flight is a question under way; its fields are set before done is closed.
type flight struct {
	done   chan struct{}
	answer verify.Answer
	err    error
}

// New checks the rules. A mistake in them stops the start.
func New(c Config) (*Client, error) {
	client := &Client{
		rules:   map[string]*rule{},
		timeout: c.Timeout,
		now:     c.Now,
		answers: lru.New[key, known](maxAnswers),
		flights: map[key]*flight{},
	}
	if client.timeout <= 0 {
		client.timeout = defaultTimeout
	}
	if client.now == nil {
		client.now = time.Now
	}
	for _, r := range c.Rules {
		parsed, err := newRule(r)
		if err != nil {
			return nil, fmt.Errorf("revoke: rule for issuer %q: %w", r.Issuer, err)
		}
		if client.rules[r.Issuer] != nil {
			return nil, fmt.Errorf("revoke: issuer %q has two rules; keep one", r.Issuer)
		}
		client.rules[r.Issuer] = parsed
	}
	if client.rules["*"] == nil {
		fallback, err := newRule(Rule{Issuer: "*"})
		if err != nil {
			return nil, err
		}
		client.rules["*"] = fallback
	}
	return client, nil
}

// ruleFor finds the rule of an issuing CA.
func (c *Client) ruleFor(issuer *x509.Certificate) *rule {
	if r := c.rules[issuer.Subject.CommonName]; r != nil {
		return r
	}
	return c.rules["*"]
}

// Check implements verify.Checker. An error means that there is no answer that
// the rule would let count. Concurrent questions about one certificate are
// asked once.
func (c *Client) Check(ctx context.Context, leaf, issuer *x509.Certificate) (verify.Answer, error) {
	k := key{string(issuer.RawSubject), string(issuer.RawSubjectPublicKeyInfo), string(leaf.SerialNumber.Bytes())}
	found, ok := c.answers.Get(k)
	if ok && c.now().Before(found.until) {
		c.counters.cached.Add(1)
		return found.answer, nil
	}
	c.mu.Lock()
	if f := c.flights[k]; f != nil {
		c.mu.Unlock()
		select {
		case <-f.done:
			return f.answer, f.err
		case <-ctx.Done():
			return verify.Answer{}, context.Cause(ctx)
		}
	}
	f := &flight{done: make(chan struct{})}
	c.flights[k] = f
	c.mu.Unlock()
	c.fly(ctx, f, k, leaf, issuer)
	return f.answer, f.err
}

// fly puts a question to its end although the first who asked may go away:
// others wait for the same answer. Should reading it panic, they are let go
// with none, which refuses.
func (c *Client) fly(ctx context.Context, f *flight, k key, leaf, issuer *x509.Certificate) {
	defer func() {
		c.mu.Lock()
		delete(c.flights, k)
		c.mu.Unlock()
		close(f.done)
	}()
	f.answer, f.err = c.learn(context.WithoutCancel(ctx), k, leaf, issuer)
}

// learn asks a responder and applies the rule to what comes of it.
func (c *Client) learn(ctx context.Context, k key, leaf, issuer *x509.Certificate) (verify.Answer, error) {
	r := c.ruleFor(issuer)
	answer, err := c.ask(ctx, r, leaf, issuer)
	if err == nil {
		c.answers.Put(k, known{answer: answer, until: answer.Until, last: answer})
		return answer, nil
	}
	c.counters.failed.Add(1)
	if isUnknown(err) {
		c.answers.Put(k, known{unknown: true})
		return verify.Answer{}, err
	}
	found, _ := c.answers.Get(k)
	answer, ok := c.fallback(r, found, err)
	if !ok {
		return verify.Answer{}, err
	}
	c.answers.Put(k, known{answer: answer, until: c.now().Add(fallbackLife), last: found.last})
	return answer, nil
}

// fallback is what stands in for an answer that could not be had. A
// certificate that was revoked or unknown stays out under every policy.
func (c *Client) fallback(r *rule, found known, err error) (verify.Answer, bool) {
	last := found.last
	switch {
	case found.unknown:
		return verify.Answer{}, false
	case last.Status == verify.Revoked:
		return last, true
	case r.Policy == Grace && last.Status == verify.Good && c.now().Before(last.Until.Add(r.Grace)):
		c.counters.grace.Add(1)
		last.Detail = fmt.Sprintf("no new answer (%v); within grace: %s", err, last.Detail)
		last.Until = c.now().Add(fallbackLife)
		return last, true
	case r.Policy == Open:
		c.counters.open.Add(1)
		return verify.Answer{Status: verify.NotAsked, Detail: fmt.Sprintf("no answer (%v); let in by policy open: %s", err, r.Reason)}, true
	}
	return verify.Answer{}, false
}

// ask puts the question to the responders in turn.
func (c *Client) ask(ctx context.Context, r *rule, leaf, issuer *x509.Certificate) (verify.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	urls := leaf.OCSPServer
	if r.URL != "" {
		urls = []string{r.URL}
	}
	if len(urls) == 0 {
		return verify.Answer{}, fmt.Errorf("the certificate names no OCSP responder; set one for issuer %q", issuer.Subject.CommonName)
	}
	var err error
	for _, address := range urls[:min(len(urls), maxURLs)] {
		var answer verify.Answer
		answer, err = c.askOne(ctx, r, address, leaf, issuer)
		if err == nil || isUnknown(err) {
			return answer, err
		}
	}
	return verify.Answer{}, err
}

func (c *Client) askOne(ctx context.Context, r *rule, address string, leaf, issuer *x509.Certificate) (verify.Answer, error) {
	target, err := r.allowed(address)
	if err != nil {
		return verify.Answer{}, err
	}
	question, err := newQuestion(leaf, issuer)
	if err != nil {
		return verify.Answer{}, err
	}
	c.counters.asked.Add(1)
	der, err := post(ctx, r.client, target, question.request)
	if err != nil {
		return verify.Answer{}, err
	}
	found, err := readAnswer(der, question, issuer, terms{now: c.now(), maxAge: r.MaxAge, noNonce: r.NoNonce})
	if err != nil {
		return verify.Answer{}, fmt.Errorf("OCSP answer of %s: %w", target.Host, err)
	}
	return c.answer(found, target), nil
}

// answer puts what the responder said into words.
func (c *Client) answer(s believed, target *url.URL) verify.Answer {
	a := verify.Answer{Status: verify.Good, Until: s.until}
	word := "good"
	if s.status == statusRevoked {
		a.Status, a.RevokedAt, a.Reason = verify.Revoked, s.revokedAt, s.reason
		word = fmt.Sprintf("revoked on %s (reason %d)", s.revokedAt.UTC().Format(time.RFC3339), s.reason)
		c.counters.revoked.Add(1)
	} else {
		c.counters.good.Add(1)
	}
	a.Detail = fmt.Sprintf("OCSP %s: %s, as of %s, used until %s, signed by %s", target.Host, word,
		s.thisUpdate.UTC().Format(time.RFC3339), s.until.UTC().Format(time.RFC3339), s.by)
	return a
}

// Counters are totals since the start, for metrics.
type Counters struct {
	Asked   uint64 // questions sent
	Cached  uint64 // checks answered from memory
	Good    uint64 // believed answers: not revoked
	Revoked uint64 // believed answers: revoked
	Failed  uint64 // questions without an answer that could be believed
	Grace   uint64 // certificates let in by an old answer
	Open    uint64 // certificates let in without an answer
}

type counters struct{ asked, cached, good, revoked, failed, grace, open atomic.Uint64 }

// Counters gives the totals.
func (c *Client) Counters() Counters {
	n := &c.counters
	return Counters{
		Asked: n.asked.Load(), Cached: n.cached.Load(), Good: n.good.Load(), Revoked: n.revoked.Load(),
		Failed: n.failed.Load(), Grace: n.grace.Load(), Open: n.open.Load(),
	}
}

// Warnings are what an owner should know about the rules, one sentence each.
func (c *Client) Warnings() []string {
	var warnings []string
	for issuer, r := range c.rules {
		if r.Policy == Open {
			warnings = append(warnings, fmt.Sprintf("revocation of issuer %q is open (%s): revoked cards get in while its responder cannot be reached", issuer, r.Reason))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// Close closes the connections that are kept open for the next question.
func (c *Client) Close() {
	for _, r := range c.rules {
		r.client.CloseIdleConnections()
	}
}
