package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// What a request may come to, beside the codes of the proxy's own answers.
const (
	done  = "done"
	left  = "left"  // the program went away, as it had meant to
	cut   = "cut"   // the connection ended before the answer did
	bad   = "bad"   // an answer that is not this request's
	stuck = "stuck" // no end within stuckAfter
	erred = "error" // the host's own error answer
)

// stuckAfter is when a request is taken for stuck. It lies beyond all time-outs
// of the agent.
const stuckAfter = 200 * time.Second

// program is one program on the machine, with a connection of its own.
type program struct {
	w     *world
	name  string
	kind  *kind
	web   *http.Transport
	turns int
	rand  *rand.Rand
}

// kind is what a program does all the time: one turn at one of its hosts.
type kind struct {
	name  string
	share int // of 20 programs
	http2 bool
	long  bool // turns last, whatever the machine
	hosts []string
	turn  func(p *program, ctx context.Context, host string) (result string)
}

// listed are the hosts that work. At the last of them consent is asked.
var (
	listed  = []string{annaH2, berttaH2, anna12, berttaH1}
	unasked = listed[:3]
)

func kinds() []*kind {
	return []*kind{
		{"get over HTTP/1.1", 4, false, false, listed, (*program).get},
		{"get over HTTP/2", 4, true, false, listed, (*program).get},
		{"post over HTTP/1.1", 1, false, false, listed, (*program).post},
		{"post over HTTP/2", 1, true, false, listed, (*program).post},
		{"events over HTTP/1.1", 1, false, true, listed, (*program).events},
		{"events over HTTP/2", 1, true, true, listed, (*program).events},
		{"switched protocol", 1, false, true, listed, (*program).switched},
		{"new connections", 1, true, false, listed, (*program).getAnew},
		{"tunnel", 1, true, false, []string{"unlisted"}, (*program).tunnel},
		{"absolute form", 1, false, false, []string{"unlisted"}, (*program).plain},
		// Nobody knows any more what program it was, which would be asked about.
		{"leaving", 1, true, false, unasked, (*program).leave},
		{"vanishing", 1, false, false, unasked, (*program).vanish},
		{"failing hosts", 1, true, false, []string{failH2, failH1}, (*program).failing},
		{"hosts out of reach", 1, false, false, []string{refused, stranger, reset, silent}, (*program).outOfReach},
	}
}

func newProgram(w *world, i int, k *kind) *program {
	p := &program{w: w, name: fmt.Sprintf("p%d", i), kind: k, rand: rand.New(rand.NewPCG(1, uint64(i)))}
	p.web = &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: w.agent.proxy}), DialContext: w.dial,
		TLSClientConfig: &tls.Config{RootCAs: w.roots, CurvePreferences: quick}, ForceAttemptHTTP2: k.http2, DisableCompression: true,
	}
	return p
}

// run makes turns until the load is over, and tells of the first.
func (p *program) run(over <-chan struct{}, first func()) {
	defer p.web.CloseIdleConnections()
	for {
		began := time.Now()
		host := p.kind.hosts[p.rand.IntN(len(p.kind.hosts))]
		p.turns++
		ctx, cancel := context.WithTimeout(context.Background(), stuckAfter)
		result := p.kind.turn(p, ctx, host)
		if ctx.Err() != nil {
			result = stuck
		}
		cancel()
		p.w.tally.add(p.kind.name, host, result)
		if p.turns == 1 {
			first()
		}
		select {
		case <-over:
			return
		case <-time.After(p.pause(time.Since(began))):
		}
	}
}

// pause is how long a program does nothing after a turn: as programs do, and the
// longer the more the machine has to do, so that what is tested is the agent and
// not what a busy machine makes of time-outs.
func (p *program) pause(took time.Duration) time.Duration {
	pause := time.Duration(1000+p.rand.IntN(5000)) * time.Millisecond
	if !p.kind.long {
		pause += 20 * took
	}
	return min(pause, time.Minute)
}

// request makes a request with an id of its own.
func (p *program) request(ctx context.Context, method, url string, content io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		panic(err)
	}
	req.Header.Set("X-Id", fmt.Sprintf("%s-%d", p.name, p.turns))
	return req
}

