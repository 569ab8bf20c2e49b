// Package revoke asks issuing CAs whether they have withdrawn a certificate, by
// OCSP (RFC 6960, RFC 8954) and revocation lists (RFC 5280), under a stated
// policy per issuing CA. Its Client is a verify.Checker.
//
// OCSP runs over plain HTTP, and every holder of a card has a key certified by
// the very CA that is asked, so an answer is believed only after all of this:
// it is signed by that CA or by a responder that the CA has appointed for it,
// valid now; it is about this certificate (name and key of the issuer, serial
// number); it is fresh, and it repeats our nonce. golang.org/x/crypto/ocsp
// checks little of that, so this package reads the answers itself.
//
// Lists are fetched when a certificate first needs them and then anew before
// they end. They are asked first about issuing CAs and with PreferCRL, as well as
// OCSP where a rule names them, and alone where there is no responder. A
// certificate on a list is revoked under every policy.
//
// The package asks only about certificates whose chain has been verified, only
// hosts that the rule allows, follows no redirect, and never fails open unless a
// rule says so and why. Answers are kept in memory for as long as they hold, and
// over restarts in Config.Cache.
package revoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
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
	// PreferCRL asks the revocation list, and OCSP only where no list is at
	// hand; it refuses without an answer.
	PreferCRL Policy = "prefer-crl"
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
	// URL is asked by OCSP in place of those in the certificate. That of the
	// rule "*" is not asked about issuing CAs.
	URL string
	// CRL are URLs and files of revocation lists, in place of those that the
	// certificate names; a delta list belongs beside its full one.
	CRL []string
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
	Timeout time.Duration    // that a request waits for answers; 0 = 5 s
	Now     func() time.Time // nil = time.Now
	// Cache is a folder for answers and lists, made with mode 0700; "" = memory
	// only.
	Cache string
	// After is a Client, not closed yet, whose knowledge goes over to the new
	// one; optional.
	After *Client
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
	// failureLife is how long nobody is asked again about a certificate for
	// which no answer came: one person's clicks must not become a flood.
	failureLife = 2 * time.Second
	// maxURLs bounds how many of a certificate's responders and lists are tried.
	maxURLs = 3
)

// Client asks and remembers. It is safe for concurrent use. It starts a goroutine
// for each revocation list that it needs; Close ends them.
type Client struct {
	rules    map[string]*rule
	timeout  time.Duration
	now      func() time.Time
	answers  *lru.Cache[key, known]
	cache    folder
	subjects *lru.Cache[*x509.Certificate, *subject]

	ctx     context.Context // of the goroutines
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards flights and sources
	flights map[key]*flight
	sources map[sourceKey]*source

	counters *counters
}

// key is the hash of a certificate as its issuing CA numbers it: name, public
// key, serial number.
type key [sha256.Size]byte

// subject is a certificate that is asked about, with what need not be worked out
// at each request.
type subject struct {
	leaf, issuer *x509.Certificate
	rule         *rule
	key          key
	responders   []string // URLs
	addresses    []string // of lists
	sources      atomic.Pointer[[]*source]
}

// maxSubjects bounds the certificates that are remembered so.
const maxSubjects = 8192

func (c *Client) subject(leaf, issuer *x509.Certificate) *subject {
	// By pointer: the verifier hands out the same one each time.
	q, ok := c.subjects.Get(leaf)
	if ok && q.issuer == issuer {
		return q
	}
	r := c.ruleFor(issuer)
	q = &subject{
		leaf: leaf, issuer: issuer, rule: r,
		key:        key(hashOf(string(issuer.RawSubject), string(issuer.RawSubjectPublicKeyInfo), string(leaf.SerialNumber.Bytes()))),
		responders: r.responders(leaf), addresses: r.listAddresses(leaf),
	}
	c.subjects.Put(leaf, q)
	return q
}

func hashOf(parts ...string) []byte {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}

