package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// maxEvent bounds one event, in bytes.
const maxEvent = 1 << 20

// Stream is an open event stream. Next is for one goroutine; Close may be called
// from any.
type Stream struct {
	body io.ReadCloser
	scan *bufio.Scanner
}

// Events opens the event stream; when it returns, no later event is missed. With
// prompts the caller declares that it shows prompts to a person and answers
// them: the agent raises programs' prompts only while somebody does, and the
// stream begins with the prompts that are open. Cancelling ctx ends the stream.
func (c *Client) Events(ctx context.Context, prompts bool) (*Stream, error) {
	path := "/v1/events"
	if prompts {
		path += "?prompts=1"
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, maxEvent)
	return &Stream{body: resp.Body, scan: scan}, nil
}

// Next waits for the next event. At the end of the stream, which is when the
// agent ends, it returns io.EOF.
func (s *Stream) Next() (Event, error) {
	for s.scan.Scan() {
		data, ok := bytes.CutPrefix(s.scan.Bytes(), []byte("data: "))
		if !ok {
			continue // the event's name, a comment that keeps the stream alive, or an empty line
		}
		var ev Event
		if err := json.Unmarshal(data, &ev); err != nil {
			return Event{}, fmt.Errorf("read the agent's event: %w", err)
		}
		return ev, nil
	}
	if err := s.scan.Err(); err != nil {
		return Event{}, err
	}
	return Event{}, io.EOF
}

// Close ends the stream.
func (s *Stream) Close() error { return s.body.Close() }