// exchange sends a request and compares the answer with want.
func (p *program) exchange(req *http.Request, want []byte) string {
	resp, err := p.web.RoundTrip(req)
	if err != nil {
		p.w.tally.note(p.kind.name, err)
		return cut
	}
	defer resp.Body.Close()
	if result := verdict(resp, req); result != done {
		io.Copy(io.Discard, resp.Body)
		return result
	}
	got, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		p.w.tally.note(p.kind.name, fmt.Errorf("after %d of %d bytes: %w", len(got), len(want), err))
		return cut
	case !bytes.Equal(got, want):
		return bad
	}
	return done
}

// verdict judges an answer's header.
func verdict(resp *http.Response, req *http.Request) string {
	switch code := resp.Header.Get("X-Kortti-Error"); {
	case code != "":
		return code
	case resp.Header.Get("X-Id") != req.Header.Get("X-Id"):
		return bad
	case resp.StatusCode == http.StatusInternalServerError:
		return erred
	case resp.StatusCode != http.StatusOK:
		return bad
	}
	return done
}

func (p *program) get(ctx context.Context, host string) string {
	size := p.rand.IntN(32 << 10)
	req := p.request(ctx, "GET", fmt.Sprintf("https://%s/get?size=%d", host, size), nil)
	return p.exchange(req, body(req.Header.Get("X-Id"), size))
}

// getAnew is a program that makes a new connection for each request.
func (p *program) getAnew(ctx context.Context, host string) string {
	defer p.web.CloseIdleConnections()
	return p.get(ctx, host)
}

// post sends a body and gets it back, with its length known or not.
func (p *program) post(ctx context.Context, host string) string {
	content := body(fmt.Sprint(p.name, p.turns), p.rand.IntN(128<<10))
	var from io.Reader = bytes.NewReader(content)
	if p.turns%2 == 0 {
		from = io.MultiReader(from) // hides the length
	}
	return p.exchange(p.request(ctx, "POST", "https://"+host+"/echo", from), content)
}

// events reads some events and goes.
func (p *program) events(ctx context.Context, host string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := p.request(ctx, "GET", "https://"+host+"/events", nil)
	resp, err := p.web.RoundTrip(req)
	if err != nil {
		return cut
	}
	defer resp.Body.Close()
	if result := verdict(resp, req); result != done {
		return result
	}
	lines := bufio.NewScanner(resp.Body)
	for i := range 5 + p.rand.IntN(20) {
		if !lines.Scan() {
			return cut
		}
		if lines.Text() != fmt.Sprintf("data: %s %d", req.Header.Get("X-Id"), i) || !lines.Scan() {
			return bad
		}
	}
	return done
}

// leave goes away somewhere in the middle of a request.
func (p *program) leave(ctx context.Context, host string) string {
	short, cancel := context.WithTimeout(ctx, time.Duration(p.rand.IntN(300))*time.Millisecond)
	defer cancel()
	req := p.request(short, "GET", "https://"+host+"/hang", nil)
	if p.turns%2 == 0 {
		endless, body := io.Pipe()
		defer body.Close()
		req = p.request(short, "POST", "https://"+host+"/echo", endless)
	}
	resp, err := p.web.RoundTrip(req)
	if err != nil {
		return p.leftOr(short, cut)
	}
	defer resp.Body.Close()
	if result := verdict(resp, req); result != done {
		return result
	}
	io.Copy(io.Discard, resp.Body)
	return p.leftOr(short, cut)
}

func (p *program) leftOr(ctx context.Context, result string) string {
	if ctx.Err() != nil {
		return left
	}
	return result
}

// connect opens a tunnel by hand and shakes hands in it.
func (p *program) connect(ctx context.Context, host string) (*tls.Conn, string) {
	raw, err := p.w.dial(ctx, "tcp", p.w.agent.proxy)
	if err != nil {
		return nil, cut
	}
	deadline, _ := ctx.Deadline()
	raw.SetDeadline(deadline)
	fmt.Fprintf(raw, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", host, host)
	const good = "HTTP/1.1 200 Connection established\r\n\r\n"
	answer := make([]byte, len(good))
	if _, err := io.ReadFull(raw, answer); err != nil || string(answer) != good {
		raw.Close()
		return nil, bad
	}
	c := tls.Client(raw, &tls.Config{RootCAs: p.w.roots, ServerName: host, NextProtos: []string{"http/1.1"}, CurvePreferences: quick})
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, cut
	}
	return c, ""
}