// known is what was learned about a certificate last.
type known struct {
	answer verify.Answer
	until  time.Time     // when it must be asked about again
	last   verify.Answer // the last answer of a responder, for Grace
	// unknown: the responder said that the CA never issued it; until it says
	// otherwise no policy lets the certificate in.
	unknown bool
	failure error // why there is no answer until then
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
		rules:    map[string]*rule{},
		timeout:  c.Timeout,
		now:      c.Now,
		answers:  lru.New[key, known](maxAnswers),
		subjects: lru.New[*x509.Certificate, *subject](maxSubjects),
		flights:  map[key]*flight{},
		counters: new(counters),
		sources:  map[sourceKey]*source{},
	}
	if c.After != nil {
		client.answers, client.counters = c.After.answers, c.After.counters
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
	var err error
	if client.cache, err = openFolder(c.Cache); err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	client.ctx, client.stop = context.WithCancel(context.Background())
	if c.After != nil {
		client.inherit(c.After)
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
	q := c.subject(leaf, issuer)
	responder := len(q.responders) > 0
	if leaf.IsCA && !responder && len(q.addresses) == 0 {
		return verify.Answer{Status: verify.NotAsked, Detail: fmt.Sprintf("%q names neither a revocation list nor a responder", leaf.Subject.CommonName)}, nil
	}
	listFirst := q.rule.Policy == PreferCRL || leaf.IsCA
	if !listFirst && len(q.rule.CRL) == 0 && responder {
		return c.askOCSP(ctx, q)
	}
	listed, listErr := c.askLists(ctx, q)
	switch {
	case listErr == nil && (listed.Status == verify.Revoked || listFirst || !responder):
		return listed, nil
	case responder:
		answer, err := c.askOCSP(ctx, q)
		if err != nil && listErr == nil && !isUnknown(err) {
			return listed, nil // not on it
		}
		return answer, err
	case q.rule.Policy == Open:
		c.counters.open.Add(1)
		return q.rule.letIn(listErr), nil
	}
	c.counters.failed.Add(1)
	return verify.Answer{}, listErr
}

// askOCSP answers from memory or asks.
func (c *Client) askOCSP(ctx context.Context, q *subject) (verify.Answer, error) {
	found, ok := c.answers.Get(q.key)
	if ok && c.now().Before(found.until) {
		c.counters.cached.Add(1)
		return found.answer, found.failure
	}
	c.mu.Lock()
	if f := c.flights[q.key]; f != nil {
		c.mu.Unlock()
		select {
		case <-f.done:
			return f.answer, f.err
		case <-ctx.Done():
			return verify.Answer{}, context.Cause(ctx)
		}
	}
	f := &flight{done: make(chan struct{})}
	c.flights[q.key] = f
	c.mu.Unlock()
	c.fly(ctx, f, q)
	return f.answer, f.err
}

// fly puts a question to its end although the first who asked may go away:
// others wait for the same answer. Should reading it panic, they are let go
// with none, which refuses.
func (c *Client) fly(ctx context.Context, f *flight, q *subject) {
	defer func() {
		c.mu.Lock()
		delete(c.flights, q.key)
		c.mu.Unlock()
		close(f.done)
	}()
	f.answer, f.err = c.learn(context.WithoutCancel(ctx), q)
}

// learn asks a responder and applies the rule to what comes of it.
func (c *Client) learn(ctx context.Context, q *subject) (verify.Answer, error) {
	found, ok := c.answers.Get(q.key)
	if !ok {
		if found, ok = c.recall(q); ok && c.now().Before(found.until) {
			c.answers.Put(q.key, found)
			return found.answer, nil
		}
	}
	answer, err := c.ask(ctx, q)
	if err == nil {
		c.answers.Put(q.key, known{answer: answer, until: answer.Until, last: answer})
		return answer, nil
	}
	c.counters.failed.Add(1)
	if isUnknown(err) {
		c.answers.Put(q.key, known{unknown: true})
		return verify.Answer{}, err
	}
	answer, ok = c.fallback(q.rule, found, err)
	if !ok {
		c.answers.Put(q.key, known{failure: err, until: c.now().Add(failureLife), last: found.last, unknown: found.unknown})
		return verify.Answer{}, err
	}
	c.answers.Put(q.key, known{answer: answer, until: c.now().Add(fallbackLife), last: found.last})
	return answer, nil
}

// recall reads the answer that was kept over a restart and believes it as it was
// believed when it came.
func (c *Client) recall(q *subject) (known, bool) {
	kept, ok := c.cache.answer(q.key)
	if !ok || kept.Received.After(c.now().Add(maxSkew)) {
		return known{}, false
	}
	asked, err := newQuestion(q.leaf, q.issuer)
	if err != nil {
		return known{}, false
	}
	asked.nonce = kept.Nonce
	found, err := readAnswer(kept.Response, asked, q.issuer, terms{now: kept.Received, maxAge: q.rule.MaxAge, noNonce: q.rule.NoNonce})
	if err != nil {
		c.counters.cacheRefused.Add(1)
		return known{}, false
	}
	answer := describe(found, "kept from before")
	return known{answer: answer, until: answer.Until, last: answer}, true
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
		return r.letIn(err), true
	}
	return verify.Answer{}, false
}

// letIn is the answer of policy Open where there is none.
func (r *rule) letIn(err error) verify.Answer {
	return verify.Answer{Status: verify.NotAsked, Detail: fmt.Sprintf("no answer (%v); let in by policy open: %s", err, r.Reason)}
}

