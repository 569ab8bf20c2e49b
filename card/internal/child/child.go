// Package child is what runs in a card manager's children: the only place where
// PKCS#11 modules are loaded and PINs are used.
//
// A child serves one parent over the socket pair at descriptor 3, one request
// at a time, and ends when the parent does, even while foreign C code hangs in
// it. It keeps no PIN, writes no core dump, and signs nothing but TLS client
// proofs.
package child

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/kortti-id/kortti/card/internal/pcsc"
	"github.com/kortti-id/kortti/card/internal/wire"
)

// Main serves the parent in the given role and never returns.
func Main(role string) {
	if err := run(wire.Role(role)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(0)
}

func run(role wire.Role) error {
	if err := harden(); err != nil {
		return err
	}
	conn, err := parent()
	if err != nil {
		return err
	}
	s := server{}
	requests := receive(conn)
	for r := range requests {
		if r.head.Op == wire.Close {
			s.close()
			return nil
		}
		answer, body := s.serve(role, r)
		clear(r.body)
		if err := wire.Write(conn, answer, body); err != nil {
			return err
		}
	}
	return nil
}

// parent returns the connection to the parent.
func parent() (net.Conn, error) {
	f := os.NewFile(wire.Descriptor, "parent")
	if f == nil {
		return nil, errors.New("this is started by kortti itself, never by hand")
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, errors.New("this is started by kortti itself, never by hand")
	}
	return conn, nil
}

type request struct {
	head wire.Request
	body []byte
}

// receive reads requests on a goroutine of its own for the life of the process:
// the parent's end must end this process at once, whatever C code hangs.
func receive(conn net.Conn) <-chan request {
	requests := make(chan request, 1)
	go func() {
		for {
			var r request
			var err error
			if r.body, err = wire.Read(conn, &r.head); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, err)
				}
				os.Exit(0)
			}
			requests <- r
		}
	}()
	return requests
}

// server holds what a child has loaded; it is used by one goroutine.
type server struct {
	module  *module
	signer  *signer
	service *pcsc.Context
}

// serve answers one request. The body of the request stays the caller's.
func (s *server) serve(role wire.Role, r request) (answer wire.Answer, body []byte) {
	var err error
	switch {
	case role == wire.Module && r.head.Op == wire.Load:
		s.module, answer.Description, err = load(r.head.Path, r.body)
	case role == wire.Watcher:
		answer, err = s.servePCSC(r.head)
	case role != wire.Module || s.module == nil:
		err = &wire.Fault{Kind: wire.Protocol, Text: fmt.Sprintf("request %q makes no sense to a %q child", r.head.Op, role)}
	default:
		answer, body, err = s.serveModule(r)
	}
	if err != nil {
		answer.Fault = fault(err)
	}
	return answer, body
}

// serveModule answers the requests that need the module.
func (s *server) serveModule(r request) (answer wire.Answer, body []byte, err error) {
	switch {
	case r.head.Op == wire.Slots:
		answer.Slots, err = s.module.slots()
	case r.head.Op == wire.Token:
		answer.Token, err = s.module.token(r.head.Slot, r.head.Light)
	case r.head.Op == wire.Login && s.signer == nil:
		s.signer, answer, err = s.module.login(r.head, r.body)
	case (r.head.Op == wire.SetPIN || r.head.Op == wire.InitPIN) && s.signer == nil:
		answer, err = s.module.change(r.head, r.body)
	case r.head.Op == wire.Sign && s.signer != nil:
		body, err = s.signer.sign(r.head, r.body)
	case r.head.Op == wire.Present && s.signer != nil:
		answer.Present, err = s.signer.present()
	default:
		err = &wire.Fault{Kind: wire.Protocol, Text: fmt.Sprintf("request %q makes no sense now", r.head.Op)}
	}
	return answer, body, err
}

// close logs out, where someone is logged in, and lets the module clean up.
func (s *server) close() {
	if s.signer != nil {
		s.signer.logout()
	}
	if s.module != nil {
		s.module.finalize()
	}
}

// fault turns any error into one that goes over the wire.
func fault(err error) *wire.Fault {
	var f *wire.Fault
	if errors.As(err, &f) {
		return f
	}
	return &wire.Fault{Kind: wire.Protocol, Text: err.Error()}
}
