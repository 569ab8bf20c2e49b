package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
)

// watchedBody is a request's body that notes whether it could be read, as long
// as anybody wanted it.
type watchedBody struct {
	io.ReadCloser
	closed, broken atomic.Bool
}

// watchBody gives a copy of the request, whose body is watched if it has one;
// net/http's server goes on looking at the original's.
func watchBody(r *http.Request) (*http.Request, *watchedBody) {
	r = r.WithContext(r.Context())
	b := &watchedBody{ReadCloser: r.Body}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = b
	}
	return r, b
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !b.closed.Load() {
		b.broken.Store(true)
	}
	return n, err
}

// Close may come during a Read, which then fails.
func (b *watchedBody) Close() error {
	b.closed.Store(true)
	return b.ReadCloser.Close()
}

var brokenBody = answer{http.StatusBadRequest, "bad-body", "the request's body is malformed or ended early", ""}
