package revoke

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/server/verify"
)

// clock is a clock that a test moves.
type clock struct {
	start time.Time
	ahead atomic.Int64
}

func newClock() *clock { return &clock{start: time.Now()} }

func (c *clock) now() time.Time          { return c.start.Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// bench is a PKI with its services running.
type bench struct {
	*fineidtest.PKI
	clock *clock
	host  string // of the OCSP responder
}

func newBench(t testing.TB) *bench {
	t.Helper()
	c := newClock()
	pki, err := fineidtest.New(fineidtest.Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := pki.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return &bench{pki, c, strings.TrimPrefix(pki.BaseURL(), "http://")}
}

func (b *bench) issue(t testing.TB, ca *fineidtest.CA) *fineidtest.Issued {
	t.Helper()
	issued, err := b.Issue(ca, fineidtest.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// client makes a Client with one rule; unless the rule says otherwise the
// bench's responder may be asked.
func (b *bench) client(t testing.TB, r Rule) *Client {
	t.Helper()
	if r.Issuer == "" {
		r.Issuer = "*"
	}
	if r.Hosts == nil {
		r.Hosts = []string{b.host}
	}
	c, err := New(Config{Rules: []Rule{r}, Now: b.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func check(c *Client, i *fineidtest.Issued) (verify.Answer, error) {
	return c.Check(context.Background(), i.Certificate, i.CA.Certificate)
}

func TestGoodAndRevoked(t *testing.T) {
	b := newBench(t)
	for _, ca := range []*fineidtest.CA{b.CitizenEC, b.CitizenRSA, b.OrganisationEC} {
		t.Run(ca.Name, func(t *testing.T) {
			c := b.client(t, Rule{})
			leaf := b.issue(t, ca)
			before := b.Requests().OCSP
			for range 3 {
				answer, err := check(c, leaf)
				if err != nil || answer.Status != verify.Good || !strings.Contains(answer.Detail, "a responder of the issuing CA") {
					t.Fatalf("answer %+v, error %v", answer, err)
				}
				if left := answer.Until.Sub(b.clock.now()); left <= 0 || left > time.Hour {
					t.Errorf("the answer is used for %v", left)
				}
			}
			if asked := b.Requests().OCSP - before; asked != 1 {
				t.Errorf("%d questions for three checks, want 1", asked)
			}
			if n := c.Counters(); n != (Counters{Asked: 1, Cached: 2, Good: 1}) {
				t.Errorf("counters %+v", n)
			}
			at := b.clock.now().Add(-time.Minute).UTC().Truncate(time.Second)
			if err := b.Revoke(leaf.Certificate, at, 1); err != nil {
				t.Fatal(err)
			}
			b.clock.forward(time.Hour + time.Second)
			answer, err := check(c, leaf)
			if err != nil || answer.Status != verify.Revoked || answer.Reason != 1 || !answer.RevokedAt.Equal(at) {
				t.Errorf("after its end the answer is %+v, %v", answer, err)
			}
		})
	}
}

// A responder, or whoever sits on the way to it, can say what he likes; only
// what is true, fresh and the issuing CA's is believed.
func TestAnswersThatAreNotBelieved(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name  string
		fault *atomic.Bool
		want  string // part of the error; "" = believed
	}{
		{"stale", &b.OCSP.Stale, "it is stale"},
		{"no nonce", &b.OCSP.NoNonce, "does not repeat our nonce"},
		{"wrong nonce", &b.OCSP.WrongNonce, "nonce is not ours"},
		{"signed by a holder of the same CA", &b.OCSP.WrongSigner, "not for OCSP signing"},
		{"signed by another CA's responder", &b.OCSP.OtherCA, "another CA issued"},
		{"responder's certificate has ended", &b.OCSP.ExpiredResponder, "not valid now"},
		{"bad signature", &b.OCSP.BadSignature, "signature is not the responder's"},
		{"other serial", &b.OCSP.OtherSerial, "about another certificate"},
		{"other issuer", &b.OCSP.OtherIssuer, "about another certificate"},
		{"unknown", &b.OCSP.Unknown, "does not know the certificate"},
		{"try later", &b.OCSP.TryLater, "status 3 (try later)"},
		{"garbage", &b.OCSP.Garbage, "malformed"},
		{"down", &b.OCSP.Down, "status 500"},
		{"signed by the CA itself", &b.OCSP.Direct, ""},
		{"no end of its own", &b.OCSP.NoNextUpdate, ""},
	} {
		for _, ca := range []*fineidtest.CA{b.CitizenEC, b.CitizenRSA} {
			t.Run(c.name+"/"+ca.Name, func(t *testing.T) {
				c.fault.Store(true)
				defer c.fault.Store(false)
				answer, err := check(b.client(t, Rule{}), b.issue(t, ca))
				switch {
				case c.want == "" && (err != nil || answer.Status != verify.Good):
					t.Errorf("answer %+v, error %v", answer, err)
				case c.want != "" && (err == nil || answer != verify.Answer{} || !strings.Contains(err.Error(), c.want)):
					t.Errorf("answer %+v, error %v, want %q", answer, err, c.want)
				}
			})
		}
	}
}

func TestBadSignatureOfTheCAItself(t *testing.T) {
	b := newBench(t)
	b.OCSP.Direct.Store(true)
	b.OCSP.BadSignature.Store(true)
	if _, err := check(b.client(t, Rule{}), b.issue(t, b.CitizenEC)); err == nil || !strings.Contains(err.Error(), "not the issuing CA's") {
		t.Errorf("error %v", err)
	}
}

func TestWithoutNonce(t *testing.T) {
	b := newBench(t)
	leaf := b.issue(t, b.CitizenEC)
	b.OCSP.NoNonce.Store(true)
	if answer, err := check(b.client(t, Rule{NoNonce: true}), leaf); err != nil || answer.Status != verify.Good {
		t.Errorf("answer %+v, error %v", answer, err)
	}
	b.OCSP.NoNonce.Store(false)
	b.OCSP.WrongNonce.Store(true)
	if _, err := check(b.client(t, Rule{NoNonce: true}), leaf); err == nil {
		t.Error("a foreign nonce was accepted")
	}
}

func TestPolicies(t *testing.T) {
	b := newBench(t)
	leaf := b.issue(t, b.CitizenEC)
	must := b.client(t, Rule{})
	grace := b.client(t, Rule{Policy: Grace, Grace: 2 * time.Hour})
	open := b.client(t, Rule{Policy: Open, Reason: "rehearsal"})
	named, err := New(Config{Now: b.clock.now, Rules: []Rule{
		{Issuer: leaf.CA.Certificate.Subject.CommonName, Hosts: []string{b.host}},
		{Issuer: "*", Policy: Open, Reason: "others", Hosts: []string{b.host}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(named.Close)
	if w := open.Warnings(); len(w) != 1 || !strings.Contains(w[0], "rehearsal") {
		t.Errorf("warnings %q", w)
	}

	b.OCSP.Down.Store(true)
	want := func(when string, c *Client, status verify.Status) {
		t.Helper()
		answer, err := check(c, leaf)
		if answer.Status != status || (err == nil) != (status != 0) {
			t.Errorf("%s: answer %+v, error %v, want status %d", when, answer, err, status)
		}
	}
	want("down from the start, must", must, 0)
	want("down from the start, grace", grace, 0)
	want("down from the start, open", open, verify.NotAsked)
	want("the rule by name comes before the star", named, 0)

	b.OCSP.Down.Store(false)
	b.clock.forward(fallbackLife)
	for _, c := range []*Client{must, grace, open} {
		want("up", c, verify.Good)
	}
	b.OCSP.Down.Store(true)
	want("within the answer's life, must", must, verify.Good)
	b.clock.forward(time.Hour + time.Minute)
	want("after it, must", must, 0)
	want("after it, grace", grace, verify.Good)
	asked := b.Requests().OCSP
	want("at once again, grace", grace, verify.Good)
	if n := b.Requests().OCSP; n != asked {
		t.Error("a responder that is down is asked for every request")
	}
	b.clock.forward(2 * time.Hour)
	want("after the grace", grace, 0)
	want("long after, open", open, verify.NotAsked)
	if n := grace.Counters().Grace; n != 1 {
		t.Errorf("grace was counted %d times", n)
	}
}

// What was once revoked stays out when the responder goes away, and a
// certificate that the responder does not know is nobody's, under any policy.
func TestNoPolicyOverrulesAnAnswer(t *testing.T) {
	b := newBench(t)
	leaf, forged := b.issue(t, b.CitizenEC), b.issue(t, b.CitizenEC)
	open := b.client(t, Rule{Policy: Open, Reason: "rehearsal"})
	if err := b.Revoke(leaf.Certificate, b.clock.now(), 0); err != nil {
		t.Fatal(err)
	}
	if answer, err := check(open, leaf); err != nil || answer.Status != verify.Revoked {
		t.Fatalf("answer %+v, error %v", answer, err)
	}
	b.clock.forward(2 * time.Hour)
	b.OCSP.Down.Store(true)
	if answer, err := check(open, leaf); err != nil || answer.Status != verify.Revoked {
		t.Errorf("with the responder down: answer %+v, error %v", answer, err)
	}
	b.OCSP.Down.Store(false)
	b.OCSP.Unknown.Store(true)
	if answer, err := check(open, forged); !errors.Is(err, errUnknown) {
		t.Errorf("unknown: answer %+v, error %v", answer, err)
	}
	b.OCSP.Down.Store(true)
	if answer, err := check(open, forged); err == nil {
		t.Errorf("unknown, with the responder down: answer %+v", answer)
	}

	grace := b.client(t, Rule{Policy: Grace, Grace: 24 * time.Hour})
	withdrawn := b.issue(t, b.CitizenEC)
	for _, step := range []struct {
		unknown, down, in bool
	}{{in: true}, {unknown: true}, {down: true}, {in: true}, {down: true, in: true}} {
		b.OCSP.Unknown.Store(step.unknown)
		b.OCSP.Down.Store(step.down)
		if answer, err := check(grace, withdrawn); (err == nil) != step.in {
			t.Errorf("grace, %+v: answer %+v, error %v", step, answer, err)
		}
		b.clock.forward(2 * time.Hour)
	}
}

func TestWhoMayBeAsked(t *testing.T) {
	b := newBench(t)
	leaf := b.issue(t, b.CitizenEC)
	silent, err := b.Issue(b.CitizenEC, fineidtest.Leaf{NoAIA: true, NoCRL: true})
	if err != nil {
		t.Fatal(err)
	}
	ocsp := b.BaseURL() + "/ocsp/" + b.CitizenEC.Name
	redirect := httptest.NewServer(http.RedirectHandler(ocsp, http.StatusTemporaryRedirect))
	defer redirect.Close()
	flood := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, maxAnswer+1))
	}))
	defer flood.Close()
	for _, c := range []struct {
		name string
		Rule
		leaf *fineidtest.Issued
		want string
	}{
		{"host and port", Rule{Hosts: []string{b.host}}, leaf, ""},
		{"host", Rule{Hosts: []string{"127.0.0.1"}}, leaf, ""},
		{"nothing listed, loopback", Rule{Hosts: []string{}}, leaf, "private or local network"},
		{"another host listed", Rule{Hosts: []string{"ocsp.example.fi"}}, leaf, "not among the hosts"},
		{"another port listed", Rule{Hosts: []string{"127.0.0.1:1"}}, leaf, "not among the hosts"},
		{"no address in the certificate", Rule{Hosts: []string{b.host}}, silent, "names neither"},
		{"address from the rule", Rule{URL: ocsp, Hosts: []string{}}, silent, ""},
		{"redirect", Rule{URL: redirect.URL, Hosts: []string{"127.0.0.1"}}, leaf, "status 307"},
		{"flood", Rule{URL: flood.URL, Hosts: []string{"127.0.0.1"}}, leaf, "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := check(b.client(t, c.Rule), c.leaf)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	b := newBench(t)
	b.OCSP.Delay.Store(int64(time.Hour))
	c, err := New(Config{Rules: []Rule{{Issuer: "*", Hosts: []string{b.host}}}, Timeout: 20 * time.Millisecond, Now: b.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := check(c, b.issue(t, b.CitizenEC)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// Many requests of one person, whose first has already gone away, make one
// question.
func TestConcurrentChecksAskOnce(t *testing.T) {
	b := newBench(t)
	leaf := b.issue(t, b.CitizenEC)
	reached, release := make(chan struct{}), make(chan struct{})
	var questions atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if questions.Add(1) == 1 {
			close(reached)
		}
		<-release
		b.Handler().ServeHTTP(w, r)
	}))
	defer server.Close()
	c := b.client(t, Rule{URL: server.URL + "/ocsp/" + b.CitizenEC.Name, Hosts: []string{}})

	ctx, leave := context.WithCancel(context.Background())
	var done, started sync.WaitGroup
	done.Go(func() { _, _ = c.Check(ctx, leaf.Certificate, leaf.CA.Certificate) })
	<-reached
	leave()
	const others = 50
	started.Add(others)
	for range others {
		done.Go(func() {
			started.Done()
			if answer, err := check(c, leaf); err != nil || answer.Status != verify.Good {
				t.Errorf("answer %+v, error %v", answer, err)
			}
		})
	}
	started.Wait()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Check(gone, leaf.Certificate, leaf.CA.Certificate); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that goes away gets %v", err)
	}
	close(release)
	done.Wait()
	if n := questions.Load(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
}

func TestRules(t *testing.T) {
	for name, c := range map[string]struct {
		rules []Rule
		want  string
	}{
		"none":               {nil, ""},
		"no issuer":          {[]Rule{{}}, "is missing"},
		"twice":              {[]Rule{{Issuer: "*"}, {Issuer: "*"}}, "two rules"},
		"unknown policy":     {[]Rule{{Issuer: "*", Policy: "soft"}}, "unknown policy"},
		"open, no reason":    {[]Rule{{Issuer: "*", Policy: Open, Reason: " "}}, "needs a reason"},
		"grace, no time":     {[]Rule{{Issuer: "*", Policy: Grace}}, "needs a time"},
		"time without grace": {[]Rule{{Issuer: "*", Grace: time.Hour}}, "no meaning"},
		"negative age":       {[]Rule{{Issuer: "*", MaxAge: -1}}, "negative"},
		"host is a URL":      {[]Rule{{Issuer: "*", Hosts: []string{"http://ocsp.example.fi"}}}, "is not a host"},
		"URL is ldap":        {[]Rule{{Issuer: "*", URL: "ldap://ocsp.example.fi"}}, "plain http"},
		"URL not listed":     {[]Rule{{Issuer: "*", URL: "http://a.example.fi", Hosts: []string{"b.example.fi"}}}, "not among the hosts"},
	} {
		if _, err := New(Config{Rules: c.rules}); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestPublicOnly(t *testing.T) {
	for address, public := range map[string]bool{
		"193.166.3.2:80": true, "[2001:708::1]:80": true,
		"127.0.0.1:80": false, "[::1]:80": false, "10.1.2.3:80": false, "172.16.0.1:80": false, "192.168.0.1:80": false,
		"169.254.169.254:80": false, "100.64.0.1:80": false, "0.0.0.0:80": false, "[fd00::1]:80": false, "[fe80::1%eth0]:80": false,
		"[::ffff:127.0.0.1]:80": false, "224.0.0.1:80": false, "255.255.255.255:80": false, "nonsense": false,
	} {
		if err := publicOnly(context.Background(), "tcp", address, nil); (err == nil) != public {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAllowedURLs(t *testing.T) {
	r, err := newRule(Rule{Issuer: "*"})
	if err != nil {
		t.Fatal(err)
	}
	for address, ok := range map[string]bool{
		"http://ocsp.fineid.fi/dvvcqc4ec": true, "https://ocsp.fineid.fi/": true,
		"ftp://ocsp.fineid.fi/": false, "file:///etc/passwd": false, "http://user@ocsp.fineid.fi/": false, "//ocsp": false, "": false, "http://": false, ":": false,
	} {
		if u, err := r.allowed(address); (err == nil) != ok {
			t.Errorf("%q: %v, %v", address, (*url.URL)(u), err)
		}
	}
}
