package proxy

import (
	"context"
	"maps"
	"net/http"
)

// headerWriter is what ReverseProxy writes an answer to. ReverseProxy changes
// the header again as soon as a 1xx answer is written; over HTTP/2 net/http may
// still read it then if the program has just given the request up, and a map
// that is read and changed at once ends the whole process. So ReverseProxy gets
// a header of its own, and the server's is changed no more after the request's
// end.
//
// It also keeps net/http from guessing the type of an answer that has none.
type headerWriter struct {
	http.ResponseWriter
	ctx   context.Context // the request's
	own   http.Header
	final bool // the server's header counts: the answer has begun
}

func newHeaderWriter(w http.ResponseWriter, r *http.Request) *headerWriter {
	return &headerWriter{ResponseWriter: w, ctx: r.Context(), own: make(http.Header)}
}

// Unwrap is for http.ResponseController.
func (w *headerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Header is the header of the answer that is to be written next; after the
// beginning of the last one, its trailers.
func (w *headerWriter) Header() http.Header {
	if w.final {
		return w.ResponseWriter.Header()
	}
	return w.own
}

// WriteHeader writes an answer's header, of which several may be 1xx.
func (w *headerWriter) WriteHeader(status int) {
	if w.final {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.ctx.Err() != nil {
		return // nobody reads it
	}
	header := w.ResponseWriter.Header()
	clear(header)
	maps.Copy(header, w.own)
	if status >= 200 {
		w.final = true
		if _, ok := header["Content-Type"]; !ok {
			header["Content-Type"] = nil
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write writes to the answer's body.
func (w *headerWriter) Write(b []byte) (int, error) {
	if !w.final {
		w.WriteHeader(http.StatusOK)
	}
	if !w.final {
		return 0, context.Cause(w.ctx)
	}
	return w.ResponseWriter.Write(b)
}
