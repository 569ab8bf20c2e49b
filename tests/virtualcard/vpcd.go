package virtualcard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// ErrInserted says that a card is in a reader already.
var ErrInserted = errors.New("the virtual card is in a reader already; pull it first")

// What the reader tells the card in messages of one byte (vpcd's protocol).
const (
	vpcdOff   = 0
	vpcdOn    = 1
	vpcdReset = 2
	vpcdATR   = 4
)

// Insertion is a card that is in a reader.
type Insertion struct {
	card   *Card
	conn   net.Conn
	cancel context.CancelFunc
	ended  chan struct{}
}

// Insert puts a card into the vpcd reader that listens at address (host:port)
// and serves it in a goroutine that ends with Pull, or by itself when the
// reader goes away; Pull is due in both cases. ctx bounds only the connecting.
// The service sees the card at its next look, half a second later at most.
func Insert(ctx context.Context, address string, c *Card) (*Insertion, error) {
	if !c.take() {
		return nil, ErrInserted
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		c.release()
		return nil, fmt.Errorf("insert the virtual card into the reader at %s: %w", address, err)
	}
	serving, cancel := context.WithCancel(context.Background())
	i := &Insertion{card: c, conn: conn, cancel: cancel, ended: make(chan struct{})}
	go i.serve(serving)
	return i, nil
}

// Pull takes the card out, also in the middle of a command, and waits until
// it is no longer served. Its security state is lost; its counters stay. It
// may be called more than once.
func (i *Insertion) Pull() {
	i.cancel()
	i.conn.Close()
	<-i.ended
}

// Gone is closed when the card is no longer served, be it that the reader
// went away or that it was pulled.
func (i *Insertion) Gone() <-chan struct{} { return i.ended }

// serve speaks vpcd's protocol: messages with a length of two bytes before
// them; those of one byte are for the contacts, the others are command APDUs.
func (i *Insertion) serve(ctx context.Context) {
	defer close(i.ended)
	defer i.card.release()
	defer i.conn.Close()
	for {
		message, err := i.receive()
		if err != nil {
			return
		}
		answer := i.answer(ctx, message)
		if answer == nil {
			continue
		}
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)
		if _, err := i.conn.Write(framed); err != nil {
			return
		}
	}
}

// receive reads a message. vpcd writes length and body apart from each other:
// where the length is not acknowledged at once, Nagle's algorithm holds the
// body back for the 40 ms that the kernel delays it.
func (i *Insertion) receive() ([]byte, error) {
	var size [2]byte
	acknowledgeAtOnce(i.conn)
	if _, err := io.ReadFull(i.conn, size[:]); err != nil {
		return nil, err
	}
	acknowledgeAtOnce(i.conn)
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(i.conn, message)
	return message, err
}

func (i *Insertion) answer(ctx context.Context, message []byte) []byte {
	if len(message) != 1 {
		return i.card.transmit(ctx, message)
	}
	switch message[0] {
	case vpcdOff:
		i.card.power(func(*Counts) {})
	case vpcdOn:
		i.card.power(func(n *Counts) { n.PowerOns++ })
	case vpcdReset:
		i.card.power(func(n *Counts) { n.Resets++ })
	case vpcdATR:
		if i.card.mute {
			return make([]byte, longestATR+1)
		}
		return i.card.ATR()
	}
	return nil
}

// longestATR is how long an ATR can be (ISO 7816-3, 8.2.1). vpcd asks for it
// to see whether there is a card and once more after power-on; one that is
// longer means a card whose power-on failed.
const longestATR = 33

// take marks the card as being in a reader.
func (c *Card) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inserted {
		return false
	}
	c.inserted = true
	return true
}

// release takes the card off the reader's power.
func (c *Card) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	c.inserted = false
}