// switched changes protocols, as WebSocket does, and talks for a while.
func (p *program) switched(ctx context.Context, host string) string {
	c, result := p.connect(ctx, host)
	if c == nil {
		return result
	}
	defer c.NetConn().Close()
	fmt.Fprintf(c, "GET /switch HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", host)
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	switch {
	case err != nil:
		return cut
	case resp.Header.Get("X-Kortti-Error") != "":
		return resp.Header.Get("X-Kortti-Error")
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return bad
	}
	for i := range 5 + p.rand.IntN(20) {
		said := fmt.Sprintf("%s %d\n", p.name, i)
		if _, err := io.WriteString(c, said); err != nil {
			return cut
		}
		if heard, err := in.ReadString('\n'); err != nil {
			return cut
		} else if heard != said {
			return bad
		}
		time.Sleep(100 * time.Millisecond) // as a chat does
	}
	return done
}

// vanish sends part of something and resets the connection.
func (p *program) vanish(ctx context.Context, host string) string {
	c, result := p.connect(ctx, host)
	if c == nil {
		return result
	}
	raw := c.NetConn().(*counted).Conn.(*net.TCPConn)
	request := fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n\r\n%s", host, strings.Repeat("x", 5000))
	io.WriteString(c, request[:p.rand.IntN(len(request))])
	if p.rand.IntN(2) == 0 {
		c.SetReadDeadline(time.Now().Add(time.Duration(p.rand.IntN(200)) * time.Millisecond))
		c.Read(make([]byte, 10))
	}
	if p.rand.IntN(2) == 0 {
		raw.SetLinger(0) // a reset instead of an end
	}
	c.NetConn().Close()
	return left
}

// tunnel reaches a host that is not listed, whose TLS is its own.
func (p *program) tunnel(ctx context.Context, _ string) string {
	size := p.rand.IntN(32 << 10)
	req := p.request(ctx, "GET", fmt.Sprintf("%s/get?size=%d", p.w.sites.open.URL, size), nil)
	return p.exchange(req, body(req.Header.Get("X-Id"), size))
}

func (p *program) plain(ctx context.Context, _ string) string {
	content := []byte(strings.Repeat(p.name, 100))
	return p.exchange(p.request(ctx, "POST", p.w.sites.plain.URL+"/echo", bytes.NewReader(content)), content)
}

// failing is at hosts that are reached but go wrong.
func (p *program) failing(ctx context.Context, host string) string {
	path := []string{"/error", "/away", "/middle", "/reset"}[p.rand.IntN(4)]
	result := p.exchange(p.request(ctx, "GET", "https://"+host+path, nil), nil)
	want := map[string]string{"/error": erred, "/away": done, "/middle": cut, "/reset": "upstream"}[path]
	// A connection that dies before its first answer speaks for those who wait.
	return p.expect(result, path, want, "upstream")
}

func (p *program) outOfReach(ctx context.Context, host string) string {
	if host == silent {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		result := p.exchange(p.request(short, "GET", "https://"+host+"/", nil), nil)
		return p.expect(p.leftOr(short, result), host, left)
	}
	result := p.exchange(p.request(ctx, "GET", "https://"+host+"/", nil), nil)
	want := map[string][]string{refused: {"upstream-unreachable"}, stranger: {"upstream-certificate"}, reset: {"upstream", "upstream-unreachable"}}[host]
	return p.expect(result, host, want...)
}

// expect turns what was foreseen into done.
func (p *program) expect(result, where string, want ...string) string {
	for _, w := range want {
		if result == w {
			return done
		}
	}
	p.w.tally.note(where, errors.New(result))
	return result
}

// tally counts what the turns came to.
type tally struct {
	mu     sync.Mutex
	counts map[[3]string]int // kind, host, result
	notes  map[string]int
}

func (t *tally) add(kind, host, result string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[[3]string{kind, host, result}]++
}

func (t *tally) note(where string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes[where+": "+err.Error()]++
}

// count sums up the turns that match.
func (t *tally) count(match func(kind, host, result string) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := 0
	for k, n := range t.counts {
		if match(k[0], k[1], k[2]) {
			sum += n
		}
	}
	return sum
}
