package revoke

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kortti-id/kortti/server/revoke/crl"
	"github.com/kortti-id/kortti/server/verify"
)

const (
	// maxSources bounds the lists that are kept. Only certificates of trusted
	// issuers name them.
	maxSources = 256
	// listTimeout bounds one fetch; lists may have dozens of megabytes.
	listTimeout = 2 * time.Minute
	// firstRetry and lastRetry bound the pauses after fetches that failed; each
	// is twice as long as the one before.
	firstRetry = 15 * time.Second
	lastRetry  = 10 * time.Minute
	// jitter is the part of a pause that is left out at random, so that many
	// servers do not fetch at the same moment.
	jitter = 0.25
)

// source is a place where a list of an issuer is published. It has a goroutine
// that fetches the list, once however many wait for it.
type source struct {
	client  *Client
	rule    *rule
	issuer  *x509.Certificate
	address string // URL or file
	key     sourceKey
	tried   chan struct{} // closed when there is a list, or none could be had

	current atomic.Pointer[held] // nil before the first one

	mu      sync.Mutex // held while fetching; guards what follows
	tag     string     // of the version at hand: an ETag, or a file's size and time
	problem error      // of the last fetch

	fetches, failures atomic.Uint64
}

// held is a believed list with what each look-up says of it.
type held struct {
	*crl.List
	end  time.Time // when it is no answer any more
	note string    // how old it is
	good string    // the detail of an answer that it gives
}

func (s *source) hold(l *crl.List) {
	h := &held{List: l, end: l.NextUpdate}
	if h.end.IsZero() {
		h.end = l.ThisUpdate.Add(s.rule.MaxAge)
	}
	h.note = fmt.Sprintf("as of %s, used until %s", l.ThisUpdate.Format(time.RFC3339), h.end.Format(time.RFC3339))
	h.good = fmt.Sprintf("revocation list %s: not on it, %s", s.address, h.note)
	s.current.Store(h)
}

// sourceKey tells sources apart: the lists at one address are one issuer's.
type sourceKey struct{ name, spki, address string }

// source finds or starts the source of a list. A new one begins with the list
// that is at hand, nil if there is none.
func (c *Client) source(r *rule, issuer *x509.Certificate, address string, list *crl.List) (*source, error) {
	k := sourceKey{string(issuer.RawSubject), string(issuer.RawSubjectPublicKeyInfo), address}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sources[k]; s != nil {
		return s, nil
	}
	if c.ctx.Err() != nil || len(c.sources) >= maxSources {
		return nil, fmt.Errorf("revocation list %s is not fetched: there are %d lists already, or the server ends", address, len(c.sources))
	}
	s := &source{client: c, rule: r, issuer: issuer, address: address, key: k, tried: make(chan struct{})}
	if list != nil {
		s.hold(list)
	}
	c.sources[k] = s
	c.running.Go(s.run)
	return s, nil
}

// inherit goes on with the lists of a client before, as far as the rules still
// want them, and looks for newer ones at once.
func (c *Client) inherit(before *Client) {
	for _, s := range before.allSources() {
		r, h := c.ruleFor(s.issuer), s.current.Load()
		wanted := isURL(s.address)
		if len(r.CRL) > 0 {
			wanted = slices.Contains(r.CRL, s.address)
		}
		if h != nil && wanted {
			_, _ = c.source(r, s.issuer, s.address, h.List) // an error: too many already
		}
	}
}

