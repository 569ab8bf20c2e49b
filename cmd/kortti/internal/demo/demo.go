// Package demo logs a test card in to a demo service, from end to end, with
// the real programs: SoftHSM behind a counting shim, a test PKI with OCSP,
// kortti-server, a relying party and the agent. It shows each step in a line.
//
// It needs no card, no browser and no configuration, listens on loopback only
// and leaves nothing behind. It loads no PKCS#11 module into its own process.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// The load that one signature has to carry.
const (
	clients           = 16
	requestsPerClient = 4
)

// Options say where the demo prints and whether it stays.
type Options struct {
	Out io.Writer
	// Keep leaves everything running until ctx ends.
	Keep bool
}

// Run runs the demo. On success its last line is
//
//	demo: ok user=<SATU> signatures=<n> requests=<m>
//
// where the user is what the server's /whoami says and the signatures are
// counted by the shim in front of the PKCS#11 module. With Keep, what is left
// running comes after it. Cancelling ctx ends it; nothing stays either way.
func Run(ctx context.Context, o Options) (err error) {
	runtime.LockOSThread() // see dieWithParent
	defer runtime.UnlockOSThread()
	dir, err := os.MkdirTemp("", "kortti-demo-")
	if err != nil {
		return err
	}
	s := &story{out: o.Out, world: &world{dir: dir}}
	defer func() {
		if ctx.Err() != nil && !s.finished {
			err = errors.New("interrupted; nothing was left behind")
		}
		err = errors.Join(err, s.end())
	}()
	for _, chapter := range []func(context.Context) error{s.build, s.firstLogin, s.approval, s.load, s.relyingParty, s.pull, s.sum} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	if o.Keep {
		return s.keep(ctx)
	}
	return nil
}

// story is the demo as it is told.
type story struct {
	*world
	out      io.Writer
	requests int    // through the proxy, answered by a service
	user     string // as /whoami says
	finished bool
}

func (s *story) say(what, format string, args ...any) {
	fmt.Fprintf(s.out, "%-8s %s\n", what, fmt.Sprintf(format, args...))
}

// detail is a line that belongs to the one before it.
func (s *story) detail(format string, args ...any) { s.say("", "→ "+format, args...) }

func (s *story) build(ctx context.Context) error {
	if err := s.programs(); err != nil {
		return err
	}
	if err := s.makePKI(); err != nil {
		return err
	}
	s.say("PKI", "a FINeID-shaped root and issuing CA, OCSP responder at %s", s.pkiURL)
	if err := s.makeCard(ctx); err != nil {
		return err
	}
	s.say("card", "a SoftHSM test card with a P-384 key: %s, PIN %s", s.holder, testPIN)
	if err := s.startServer(ctx); err != nil {
		return err
	}
	s.say("server", "kortti-server as https://%s (%s); new users are inactive", loginHost, s.loginAt)
	if err := s.startSite(ctx); err != nil {
		return err
	}
	s.say("site", "examples/relyingparty as https://%s (%s)", siteHost, s.siteAt)
	if err := s.startAgent(ctx); err != nil {
		return err
	}
	s.say("agent", "kortti agent, proxy at %s; both hosts are listed", s.proxy)
	return nil
}

// firstLogin enters a wrong PIN once, then the right one, and finds that the
// new user has to wait.
func (s *story) firstLogin(ctx context.Context) error {
	if err := s.wrongPIN(ctx); err != nil {
		return err
	}
	s.say("curl", "logs in to https://%s/login through the proxy", loginHost)
	var page response
	answered, err := s.answering(ctx, func(ctx context.Context) (err error) {
		page, err = s.curl(ctx, "--data", "", "https://"+loginHost+"/login")
		return err
	})
	if err != nil {
		return err
	}
	s.detail("the agent asked for the PIN %s; the card signed %s", times(answered), times(s.signatures(ctx)))
	if !strings.Contains(page.body, "inactive") || !strings.HasSuffix(page.url, "/inactive") {
		return fmt.Errorf("the new user should be sent to /inactive, but curl ended at %s with status %d:\n%s", page.url, page.status, page.body)
	}
	s.detail("sent to %s: the account waits for approval", page.url)
	who, err := s.whoamiCurl(ctx)
	if err != nil {
		return err
	}
	if who.Authenticated {
		return errors.New("an inactive user was let in")
	}
	s.detail("/whoami says authenticated=false, reason=%s", who.Reason)
	return nil
}

func (s *story) wrongPIN(ctx context.Context) error {
	s.say("PIN", "a wrong PIN is entered, and the same once more")
	first := s.unlock(ctx, "9999")
	second := s.unlock(ctx, "9999")
	logins, err := s.count(ctx, "C_Login")
	if err != nil {
		return err
	}
	if first == nil || second == nil || logins != 1 {
		return fmt.Errorf("a wrong PIN twice should be one C_Login and two errors, not %d logins (%v; %v)", logins, first, second)
	}
	s.detail("first: %s", message(first))
	s.detail("again: %s", message(second))
	s.detail("the card was asked %s", times(logins))
	return nil
}

