// Package wire is what a card manager and its children say to each other: one
// request, one answer, over a socket pair.
//
// A frame is a JSON header and a body of raw bytes. What is secret or large
// (a PIN, a message to sign, a signature) is only ever in the body, so that it
// never becomes a string and can be wiped. Reading is strict: a child that has
// gone astray in foreign C code must not confuse its parent.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Limit is the largest frame in bytes, header and body together. TLS 1.2
// transcripts with long lists of certificate authorities set the size.
const Limit = 256 << 10

// MaxBody is the largest body in bytes that fits beside any request's header.
const MaxBody = Limit - 8<<10

// prefixSize is the size of the two big-endian lengths before header and body.
const prefixSize = 8

// Argument is a child's first argument; its role is the second and last.
const Argument = "kortti-card-child"

// Descriptor is the child's end of the socket pair.
const Descriptor = 3

// Role is what a child is for.
type Role string

// The roles of children.
const (
	Module  Role = "module" // loads one PKCS#11 module: a lister, or a signer once it is logged in
	Watcher Role = "pcsc"   // speaks PC/SC and loads no module
)

// Op is what a request asks for.
type Op string

// The requests. Load comes first in a Module child; Sign needs a good Login.
const (
	Load    Op = "load"     // load Path as a PKCS#11 module; the body, if any, is OpenSC's configuration
	Slots   Op = "slots"    // list slots and who is in them
	Token   Op = "token"    // read Slot's token: certificates, key capabilities
	Login   Op = "login"    // the one C_Login, PIN in the body
	SetPIN  Op = "set-pin"  // change the PIN: the old and the new one in the body
	InitPIN Op = "init-pin" // unblock the PIN: the PUK and the new PIN in the body
	Sign    Op = "sign"     // sign the message in the body
	Present Op = "present"  // is the card of the Login still there?
	Close   Op = "close"    // log out, finalise and end

	Watch Op = "watch" // wait until the readers differ from Readers
	Reset Op = "reset" // reset the card in Reader
)

// Request is a request's header.
type Request struct {
	Op           Op
	Path         string        `json:",omitempty"`
	Slot         uint          `json:",omitempty"` // Token: a slot id of this child's own Slots
	Light        bool          `json:",omitempty"` // Token: no contents of certificates
	Ordinal      int           `json:",omitempty"` // Login, SetPIN, InitPIN: which of Reader's slots, from 0
	Certificate  []byte        `json:",omitempty"` // SHA-256 of the certificate's DER
	Split        int           `json:",omitempty"` // SetPIN, InitPIN: where in the body the new PIN begins
	ConfirmFinal bool          `json:",omitempty"`
	PinPad       bool          `json:",omitempty"`
	Host         string        `json:",omitempty"`
	Hash         uint          `json:",omitempty"` // a crypto.Hash
	PSS          bool          `json:",omitempty"`
	Reader       string        `json:",omitempty"`
	Readers      []Reader      `json:",omitempty"`
	First        bool          `json:",omitempty"` // Watch: answer at once
	Wait         time.Duration `json:",omitempty"` // Watch, Reset: the longest time to take
}

// Answer is an answer's header; which fields are set depends on the request.
type Answer struct {
	Fault       *Fault     `json:",omitempty"`
	Description string     `json:",omitempty"` // Load
	Slots       []SlotInfo `json:",omitempty"` // Slots
	Token       *TokenInfo `json:",omitempty"` // Token; Login: the flags afterwards
	Tried       bool       `json:",omitempty"` // Login: C_Login was called
	Present     bool       `json:",omitempty"` // Present
	Readers     []Reader   `json:",omitempty"` // Watch
}

// SlotInfo is a slot and the name of the token in it.
type SlotInfo struct {
	ID          uint
	Description string
	Present     bool
	Token       TokenInfo // without mechanisms and certificates
	Unread      *Fault    `json:",omitempty"` // why Token could not be read just now, though a card is there
}

// TokenInfo is CK_TOKEN_INFO with padding removed, and what was read of the
// token's public objects.
type TokenInfo struct {
	Label, Manufacturer, Model, Serial string
	Flags                              uint
	MinPIN, MaxPIN                     uint
	Mechanisms                         []uint        `json:",omitempty"`
	Certificates                       []Certificate `json:",omitempty"`
}