// run fetches the list whenever it is time, until the client is closed.
func (s *source) run() {
	first := sync.OnceFunc(func() { close(s.tried) })
	defer first()
	s.recall()
	if s.fresh() {
		first()
	}
	for retry := firstRetry; ; {
		pause := retry
		if s.fetch(s.client.ctx) == nil {
			pause, retry = s.refreshAfter(), firstRetry
		} else {
			retry = min(2*retry, lastRetry)
		}
		first()
		timer := time.NewTimer(shorten(pause, rand.Float64()))
		select {
		case <-timer.C:
		case <-s.client.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// shorten takes up to the jitter's share off a pause; by is between 0 and 1.
func shorten(pause time.Duration, by float64) time.Duration {
	return pause - time.Duration(float64(pause)*jitter*by)
}

// refreshAfter is the pause after a list was had: half of the time that it still
// has, so that a fetch may fail, and no longer than an answer may be old.
func (s *source) refreshAfter() time.Duration {
	left := s.current.Load().end.Sub(s.client.now())
	return max(firstRetry, min(left/2, s.rule.MaxAge))
}

func (s *source) fresh() bool {
	h := s.current.Load()
	return h != nil && s.client.now().Before(h.end)
}

// fetch looks whether there is a newer list and puts it into force.
func (s *source) fetch(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	s.fetches.Add(1)
	s.problem = s.renew(ctx)
	if s.problem == nil && !s.fresh() {
		s.problem = fmt.Errorf("revocation list %s is stale: %s", s.address, s.current.Load().note)
	}
	if s.problem != nil {
		s.failures.Add(1)
	}
	return s.problem
}

// renew reads the list at the source unless it is the one at hand.
func (s *source) renew(ctx context.Context) error {
	body, tag, err := s.open(ctx)
	if err != nil || body == nil {
		return err
	}
	defer body.Close()
	kept := s.client.cache.keep(s.key)
	defer kept.drop()
	list, err := crl.Read(io.TeeReader(body, kept), crl.Limits{})
	if err == nil {
		err = s.believe(list)
	}
	if err != nil {
		return fmt.Errorf("revocation list %s: %w", s.address, err)
	}
	s.hold(list)
	s.tag = tag
	kept.commit()
	return nil
}

// believe checks that a list is the issuer's and no older than the one at hand:
// whoever sits on the way could else bring back one from before a revocation.
func (s *source) believe(list *crl.List) error {
	if err := list.CheckSignature(s.issuer); err != nil {
		return err
	}
	if list.ThisUpdate.After(s.client.now().Add(maxSkew)) {
		return errors.New("it is dated in the future; compare the clocks")
	}
	have := s.current.Load()
	switch {
	case have == nil:
	case have.Number != nil && list.Number != nil && list.Number.Cmp(have.Number) < 0,
		(have.Number == nil || list.Number == nil) && list.ThisUpdate.Before(have.ThisUpdate):
		return errors.New("it is older than the one at hand, which stays")
	}
	return nil
}

// open gives the list as it is published, or nil where it has not changed.
func (s *source) open(ctx context.Context) (body io.ReadCloser, tag string, err error) {
	if !isURL(s.address) {
		file, err := os.Open(s.address)
		if err != nil {
			return nil, "", fmt.Errorf("open the revocation list: %w", err)
		}
		info, err := file.Stat()
		if err != nil {
			return nil, "", errors.Join(err, file.Close())
		}
		if tag = fmt.Sprint(info.Size(), info.ModTime().UnixNano()); tag == s.tag {
			return nil, tag, file.Close()
		}
		return file, tag, nil
	}
	target, err := s.rule.allowed(s.address)
	if err != nil {
		return nil, "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, "", err
	}
	if s.tag != "" {
		req.Header.Set("If-None-Match", s.tag)
	}
	resp, err := s.rule.client.Do(req)
	if err != nil {
		return nil, "", fmt.Errorf("fetch the revocation list: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusNotModified && s.tag != "":
		return nil, s.tag, resp.Body.Close()
	case resp.StatusCode != http.StatusOK:
		return nil, "", errors.Join(fmt.Errorf("fetch the revocation list: %s answered with status %d", target.Host, resp.StatusCode), resp.Body.Close())
	}
	return resp.Body, resp.Header.Get("ETag"), nil
}

// recall reads the list that a process before this one has kept, if it still
// proves to be the issuer's.
func (s *source) recall() {
	file := s.client.cache.list(s.key)
	if file == nil {
		return
	}
	defer file.Close()
	list, err := crl.Read(file, crl.Limits{})
	if err == nil {
		err = s.believe(list)
	}
	if err != nil {
		s.client.counters.cacheRefused.Add(1)
		return
	}
	s.hold(list)
}

func isURL(address string) bool { return strings.Contains(address, "://") }

// listAddresses are where the lists about a certificate are.
func (r *rule) listAddresses(leaf *x509.Certificate) []string {
	if len(r.CRL) > 0 {
		return r.CRL
	}
	var urls []string
	for _, address := range leaf.CRLDistributionPoints { // others are LDAP's
		if strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://") {
			urls = append(urls, address)
		}
	}
	return urls[:min(len(urls), maxURLs)]
}

// askLists answers from the revocation lists. It waits for those that have never
// been fetched.
func (c *Client) askLists(ctx context.Context, q *subject) (verify.Answer, error) {
	if len(q.addresses) == 0 {
		return verify.Answer{}, fmt.Errorf("the certificate names neither an OCSP responder nor a revocation list; set url or crl for issuer %q", q.issuer.Subject.CommonName)
	}
	sources, err := c.sourcesOf(q)
	if err != nil {
		return verify.Answer{}, err
	}
	if err := c.waitFor(ctx, sources); err != nil {
		return verify.Answer{}, err
	}
	return c.readLists(sources, q.leaf)
}

// sourcesOf finds the sources of the lists about a certificate, once.
func (c *Client) sourcesOf(q *subject) ([]*source, error) {
	if known := q.sources.Load(); known != nil {
		return *known, nil
	}
	var sources []*source
	for _, address := range q.addresses {
		s, err := c.source(q.rule, q.issuer, address, nil)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	q.sources.Store(&sources)
	return sources, nil
}

// waitFor waits until each source has been tried once. A list that takes longer
// than a request waits goes on being fetched for the next one.
func (c *Client) waitFor(ctx context.Context, sources []*source) error {
	var timeout <-chan time.Time
	for _, s := range sources {
		select {
		case <-s.tried:
			continue
		default:
		}
		if timeout == nil {
			timer := time.NewTimer(c.timeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-s.tried:
		case <-timeout:
			return nil // perhaps another list is enough
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// why is the reason for which a source has no list. A fetch under way has none
// yet, and may take longer than anybody waits here.
func (s *source) why() error {
	if !s.mu.TryLock() {
		return fmt.Errorf("revocation list %s is still being fetched", s.address)
	}
	defer s.mu.Unlock()
	return cmp.Or(s.problem, fmt.Errorf("revocation list %s has not been fetched yet", s.address))
}

// readLists looks a certificate up. A list that revokes counts under every
// policy and however old it is; one that does not must be in force.
func (c *Client) readLists(sources []*source, leaf *x509.Certificate) (verify.Answer, error) {
	var problems []error
	var best verify.Answer
	for _, s := range sources {
		full := s.current.Load()
		if full == nil {
			problems = append(problems, s.why())
			continue
		}
		if full.Base != nil || !covers(full.Scope, leaf) {
			continue
		}
		newest := newestDelta(sources, full)
		entry, revoked := lookup(full, newest, leaf)
		if revoked {
			c.counters.revoked.Add(1)
			return verify.Answer{
				Status: verify.Revoked, Until: newest.end, RevokedAt: entry.Date, Reason: int(entry.Reason),
				Detail: fmt.Sprintf("revocation list %s: revoked on %s (reason %d), %s", s.address, entry.Date.Format(time.RFC3339), entry.Reason, newest.note),
			}, nil
		}
		answer, err := c.notRevoked(s.rule, full, newest)
		if err != nil {
			problems = append(problems, fmt.Errorf("revocation list %s: %w", s.address, err))
		} else if answer.Until.After(best.Until) {
			best = answer
		}
	}
	if best.Until.IsZero() {
		return verify.Answer{}, errors.Join(append(problems, errors.New("no revocation list at hand answers for this certificate"))...)
	}
	c.counters.listed.Add(1)
	return best, nil
}

// newestDelta is the delta list that changes a full list last, or the full list.
func newestDelta(sources []*source, full *held) *held {
	newest := full
	for _, s := range sources {
		delta := s.current.Load()
		if delta != nil && changes(delta.List, full.List) && delta.Number.Cmp(newest.Number) > 0 {
			newest = delta
		}
	}
	return newest
}

func lookup(full, newest *held, leaf *x509.Certificate) (crl.Entry, bool) {
	if newest != full {
		if entry, ok := newest.Lookup(leaf.SerialNumber); ok {
			return entry, entry.Reason != crl.RemoveFromCRL
		}
	}
	return full.Lookup(leaf.SerialNumber)
}

// notRevoked is the answer of a list on which a certificate is not.
func (c *Client) notRevoked(r *rule, full, newest *held) (verify.Answer, error) {
	now := c.now()
	switch {
	case full.Scope.OnlySomeReasons:
		return verify.Answer{}, errors.New("it is about some reasons only")
	case now.Before(newest.end):
		return verify.Answer{Status: verify.Good, Until: newest.end, Detail: newest.good}, nil
	case r.Policy == Grace && now.Before(newest.end.Add(r.Grace)):
		c.counters.grace.Add(1)
		return verify.Answer{Status: verify.Good, Until: now.Add(fallbackLife), Detail: "no newer one; within grace: " + newest.good}, nil
	}
	return verify.Answer{}, fmt.Errorf("it is stale: %s", newest.note)
}

// covers tells whether a list speaks of a certificate (RFC 5280 section 6.3.3
// (b)). The name of a distribution point must be one of the certificate's; the
// address that the list came from proves nothing.
func covers(scope crl.Scope, leaf *x509.Certificate) bool {
	switch {
	case scope.OnlyAttributes, scope.NamedPointNotByURL,
		scope.OnlyUsers && leaf.IsCA, scope.OnlyCAs && !leaf.IsCA:
		return false
	case len(scope.URLs) == 0:
		return true
	}
	return slices.ContainsFunc(scope.URLs, func(url string) bool { return slices.Contains(leaf.CRLDistributionPoints, url) })
}

// changes tells whether a delta list may be put on top of a full one (RFC 5280
// section 5.2.4).
func changes(delta, full *crl.List) bool {
	return delta.Base != nil && delta.Number != nil && full.Number != nil &&
		delta.Base.Cmp(full.Number) <= 0 && full.Number.Cmp(delta.Number) < 0 &&
		delta.Scope.Equal(full.Scope)
}

// ListState is what is known of one revocation list.
type ListState struct {
	Issuer     string // common name
	Address    string // URL or file
	Entries    int
	ThisUpdate time.Time // zero while there is none
	NextUpdate time.Time // when it is no answer any more
	Fetches    uint64
	Failures   uint64
}

// Lists tells of the lists in use, by issuer and address.
func (c *Client) Lists() []ListState {
	var states []ListState
	for _, s := range c.allSources() {
		state := ListState{Issuer: s.issuer.Subject.CommonName, Address: s.address}
		if h := s.current.Load(); h != nil {
			state.Entries, state.ThisUpdate, state.NextUpdate = h.Len(), h.ThisUpdate, h.end
		}
		state.Fetches, state.Failures = s.fetches.Load(), s.failures.Load()
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b ListState) int {
		return cmp.Or(strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Address, b.Address))
	})
	return states
}

// Refresh looks at once for newer versions of all lists in use.
func (c *Client) Refresh(ctx context.Context) error {
	sources := c.allSources()
	errs := make([]error, len(sources))
	var running sync.WaitGroup
	for i, s := range sources {
		running.Go(func() { errs[i] = s.fetch(ctx) })
	}
	running.Wait()
	return errors.Join(errs...)
}

func (c *Client) allSources() []*source {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.sources))
}
