package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// witness is a host that notes what reaches it.
type witness struct {
	mu   sync.Mutex
	seen []string
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	note := fmt.Sprintf("%s %s %s %q", r.Method, r.Host, r.RequestURI, body)
	if err != nil {
		note += " cut off"
	}
	w.mu.Lock()
	w.seen = append(w.seen, note)
	w.mu.Unlock()
}

// of gives the notes on a path.
func (w *witness) of(path string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var notes []string
	for _, note := range w.seen {
		if strings.Fields(note)[2] == path {
			notes = append(notes, note)
		}
	}
	return notes
}

// statuses reads all answers on a connection until its end and gives their
// statuses, each with the proxy's code where it has one.
func statuses(c net.Conn) string {
	in := bufio.NewReader(c)
	var all []string
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if len(all) == 0 {
				return "nothing"
			}
			return strings.Join(all, " ")
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		all = append(all, strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", resp.Header.Get(errorHeader))))
	}
}

// hidden is what a smuggler would have the host take for a request of its own.
const hidden = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n"

// smuggling are requests whose end proxies and hosts have taken to lie in
// different places. The first line's target and the host are put in for TARGET
// and HOST. What passes reaches the host with one clear framing; it never has
// the hidden request.
var smuggling = []struct {
	name, request string
	want          string // the answers' statuses and codes; OTHER is that of the hidden request by itself
	seen          string // the body that the host gets, "-" for no request
}{
	{"length and chunks", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "200 OTHER", ""},
	{"chunks and length", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + hidden, "200 OTHER", "hello"},
	{"two lengths", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nContent-Length: 72\r\n\r\n" + hidden, "400", "-"},
	{"two lengths in a line", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0, 72\r\n\r\n" + hidden, "400", "-"},
	{"one length twice", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + hidden, "200 OTHER", "hello"},
	{"negative length", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n" + hidden, "400", "-"},
	{"signed length", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: +5\r\n\r\nhello" + hidden, "400", "-"},
	{"hexadecimal length", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x5\r\n\r\nhello" + hidden, "400", "-"},
	{"length too large", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 99999999999999999999\r\n\r\n" + hidden, "400", "-"},
	{"length with a space before the colon", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length : 72\r\n\r\n" + hidden, "400", "-"},
	{"chunks with a space before the colon", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, "400", "-"},
	{"chunks after a tab", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + hidden, "200 OTHER", ""},
	{"chunks after a vertical tab", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" + hidden, "400", "-"},
	{"unknown coding", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, "501", "-"},
	{"chunked twice", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "501", "-"},
	{"chunked and identity", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden, "501", "-"},
	{"chunks in HTTP/1.0", "POST TARGET HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello" + hidden, "200", "hello"},
	{"folded coding", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hidden, "200 OTHER", ""},
	{"folded first field", "POST TARGET HTTP/1.1\r\n Host: HOST\r\nContent-Length: 0\r\n\r\n" + hidden, "400", "-"},
	{"bare line feeds", "POST TARGET HTTP/1.1\nHost: HOST\nContent-Length: 5\n\nhello" + hidden, "200 OTHER", "hello"},
	{"bare carriage return", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nX: a\rContent-Length: 72\r\nContent-Length: 0\r\n\r\n" + hidden, "400", "-"},
	{"NUL in a value", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n" + hidden, "400", "-"},
	{"NUL in a name", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent\x00-Length: 72\r\n\r\n" + hidden, "400", "-"},
	{"no colon", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length 72\r\n\r\n" + hidden, "400", "-"},
	{"no name", "POST TARGET HTTP/1.1\r\nHost: HOST\r\n: 72\r\n\r\n" + hidden, "400", "-"},
	{"chunk size too large", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + hidden, "400 bad-body", "cut off"},
	{"negative chunk size", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n" + hidden, "400 bad-body", "cut off"},
	{"chunk size with 0x", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + hidden, "400 bad-body", "cut off"},
	{"chunk without its end", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + hidden, "400 bad-body", "cut off"},
	{"chunk extension", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;\"GET /smuggled\"\r\nhello\r\n0\r\n\r\n" + hidden, "200 OTHER", "hello"},
	{"long chunk extension", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 8000) + "\r\nhello\r\n0\r\n\r\n" + hidden, "400 bad-body", "cut off"},
	{"GET with a body", "GET TARGET HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello" + hidden, "200 OTHER", "hello"},
	{"two Hosts", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nHost: evil.test\r\nContent-Length: 0\r\n\r\n" + hidden, "400", "-"},
	{"Host with two names", "POST TARGET HTTP/1.1\r\nHost: HOST, evil.test\r\nContent-Length: 0\r\n\r\n", "400", "-"},
	{"two protocols", "GET TARGET HTTP/1.1 HTTP/1.1\r\nHost: HOST\r\n\r\n" + hidden, "400", "-"},
	{"no protocol", "GET TARGET\r\nHost: HOST\r\n\r\n" + hidden, "400", "-"},
	{"HTTP/0.9", "GET TARGET HTTP/0.9\r\nHost: HOST\r\n\r\n" + hidden, "505", "-"},
	{"HTTP/2.0 in words", "GET TARGET HTTP/2.0\r\nHost: HOST\r\n\r\n" + hidden, "505", "-"},
	{"NUL in the target", "GET TARGET\x00 HTTP/1.1\r\nHost: HOST\r\n\r\n" + hidden, "400", "-"},
	{"unknown expectation", "POST TARGET HTTP/1.1\r\nHost: HOST\r\nExpect: magic\r\nContent-Length: 0\r\n\r\n" + hidden, "417", "-"},
}

func TestSmuggling(t *testing.T) {
	listed, plain := &witness{}, &witness{}
	origin := httptest.NewServer(plain)
	defer origin.Close()
	r := newRig(t, listed.ServeHTTP, dialTo(origin.Listener.Addr().String()), func(c *Config) {
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = false // where framing is by text
	})
	for _, way := range []struct {
		name, base, host, other string
		witness                 *witness
		dial                    func() net.Conn
	}{
		{"listed", "", "card.test", "421 misdirected", listed, func() net.Conn { return r.cardTLS("http/1.1") }},
		{"absolute form", "http://other.test", "other.test", "403 not-for-web-pages", plain, func() net.Conn { return r.dial() }},
	} {
		for i, c := range smuggling {
			t.Run(way.name+" "+c.name, func(t *testing.T) {
				conn := way.dial()
				defer conn.Close()
				path := fmt.Sprintf("/%d", i)
				io.WriteString(conn, strings.NewReplacer("TARGET", way.base+path, "HOST", way.host).Replace(c.request))
				if got, want := statuses(conn), strings.ReplaceAll(c.want, "OTHER", way.other); got != want {
					t.Errorf("answered %s, want %s", got, want)
				}
				for _, note := range way.witness.of(path) {
					if !strings.HasSuffix(note, fmt.Sprintf("%q", c.seen)) && !(c.seen == "cut off" && strings.HasSuffix(note, c.seen)) {
						t.Errorf("the host saw %s", note)
					}
				}
			})
		}
		if notes := way.witness.of("/smuggled"); len(notes) > 0 {
			t.Errorf("%s: the host saw %s", way.name, notes)
		}
	}
}

// fields are an HTTP/2 request's header.
type fields [][2]string

// over gives the header of a good request with some fields changed or added;
// those without a value are left out.
func over(change ...[2]string) fields {
	all := fields{{":method", "GET"}, {":scheme", "https"}, {":authority", "card.test"}, {":path", "/smuggled"}}
	for _, c := range change {
		i := slices.IndexFunc(all, func(f [2]string) bool { return f[0] == c[0] })
		switch {
		case i < 0:
			all = append(all, c)
		case c[1] == "":
			all = slices.Delete(all, i, i+1)
		default:
			all[i] = c
		}
	}
	return all
}

// askHTTP2 sends a request as it stands and gives the status and the proxy's
// code, or the frame that ended it.
func askHTTP2(t *testing.T, c net.Conn, header fields, body string) string {
	t.Helper()
	defer c.Close()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range header {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	io.WriteString(c, http2.ClientPreface)
	framer := http2.NewFramer(c, c)
	framer.AllowIllegalWrites = true
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	first := min(block.Len(), 16<<10)
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Next(first), EndStream: body == "", EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		more := block.Next(16 << 10)
		framer.WriteContinuation(1, block.Len() == 0, more)
	}
	if body != "" {
		framer.WriteData(1, true, []byte(body))
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			code := ""
			for _, f := range frame.RegularFields() {
				if f.Name == strings.ToLower(errorHeader) {
					code = " " + f.Value
				}
			}
			return frame.PseudoValue("status") + code
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return frame.Header().Type.String()
		}
	}
}

// TestSmugglingHTTP2 says in HTTP/2 what becomes something else in HTTP/1.1.
func TestSmugglingHTTP2(t *testing.T) {
	host := &witness{}
	r := newRig(t, host.ServeHTTP, func(c *Config) { c.Transport.(*http.Transport).ForceAttemptHTTP2 = false })
	for _, c := range []struct {
		name   string
		header fields
		body   string
		want   string
	}{
		{"space in the path", over([2]string{":path", "/smuggled HTTP/1.1"}), "", "400 bad-target"},
		{"space in the query", over([2]string{":path", "/smuggled?a HTTP/1.1"}), "", "400 bad-target"},
		{"line end in the path", over([2]string{":path", "/a HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /smuggled"}), "", "RST_STREAM"},
		{"path without a slash", over([2]string{":path", "smuggled"}), "", "RST_STREAM"},
		{"no path", over([2]string{":path", ""}), "", "RST_STREAM"},
		{"another host's URL as the path", over([2]string{":path", "http://evil.test/smuggled"}), "", "421 misdirected"},
		{"method with a space", over([2]string{":method", "GET /smuggled HTTP/1.1"}), "", "502 upstream"},
		{"CONNECT", fields{{":method", "CONNECT"}, {":authority", "card.test:443"}}, "", "421 misdirected"},
		{"extended CONNECT", over([2]string{":method", "CONNECT"}, [2]string{":protocol", "websocket"}), "", "RST_STREAM"},
		{"user in the authority", over([2]string{":authority", "me@card.test"}), "", "RST_STREAM"},
		{"line end in the authority", over([2]string{":authority", "card.test\r\nX: y"}), "", "RST_STREAM"},
		{"Transfer-Encoding", over([2]string{"transfer-encoding", "chunked"}), "0\r\n\r\n" + hidden, "400"},
		{"Connection", over([2]string{"connection", "x"}), "", "400"},
		{"Upgrade", over([2]string{"upgrade", "h2c"}), "", "400"},
		{"line end in a value", over([2]string{"x", "y\r\nContent-Length: 100"}), "", "RST_STREAM"},
		{"NUL in a value", over([2]string{"x", "y\x00"}), "", "RST_STREAM"},
		{"line end in a name", over([2]string{"x\r\ny", "z"}), "", "RST_STREAM"},
		{"colon in a name", over([2]string{"x: y", "z"}), "", "RST_STREAM"},
		{"capitals in a name", over([2]string{"X", "y"}), "", "RST_STREAM"},
		{"body longer than its length", over([2]string{":method", "POST"}, [2]string{":path", "/long"}, [2]string{"content-length", "1"}), hidden, "RST_STREAM"},
		{"body shorter than its length", over([2]string{":method", "POST"}, [2]string{":path", "/short"}, [2]string{"content-length", "1000"}), hidden, "GOAWAY or 400 bad-body"}, // whichever side notices first
		{"two paths", append(over(), [2]string{":path", "/b"}), "", "RST_STREAM"},
		{"a pseudo field at the end", append(over([2]string{":path", ""}, [2]string{"x", "y"}), [2]string{":path", "/smuggled"}), "", "RST_STREAM"},
		{"long header", over([2]string{"x", strings.Repeat("x", 2*maxHeaderBytes)}), "", "GOAWAY"},
	} {
		if got := askHTTP2(t, r.cardTLS("h2"), c.header, c.body); !slices.Contains(strings.Split(c.want, " or "), got) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if notes := host.of("/smuggled"); len(notes) > 0 {
		t.Errorf("the host saw %s", notes)
	}
}

// TestUpgradeToHTTP2 asks a host to go on in HTTP/2 without TLS of its own, in
// which requests for other hosts would pass unseen (RFC 9113, section 3.1, has
// taken that back).
func TestUpgradeToHTTP2(t *testing.T) {
	asked := make(chan http.Header, 1)
	r := newRig(t, func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header })
	resp, _ := exchange(t, r.cardTLS("http/1.1"), lines("GET / HTTP/1.1", "Host: card.test",
		"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"))
	if h := <-asked; resp.StatusCode != 200 || h.Get("Upgrade")+h.Get("Connection")+h.Get("Http2-Settings") != "" {
		t.Errorf("%s; the host was asked with %v", resp.Status, h)
	}
}

// TestNamesThatInject puts line ends, and what else is not a name, where names
// of hosts go on into headers, URLs and messages.
func TestNamesThatInject(t *testing.T) {
	r := newRig(t, never(t))
	for _, name := range []string{
		"evil.test%0d%0aX-Evil:%201", "evil.test\tX-Evil", "card.test\x00.evil.test", "card.test\x0bX-Evil", "<b>x</b>", "\"onload=\"x", "card.test;evil.test",
		"card.test,evil.test", "card.test#@evil.test", "card.test\\@evil.test", "[::1%25lo]", "[fe80::1%25\r]", "card.test:443:443", "ｃard.test", "card.test%00",
		strings.Repeat("x", 64) + ".test", strings.Repeat("x.", 200) + "test", "-", "..", "card..test", "*.card.test", "%63ard.test",
	} {
		for _, request := range []string{
			"CONNECT " + name + ":443 HTTP/1.1\r\n\r\n",
			"GET http://" + name + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /proxy.pac HTTP/1.1\r\nHost: " + name + "\r\n\r\n",
		} {
			resp, body := r.raw(request)
			// "-" is a name of a host like others, which this proxy cannot reach.
			if resp.StatusCode < 400 || resp.Header.Get("X-Evil") != "" || strings.Contains(body, "X-Evil") || strings.Contains(body, "<b>") {
				t.Errorf("%q: %s %v %q", request, resp.Status, resp.Header, body)
			}
		}
		resp, body := exchange(t, r.cardTLS("http/1.1"), "GET / HTTP/1.1\r\nHost: "+name+"\r\n\r\n")
		if resp.StatusCode != 400 && resp.StatusCode != http.StatusMisdirectedRequest || strings.Contains(body, "vil") {
			t.Errorf("Host %q: %s %q", name, resp.Status, body)
		}
	}
	resp, _ := r.raw(lines("GET http://card.test/%0d%0aX-Evil:%201 HTTP/1.1", "Host: card.test"))
	if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("X-Evil") != "" || resp.Header.Get("Location") != "https://card.test/%0d%0aX-Evil:%201" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}

// TestOversizedHeaders sends up to 100 MB of header and counts how much of it the
// proxy takes.
func TestOversizedHeaders(t *testing.T) {
	many := strings.Repeat("x", 1000)
	const most = 16 << 20 // what the kernel's buffers hold included
	r := newRig(t, never(t))
	for name, c := range map[string]struct {
		dial  func() net.Conn
		start string
		more  string
	}{
		"request line":           {func() net.Conn { return r.dial() }, "GET http://other.test/", many},
		"CONNECT":                {func() net.Conn { return r.dial() }, "CONNECT ", many},
		"field":                  {func() net.Conn { return r.dial() }, "CONNECT other.test:443 HTTP/1.1\r\nX: ", many},
		"fields":                 {func() net.Conn { return r.dial() }, "CONNECT other.test:443 HTTP/1.1\r\n", "X: " + many + "\r\n"},
		"folded field":           {func() net.Conn { return r.dial() }, "CONNECT other.test:443 HTTP/1.1\r\nX: ", many + "\r\n "},
		"listed, request line":   {func() net.Conn { return r.cardTLS("http/1.1") }, "GET /", many},
		"listed, field":          {func() net.Conn { return r.cardTLS("http/1.1") }, "GET / HTTP/1.1\r\nHost: card.test\r\nX: ", many},
		"listed, fields":         {func() net.Conn { return r.cardTLS("http/1.1") }, "GET / HTTP/1.1\r\nHost: card.test\r\n", "X: " + many + "\r\n"},
		"listed, no line at all": {func() net.Conn { return r.cardTLS("http/1.1") }, "", "\r\n"},
	} {
		conn := c.dial()
		io.WriteString(conn, c.start)
		wrote := make(chan int64)
		go func() {
			n, _ := io.CopyN(conn, without(c.more), 100<<20)
			wrote <- n
		}()
		got := statuses(conn)
		if n := <-wrote; got != "431" && got != "400" || n > most {
			t.Errorf("%s: %s after %d bytes", name, got, n)
		}
	}
}

// TestSlowPrograms has programs send one byte now and then, everywhere where a
// whole thing is awaited: their connections end.
func TestSlowPrograms(t *testing.T) {
	t.Parallel() // it waits for the proxy's own time-out
	r := newRig(t, never(t))
	hello := func() []byte { // the first bytes of a handshake
		near, far := net.Pipe()
		defer far.Close()
		go tls.Client(near, &tls.Config{ServerName: "card.test"}).Handshake()
		b := make([]byte, 100)
		io.ReadFull(far, b)
		return b
	}()
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		conn net.Conn
		text string
	}{
		"request":          {r.dial(), "CONNECT card.test:443 HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 1000)},
		"handshake":        {r.connect("card.test:443"), string(hello)},
		"listed request":   {r.cardTLS("http/1.1"), "GET / HTTP/1.1\r\nHost: card.test\r\n" + strings.Repeat("X: y\r\n", 1000)},
		"nothing":          {r.dial(), ""},
		"HTTP/2 preface":   {r.cardTLS("h2"), http2.ClientPreface[:10]},
		"nothing after it": {r.connect("card.test:443"), ""},
	} {
		all.Go(func() {
			c.conn.SetDeadline(time.Now().Add(headerTimeout + 2*patience))
			ended := make(chan struct{})
			go func() {
				for i := range len(c.text) {
					if _, err := io.WriteString(c.conn, c.text[i:i+1]); err != nil {
						return
					}
					select {
					case <-ended:
						return
					case <-time.After(100 * time.Millisecond): // slow is what it is to be
					}
				}
			}()
			_, err := io.Copy(io.Discard, c.conn)
			close(ended)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%s: the connection is still open", name)
			}
		})
	}
	all.Wait()
}

// TestHalfOpenPrograms ends the program's direction where it is not over.
func TestHalfOpenPrograms(t *testing.T) {
	r := newRig(t, never(t))
	for name, c := range map[string]struct {
		conn *net.TCPConn
		text string
		want string
	}{
		"request":   {r.dial(), "CONNECT card.test:443 HT", "400"},
		"nothing":   {r.dial(), "", "nothing"},
		"handshake": {r.connect("card.test:443"), "\x16\x03\x01\x02\x00\x01", "nothing"},
		"tunnel":    {r.connect("card.test:443"), "", "nothing"},
		"no TLS":    {r.connect("card.test:443"), "GET / HTTP/1.1\r\nHost: card.test\r\n\r\n", "400"},
	} {
		io.WriteString(c.conn, c.text)
		c.conn.CloseWrite()
		if got := statuses(c.conn); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestRefusalDoesNotWaitForTheBody refuses a request whose body comes slowly.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	r := newRig(t, never(t), func(c *Config) {
		c.Admit = func(context.Context, Asked) (context.Context, error) { return nil, errWaiting }
	})
	resp, _ := exchange(t, r.cardTLS("http/1.1"), lines("POST / HTTP/1.1", "Host: card.test", "Transfer-Encoding: chunked")+"1\r\nx\r\n")
	if resp.StatusCode != 503 || resp.Header.Get(errorHeader) != "waiting" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}

// TestUnreadBodies refuses requests whose bodies are there already, again and
// again: the connection ends after the answer, and nothing panics.
func TestUnreadBodies(t *testing.T) {
	var log lockedBuffer
	r := newRig(t, never(t), func(c *Config) {
		c.Admit = func(context.Context, Asked) (context.Context, error) { return nil, errWaiting }
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	for i, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		conn := r.cardTLS("http/1.1")
		io.WriteString(conn, strings.Repeat("POST / HTTP/1.1\r\nHost: card.test\r\n"+body, 5))
		if got := statuses(conn); got != "503 waiting" {
			t.Errorf("body %d: %s", i, got)
		}
	}
	// The rest has not come when the refusal is made.
	resp, _ := exchange(t, r.cardTLS("http/1.1"), "POST / HTTP/1.1\r\nHost: card.test\r\nContent-Length: 5\r\n\r\nhel")
	if resp.StatusCode != 503 {
		t.Errorf("%s", resp.Status)
	}
	r.stop()
	if strings.Contains(log.String(), "panic") {
		t.Errorf("the log says:\n%s", log.String())
	}
}

// lockedBuffer can be written by many.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
