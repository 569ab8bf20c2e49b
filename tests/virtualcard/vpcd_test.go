package virtualcard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// reader is the reader's end of vpcd's protocol.
type reader struct {
	net.Conn
	t *testing.T
}

// plug puts a card into a reader.
func plug(t *testing.T, c *Card) (*Insertion, reader) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	insertion, err := Insert(t.Context(), listener.Addr().String(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(insertion.Pull)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return insertion, reader{conn, t}
}

func (r reader) send(message ...byte) {
	r.t.Helper()
	if _, err := r.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil {
		r.t.Fatal(err)
	}
}

func (r reader) ask(message ...byte) []byte {
	r.t.Helper()
	r.send(message...)
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		r.t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, answer); err != nil {
		r.t.Fatal(err)
	}
	return answer
}

func TestReaderAndCard(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	insertion, r := plug(t, c)
	r.send(vpcdOn)
	if got := r.ask(vpcdATR); !bytes.Equal(got, c.ATR()) {
		t.Errorf("ATR % X", got)
	}
	if got := r.ask(unhex(t, rightPIN1)...); !bytes.Equal(got, []byte{0x90, 0}) || !c.Verified() {
		t.Errorf("VERIFY: % X, verified %v", got, c.Verified())
	}
	r.send(vpcdReset)
	if got := r.ask(unhex(t, askPIN1)...); got[0] != 0x63 || c.Verified() {
		t.Errorf("after a reset: % X", got)
	}
	r.ask(unhex(t, rightPIN1)...)
	if _, err := Insert(t.Context(), "127.0.0.1:1", c); !errors.Is(err, ErrInserted) {
		t.Errorf("a card in two readers: %v", err)
	}
	insertion.Pull()
	insertion.Pull()
	if c.Verified() {
		t.Error("PIN1 is verified out of the reader")
	}
	if n := c.Counts(); n.APDUs != 3 || n.PowerOns != 1 || n.Resets != 1 || n.Verifies != 2 {
		t.Errorf("counts %+v", n)
	}
	_, again := plug(t, c)
	if got := again.ask(unhex(t, wrongPIN1)...); !bytes.Equal(got, []byte{0x63, 0xC4}) {
		t.Errorf("in the reader again: % X", got)
	}
}

func TestPullInTheMiddleOfASignature(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	insertion, r := plug(t, c)
	r.ask(unhex(t, rightPIN1)...)
	r.ask(unhex(t, useAuthEC)...)
	c.SetSignDelay(time.Hour)
	r.send(unhex(t, signEC(make([]byte, 48)))...)
	for c.Counts().Signatures == 0 {
		time.Sleep(time.Millisecond)
	}
	insertion.Pull()
	if got, err := io.ReadAll(r); len(got) != 0 {
		t.Errorf("the reader read % X, %v", got, err)
	}
}

func TestTheCardNoticesThatItsReaderIsGone(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC})
	insertion, r := plug(t, c)
	r.ask(unhex(t, rightPIN1)...)
	r.Close()
	<-insertion.Gone()
	if c.Verified() {
		t.Error("PIN1 is verified without a reader")
	}
}

func TestAMuteCardAnswersNoATR(t *testing.T) {
	c := newCard(t, Spec{Profile: MyEIDEC, Mute: true})
	_, r := plug(t, c)
	if got := r.ask(vpcdATR); len(got) <= longestATR {
		t.Errorf("an ATR: % X", got)
	}
}
