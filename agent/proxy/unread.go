package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// endedBody is a request's body that notes when it has been read to its end.
type endedBody struct {
	io.ReadCloser
	ended atomic.Bool
}

func (b *endedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// closingWriter ends the connection of an HTTP/1.1 request after an answer that
// begins before the request's body has been read. It would not go on: with full
// duplex net/http reads what is left of a body too late, and panics over the
// next request.
type closingWriter struct {
	http.ResponseWriter
	body  *endedBody
	begun bool // the answer, or somebody took over the connection
}

// closeUnread gives what an HTTP/1.1 handler is to be called with, and what is
// to be called after it.
func closeUnread(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, func()) {
	if r.Body == nil || r.Body == http.NoBody {
		return w, r, func() {}
	}
	c := &closingWriter{ResponseWriter: w, body: &endedBody{ReadCloser: r.Body}}
	r = r.WithContext(r.Context()) // net/http goes on looking at the original's body
	r.Body = c.body
	return c, r, c.begin
}

func (c *closingWriter) begin() {
	if !c.begun && !c.body.ended.Load() {
		c.Header().Set("Connection", "close")
	}
	c.begun = true
}

func (c *closingWriter) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		if status == http.StatusSwitchingProtocols {
			c.begun = true
		}
		c.begin()
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *closingWriter) Write(p []byte) (int, error) {
	c.begin()
	return c.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (c *closingWriter) FlushError() error {
	c.begin()
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Hijack is for http.ResponseController.
func (c *closingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c.begun = true
	return http.NewResponseController(c.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (c *closingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