// message is what went wrong, without the hint.
func message(err error) string {
	var ce *control.Error
	if errors.As(err, &ce) {
		return ce.Message
	}
	return err.Error()
}

func (s *story) approval(ctx context.Context) error {
	if _, err := output(ctx, s.dir, s.server, "users", "approve", s.satu, "--config", s.path("server.toml")); err != nil {
		return err
	}
	s.say("approve", "kortti-server users approve %s", s.satu)
	s.say("curl", "logs in again")
	page, err := s.curl(ctx, "--data", "", "https://"+loginHost+"/login")
	if err != nil {
		return err
	}
	who, err := s.whoamiCurl(ctx)
	if err != nil {
		return err
	}
	if !who.Authenticated || who.User.Username != s.satu {
		return fmt.Errorf("the approved user should be in; curl ended at %s and /whoami says %+v", page.url, who)
	}
	s.user = who.User.Username
	s.detail("%s; /whoami: %s %s, user %s", page.url, who.User.FirstName, who.User.LastName, who.User.Username)
	return nil
}

// load sends many requests from clients that all start cold and at once.
func (s *story) load(ctx context.Context) error {
	n, err := s.goClients(ctx, clients, requestsPerClient)
	if err != nil {
		return err
	}
	s.requests += n
	signatures := s.signatures(ctx)
	s.say("Go", "%d Go clients, cold and at once, made %d requests as %s", clients, n, s.user)
	if signatures != 1 {
		return fmt.Errorf("one signature should serve all requests to %s, not %d", loginHost, signatures)
	}
	s.detail("still %s for %s", plural(signatures, "signature"), loginHost)
	return nil
}

func (s *story) relyingParty(ctx context.Context) error {
	s.say("site", "the same card logs in to https://%s", siteHost)
	page, err := s.curl(ctx, "--data", "", "https://"+siteHost+"/login")
	if err != nil {
		return err
	}
	if page, err = s.curl(ctx, "https://"+siteHost+"/"); err != nil {
		return err
	}
	if page.status != 200 || !strings.Contains(page.body, "Liisa") {
		return fmt.Errorf("the site should greet Liisa, but answered %d:\n%s", page.status, page.body)
	}
	s.detail("%q", strings.TrimSpace(page.body))
	signatures := s.signatures(ctx)
	if signatures != 2 {
		return fmt.Errorf("a second host should cost one more signature: 2, not %d", signatures)
	}
	s.detail("%s in all: one for each host", plural(signatures, "signature"))
	return nil
}

func (s *story) pull(ctx context.Context) error {
	if _, err := output(ctx, s.dir, s.kortti, "testcard", "pull", s.card); err != nil {
		return err
	}
	pulled := time.Now()
	s.say("pull", "the card is pulled out")
	for {
		page, err := s.curl(ctx, "https://"+loginHost+"/whoami")
		if err != nil {
			return err
		}
		took := time.Since(pulled).Round(10 * time.Millisecond)
		if page.status != 200 {
			s.detail("after %v the next request gets %d: %s", took, page.status, strings.ReplaceAll(strings.TrimSpace(page.body), "\n", ". "))
			return nil
		}
		if took > 2*time.Second {
			return fmt.Errorf("%v after the card was pulled a request still got %d", took, page.status)
		}
	}
}

func (s *story) sum(ctx context.Context) error {
	signatures := s.signatures(ctx)
	fmt.Fprintf(s.out, "demo: ok user=%s signatures=%d requests=%d\n", s.user, signatures, s.requests)
	s.finished = true
	return nil
}

// keep says what may be tried and waits.
func (s *story) keep(ctx context.Context) error {
	if _, err := output(ctx, s.dir, s.kortti, "testcard", "insert", s.card); err != nil {
		return err
	}
	if err := s.seesCard(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	socket := s.path("agent.sock")
	fmt.Fprintf(s.out, `
Left running; Ctrl-C ends and removes everything. The card is inserted again, its PIN is %[1]s.

  control socket  %[2]s
  proxy           %[3]s
  server          https://%[4]s (%[5]s), its log is %[6]s/server.log
  site            https://%[7]s (%[8]s)

Answer PIN questions in a second terminal:
  %[9]s prompt --socket %[2]s
Then, in a third:
  cd %[6]s
  %[9]s trust print %[7]s --socket %[2]s > root.pem
  curl --proxy http://%[3]s --cacert root.pem --cookie-jar jar --data '' https://%[7]s/login
  curl --proxy http://%[3]s --cacert root.pem --cookie jar https://%[7]s/
The first curl logs in, once the PIN is entered; the second is greeted.
A browser needs the proxy %[3]s and that root in its trusted authorities; begin at /login.
`, testPIN, socket, s.proxy, loginHost, s.loginAt, s.dir, siteHost, s.siteAt, s.kortti)
	<-ctx.Done()
	return nil
}

func times[N int | uint64](n N) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
