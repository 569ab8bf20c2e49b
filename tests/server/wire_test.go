package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kortti-id/kortti/fineid/fineidtest"
)

// request is a GET of /whoami with header lines, and perhaps trailers, that no
// HTTP library would write.
type request struct{ header, trailer []field }

type field struct{ name, value string }

// answer is what came back; its status is 0 where the connection ended, or the
// request was ended, without one.
type answer struct {
	status int
	body   []byte
}

// protocol is a version of HTTP, spoken by hand.
type protocol struct {
	name string
	// ask sends a request on a connection and tells whether the connection is
	// good for another.
	ask func(*session, request) (answer, bool)
	// greet begins a connection.
	greet func(*session) error
	alpn  string
}

var (
	http11 = protocol{"HTTP/1.1", askHTTP1, func(*session) error { return nil }, "http/1.1"}
	http20 = protocol{"HTTP/2", askHTTP2, greetHTTP2, "h2"}
)

// wire asks one request after the other, on connections that are kept as long as
// the proxy keeps them.
type wire struct {
	t        *testing.T
	addr     string
	protocol protocol
	config   *tls.Config
	now      *session // nil: none
}

// session is one connection of a wire.
type session struct {
	*tls.Conn
	r *bufio.Reader

	// HTTP/2
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	stream uint32 // the last one
}

// wire makes one for a client with this certificate, or without one.
func (f *front) wire(t *testing.T, p protocol, certificate *fineidtest.Issued) *wire {
	config := f.tlsConfig(certificate, 0)
	config.NextProtos = []string{p.alpn}
	config.InsecureSkipVerify = true // thousands of connections; client shows that the proxy has its certificate
	w := &wire{t: t, addr: f.addr, protocol: p, config: config}
	t.Cleanup(w.hangUp)
	return w
}

// ask sends a request. On a kept connection, which the proxy may be about to end,
// no answer counts only if there is none on a fresh one either.
func (w *wire) ask(r request) answer {
	w.t.Helper()
	kept := w.now != nil
	if !kept {
		w.dial()
	}
	if err := w.now.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	a, good := w.protocol.ask(w.now, r)
	if !good {
		w.hangUp()
	}
	if a.status == 0 && kept {
		w.hangUp()
		return w.ask(r)
	}
	return a
}

func (w *wire) dial() {
	w.t.Helper()
	conn, err := tls.Dial("tcp", w.addr, w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != w.protocol.alpn && got != "" {
		w.t.Fatalf("the proxy speaks %q, not %s", got, w.protocol.name)
	}
	w.now = &session{Conn: conn, r: bufio.NewReader(conn)}
	if err := w.protocol.greet(w.now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) hangUp() {
	if w.now != nil {
		w.now.Close()
		w.now = nil
	}
}

func askHTTP1(s *session, r request) (answer, bool) {
	var text bytes.Buffer
	text.WriteString("GET /whoami HTTP/1.1\r\nHost: " + site + "\r\n")
	if r.trailer != nil {
		text.WriteString("Transfer-Encoding: chunked\r\n")
	}
	writeFields(&text, r.header)
	if r.trailer != nil {
		text.WriteString("1\r\nx\r\n0\r\n")
		writeFields(&text, r.trailer)
	}
	if _, err := s.Write(text.Bytes()); err != nil {
		return answer{}, false
	}
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return answer{}, false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, body}, err == nil && !resp.Close
}

func writeFields(text *bytes.Buffer, fields []field) {
	for _, f := range fields {
		text.WriteString(f.name + ": " + f.value + "\r\n")
	}
	text.WriteString("\r\n")
}

func greetHTTP2(s *session) error {
	if _, err := io.WriteString(s, http2.ClientPreface); err != nil {
		return err
	}
	s.stream = 1 // the next one is 3, which is as good a first one
	s.framer = http2.NewFramer(s, s.r)
	s.framer.AllowIllegalWrites = true
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.hpack = hpack.NewEncoder(&s.block)
	if err := s.framer.WriteSettings(); err != nil {
		return err
	}
	return s.framer.WriteWindowUpdate(0, 1<<30) // for all answers of a connection
}

func askHTTP2(s *session, r request) (answer, bool) {
	s.stream += 2
	header := append([]field{{":method", "GET"}, {":scheme", "https"}, {":authority", site}, {":path", "/whoami"}}, r.header...)
	if s.writeHeaders(header, r.trailer == nil) != nil {
		return answer{}, false
	}
	if r.trailer != nil && (s.framer.WriteData(s.stream, false, []byte("x")) != nil || s.writeHeaders(r.trailer, true) != nil) {
		return answer{}, false
	}
	var a answer
	good := true
	for {
		frame, err := s.framer.ReadFrame()
		if err != nil {
			return answer{}, false
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() && s.framer.WriteSettingsAck() != nil {
				return answer{}, false
			}
		case *http2.GoAwayFrame:
			if good = false; frame.LastStreamID < s.stream || frame.ErrCode != http2.ErrCodeNo {
				return answer{}, false
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == s.stream {
				return answer{}, good
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID == s.stream {
				for _, c := range frame.PseudoValue("status") {
					a.status = 10*a.status + int(c-'0')
				}
				ended = frame.StreamEnded()
			}
		case *http2.DataFrame:
			if frame.StreamID == s.stream {
				a.body = append(a.body, frame.Data()...)
				ended = frame.StreamEnded()
			}
		}
		if ended {
			return a, good
		}
	}
}

func (s *session) writeHeaders(fields []field, end bool) error {
	s.block.Reset()
	for _, f := range fields {
		if err := s.hpack.WriteField(hpack.HeaderField{Name: f.name, Value: f.value}); err != nil {
			return err
		}
	}
	return s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.stream, BlockFragment: s.block.Bytes(), EndStream: end, EndHeaders: true})
}