// ask puts the question to the responders in turn.
func (c *Client) ask(ctx context.Context, q *subject) (answer verify.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for _, address := range q.responders {
		answer, err = c.askOne(ctx, q, address)
		if err == nil || isUnknown(err) {
			return answer, err
		}
	}
	return verify.Answer{}, err
}

// responders are the addresses that are asked about a certificate by OCSP.
func (r *rule) responders(leaf *x509.Certificate) []string {
	if r.URL != "" && (!leaf.IsCA || r.Issuer != "*") {
		return []string{r.URL}
	}
	return leaf.OCSPServer[:min(len(leaf.OCSPServer), maxURLs)]
}

func (c *Client) askOne(ctx context.Context, q *subject, address string) (verify.Answer, error) {
	target, err := q.rule.allowed(address)
	if err != nil {
		return verify.Answer{}, err
	}
	question, err := newQuestion(q.leaf, q.issuer)
	if err != nil {
		return verify.Answer{}, err
	}
	c.counters.asked.Add(1)
	der, err := post(ctx, q.rule.client, target, question.request)
	if err != nil {
		return verify.Answer{}, err
	}
	now := c.now()
	found, err := readAnswer(der, question, q.issuer, terms{now: now, maxAge: q.rule.MaxAge, noNonce: q.rule.NoNonce})
	if err != nil {
		return verify.Answer{}, fmt.Errorf("OCSP answer of %s: %w", target.Host, err)
	}
	c.cache.putAnswer(q.key, keptAnswer{now, question.nonce, der})
	if found.status == statusRevoked {
		c.counters.revoked.Add(1)
	} else {
		c.counters.good.Add(1)
	}
	return describe(found, target.Host), nil
}

// describe puts what a responder said into words.
func describe(s believed, from string) verify.Answer {
	a := verify.Answer{Status: verify.Good, Until: s.until}
	word := "good"
	if s.status == statusRevoked {
		a.Status, a.RevokedAt, a.Reason = verify.Revoked, s.revokedAt, s.reason
		word = fmt.Sprintf("revoked on %s (reason %d)", s.revokedAt.UTC().Format(time.RFC3339), s.reason)
	}
	a.Detail = fmt.Sprintf("OCSP %s: %s, as of %s, used until %s, signed by %s", from, word,
		s.thisUpdate.UTC().Format(time.RFC3339), s.until.UTC().Format(time.RFC3339), s.by)
	return a
}

// Counters are totals since the start, for metrics.
type Counters struct {
	Asked   uint64 // questions sent
	Cached  uint64 // checks answered from memory
	Listed  uint64 // checks answered by a revocation list: not on it
	Good    uint64 // believed answers: not revoked
	Revoked uint64 // believed answers: revoked
	Failed  uint64 // questions without an answer that could be believed
	Grace   uint64 // certificates let in by an old answer
	Open    uint64 // certificates let in without an answer
	// CacheRefused counts what was kept on disk and could not be believed.
	CacheRefused uint64
}

type counters struct {
	asked, cached, listed, good, revoked, failed, grace, open, cacheRefused atomic.Uint64
}

// Counters gives the totals.
func (c *Client) Counters() Counters {
	n := c.counters
	return Counters{
		Asked: n.asked.Load(), Cached: n.cached.Load(), Listed: n.listed.Load(), CacheRefused: n.cacheRefused.Load(), Good: n.good.Load(), Revoked: n.revoked.Load(),
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

// Unreachable tells which of the issuing CAs name a list or responder that their
// root's rule does not let be asked, one sentence each: with them nobody is let
// in, or by policy open everybody.
func (c *Client) Unreachable(issuing, roots []*x509.Certificate) []string {
	var problems []string
	for _, ca := range issuing {
		for _, root := range roots {
			if !bytes.Equal(ca.RawIssuer, root.RawSubject) || bytes.Equal(ca.RawSubject, ca.RawIssuer) {
				continue
			}
			r := c.ruleFor(root)
			for _, address := range slices.Concat(r.listAddresses(ca), r.responders(ca)) {
				if _, err := r.allowed(address); isURL(address) && err != nil {
					problems = append(problems, fmt.Sprintf("whether %q is revoked cannot be asked: %v", ca.Subject.CommonName, err))
				}
			}
		}
	}
	return problems
}

// Close ends the fetching of lists and closes the connections that are kept open
// for the next question. Checks may still be made; they fetch no new lists.
func (c *Client) Close() {
	c.mu.Lock() // no source begins after this
	c.stop()
	c.mu.Unlock()
	c.running.Wait()
	for _, r := range c.rules {
		r.client.CloseIdleConnections()
	}
}