// Certificate is an X.509 certificate object.
type Certificate struct {
	ID  []byte // CKA_ID
	DER []byte // CKA_VALUE; nil where only a light reading was asked for
}

// Reader is a PC/SC reader: pcsc.ReaderState.
type Reader struct {
	Name      string
	Present   bool
	Mute      bool
	Exclusive bool
	ATR       []byte
	Events    uint16
}

// Kind says which sort of fault happened where a PKCS#11 code does not.
type Kind string

// The kinds of faults.
const (
	PKCS11    Kind = "pkcs11"     // Function answered Code
	NoModule  Kind = "no-module"  // the library cannot be loaded, or is no PKCS#11 module
	OtherCard Kind = "other-card" // the card in the slot is not the one that was meant
	Gone      Kind = "gone"       // the module does not show the reader any more
	FinalTry  Kind = "final-try"  // the token says so and it was not confirmed
	PINLocked Kind = "pin-locked" // the token says so
	NoChange  Kind = "no-change"  // the module cannot change or unblock a PIN
	NotProof  Kind = "not-proof"  // the message is not a TLS client's proof
	NoKey     Kind = "no-key"     // no private key belongs to the certificate, or it cannot do this
	Protocol  Kind = "protocol"   // the request makes no sense here
	PCSC      Kind = "pcsc"       // the PC/SC service failed
	NoPCSC    Kind = "no-pcsc"    // there is no PC/SC library
	NoService Kind = "no-service" // the PC/SC service does not run
	Refused   Kind = "refused"    // the PC/SC service does not let us in
)

// Fault is why a request failed.
type Fault struct {
	Kind     Kind
	Function string `json:",omitempty"`
	Code     uint   `json:",omitempty"`
	Text     string `json:",omitempty"`
}

// Error says what failed.
func (f *Fault) Error() string {
	if f.Kind == PKCS11 {
		return fmt.Sprintf("%s answered 0x%X", f.Function, f.Code)
	}
	return f.Text
}

// Write sends one frame. body is written as it is, never copied.
func Write(w io.Writer, header any, body []byte) error {
	head, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if len(head)+len(body) > Limit {
		return fmt.Errorf("a frame of %d bytes is over the limit of %d", len(head)+len(body), Limit)
	}
	frame := make([]byte, prefixSize, prefixSize+len(head))
	binary.BigEndian.PutUint32(frame, uint32(len(head)))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(body)))
	if _, err := w.Write(append(frame, head...)); err != nil {
		return fmt.Errorf("write a frame: %w", err)
	}
	if len(body) == 0 {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("write a frame: %w", err)
	}
	return nil
}

// Read takes one frame: its header into header, which must be a pointer, and
// its body into bytes of its own, which the caller wipes where it must. At the
// end of the stream, between frames, it returns io.EOF itself.
func Read(r io.Reader, header any) (body []byte, err error) {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err == io.EOF {
		return nil, io.EOF
	} else if err != nil {
		return nil, fmt.Errorf("read a frame: %w", err)
	}
	headLen := uint64(binary.BigEndian.Uint32(prefix[:]))
	bodyLen := uint64(binary.BigEndian.Uint32(prefix[4:]))
	if headLen+bodyLen > Limit {
		return nil, fmt.Errorf("a frame of %d bytes is over the limit of %d", headLen+bodyLen, Limit)
	}
	head := make([]byte, headLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("read a frame's header: %w", err)
	}
	body = make([]byte, bodyLen)
	if _, err := io.ReadFull(r, body); err != nil {
		clear(body)
		return nil, fmt.Errorf("read a frame's body: %w", err)
	}
	if err := decode(head, header); err != nil {
		clear(body)
		return nil, err
	}
	return body, nil
}

// decode reads one JSON value, without unknown fields and with nothing after it.
func decode(head []byte, header any) error {
	d := json.NewDecoder(bytes.NewReader(head))
	d.DisallowUnknownFields()
	if err := d.Decode(header); err != nil {
		return fmt.Errorf("decode a frame's header: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("decode a frame's header: more than one value")
	}
	return nil
}
