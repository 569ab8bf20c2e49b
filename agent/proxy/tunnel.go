package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// halfClosedIdle is how long a tunnel of which one direction has ended may
// stay silent in the other: a program that is gone cannot be told from one that
// only has nothing more to say.
const halfClosedIdle = 5 * time.Minute

// tunnel connects the program with a host that is not listed and passes bytes
// untouched until both directions have ended.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, to target) {
	upstream, err := p.dial(r.Context(), "tcp", to.String())
	if err != nil {
		unreachable(to, err).write(w, r)
		return
	}
	defer upstream.Close()
	program, early, err := takeOver(w)
	if err != nil {
		return
	}
	defer program.Close()
	stop := context.AfterFunc(r.Context(), func() {
		program.Close()
		upstream.Close()
	})
	defer stop()
	if _, err := io.WriteString(program, established); err != nil {
		return
	}
	if _, err := upstream.Write(early); err != nil {
		return
	}
	// Of the program's connection the bare *net.TCPConn is used: between two of
	// those the kernel moves the bytes (splice).
	join(program.TCPConn, upstream)
}

// takeOver takes the connection from net/http, with the bytes that have come
// after the request's header. It answers the program itself if it cannot.
func takeOver(w http.ResponseWriter) (*programConn, []byte, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn.(*programConn), early, nil
}

// join copies both ways. The end of one direction is passed on as such (TCP
// half-close); an error ends both.
func join(a, b net.Conn) {
	var oneEnded atomic.Bool
	pass := func(to, from net.Conn) {
		err := copyUntilIdle(to, from, &oneEnded)
		oneEnded.Store(true)
		if half, ok := to.(interface{ CloseWrite() error }); err == nil && ok && half.CloseWrite() == nil {
			return
		}
		a.Close()
		b.Close()
	}
	var back sync.WaitGroup
	back.Go(func() { pass(a, b) })
	pass(b, a)
	back.Wait()
}

// copyUntilIdle copies until the end of from. While both directions are open
// silence may last as long as it likes.
func copyUntilIdle(to, from net.Conn, oneEnded *atomic.Bool) error {
	for {
		if err := from.SetReadDeadline(time.Now().Add(halfClosedIdle)); err != nil {
			return err
		}
		n, err := io.Copy(to, from)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 && oneEnded.Load() {
			return err
		}
	}
}
