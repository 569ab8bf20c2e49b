package child

import (
	"context"
	"errors"

	"github.com/kortti-id/kortti/card/internal/pcsc"
	"github.com/kortti-id/kortti/card/internal/wire"
)

// servePCSC answers the requests of a child that loads no module. The parent
// gives watching and resetting each a child of its own, as both may block.
func (s *server) servePCSC(r wire.Request) (answer wire.Answer, err error) {
	if s.service == nil {
		if s.service, err = pcsc.Establish(); err != nil {
			return answer, pcscFault(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.Wait)
	defer cancel()
	switch r.Op {
	case wire.Watch:
		answer.Readers, err = s.watch(ctx, r)
	case wire.Reset:
		err = s.service.Reset(ctx, r.Reader)
		if errors.Is(err, pcsc.ErrNoCard) || errors.Is(err, pcsc.ErrNoReader) {
			err = nil // a card without power has no verified PIN
		}
	default:
		return answer, &wire.Fault{Kind: wire.Protocol, Text: "a request that makes no sense without a module"}
	}
	if err != nil {
		_ = s.service.Close() // the service may have ended; the next request starts afresh
		s.service = nil
		err = pcscFault(err)
	}
	return answer, err
}

// pcscFault tells apart what a person can do something about.
func pcscFault(err error) error {
	kind := wire.PCSC
	switch {
	case errors.Is(err, pcsc.ErrUnavailable):
		kind = wire.NoPCSC
	case errors.Is(err, pcsc.ErrNoService):
		kind = wire.NoService
	case errors.Is(err, pcsc.ErrRefused):
		kind = wire.Refused
	}
	return &wire.Fault{Kind: kind, Text: err.Error()}
}

// watch returns the readers when they differ from those that the parent knows,
// or unchanged when its time is over; the parent asks again.
func (s *server) watch(ctx context.Context, r wire.Request) ([]wire.Reader, error) {
	if r.First {
		return readers(s.service.Readers())
	}
	known := make([]pcsc.ReaderState, len(r.Readers))
	for i, reader := range r.Readers {
		known[i] = pcsc.ReaderState(reader)
	}
	now, err := readers(s.service.Wait(ctx, known))
	if errors.Is(err, context.DeadlineExceeded) {
		return r.Readers, nil
	}
	return now, err
}

func readers(states []pcsc.ReaderState, err error) ([]wire.Reader, error) {
	list := make([]wire.Reader, len(states))
	for i, state := range states {
		list[i] = wire.Reader(state)
	}
	return list, err
}
