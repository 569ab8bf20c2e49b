// Package virtualcard makes smart cards in software for tests: each answers a
// real PC/SC service, through the reader that vsmartcard's vpcd driver gives
// it, with the files, PINs and keys of one kind of Finnish card, so that real
// middleware reads it and signs with it. A card can be asked what no card
// tells: what security state it has, how many PINs it was shown, what it was
// sent.
//
// It is no model of a card's protection: keys lie in memory. It stores nothing,
// never talks to a reader that it was not given, and imports nothing of the
// agent or the server.
package virtualcard

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
)

// Profile names a kind of card.
type Profile string

// The kinds of card.
const (
	MyEIDRSA     Profile = "myeid-rsa"     // Aventra MyEID 4.5, RSA-2048
	MyEIDEC      Profile = "myeid-ec"      // Aventra MyEID 4.5, P-384
	FINEIDSetCOS Profile = "fineid-setcos" // FINEID v2 of 2011, RSA-2048
	FINEID40     Profile = "fineid-4.0"    // citizen card of 2023, P-384
	FINEID41     Profile = "fineid-4.1"    // citizen card of 2025, P-384
)

// Identity is a private key, an *rsa.PrivateKey or an *ecdsa.PrivateKey, with
// its certificate.
type Identity struct {
	Key         crypto.Signer
	Certificate []byte // DER
}

// Spec says what card to make. Only the profile is needed.
type Spec struct {
	Profile Profile
	// Authentication and Signature are the card's two identities. A key that
	// is nil is made; a certificate that is nil is self-signed by the key,
	// for an invented person, with the key usage that fits.
	Authentication, Signature Identity
	// CAs are certificates in DER of issuing CAs and roots to be kept on the
	// card, where the profile has room for them.
	CAs [][]byte
	// Serial is the card's serial number, up to 16 hexadecimal digits. Empty:
	// a random one, as OpenSC may keep files of a card by its serial number.
	Serial string
	// PIN1, PIN2 and PUK are "1234", "123456" and "12345678" if empty.
	PIN1, PIN2, PUK string
	// Tries is how often a wrong PIN may be entered before it locks, 0 as the
	// profile has it.
	Tries int
	// Mute makes a card that lies in the reader and answers no reset, as one
	// that is the wrong way round does.
	Mute bool
	// NotActivated makes a card whose holder has not set PIN1 yet, where the
	// profile knows that state.
	NotActivated bool
}

// Counts is what happened to a card since it was made.
type Counts struct {
	APDUs      uint64 // command APDUs
	Verifies   uint64 // values presented for PIN1, right or wrong, also to change it
	Refused    uint64 // values of any PIN or of the PUK that were refused
	Signatures uint64 // private-key operations
	PowerOns   uint64
	Resets     uint64
}

// Exchange is a command APDU and the card's answer, with the bytes of PINs
// replaced by 0xFF.
type Exchange struct {
	Command, Answer []byte
}

// applet is what a profile does with commands. The engine has parsed them,
// put chains together and refused secure messaging and logical channels, and
// it holds the card's lock.
type applet interface {
	// process answers a command with data and a status word.
	process(c *Card, cmd command) (data []byte, sw uint16)
	// reset forgets what the applet itself keeps from command to command,
	// such as a security environment. Files and PINs are the engine's.
	reset()
}

// Card is a virtual card. It is safe for concurrent use; one reader at a time
// can hold it.
type Card struct {
	authentication, signature Identity
	serial                    []byte
	atr                       []byte
	mute                      bool

	mu        sync.Mutex // guards all that follows
	inserted  bool
	files     *fileSystem
	pins      [3]*pin // by PINRef
	authKey   *key
	signKey   *key
	applet    applet
	counts    Counts
	signDelay time.Duration
	late      time.Duration // of the answer in the making
	log       func(Exchange)
	chain     []byte // data of a command chain so far
	chained   *command
	rest      []byte // of an answer, for GET RESPONSE
}

// New makes a card, or says what in the specification cannot be.
func New(spec Spec) (*Card, error) {
	p, ok := profileOf(spec.Profile)
	if !ok {
		return nil, fmt.Errorf("make a virtual card: there is no profile %q", spec.Profile)
	}
	c := &Card{atr: p.atr, mute: spec.Mute, files: newFileSystem(newMF())}
	var err error
	if c.serial, err = serial(spec.Serial); err != nil {
		return nil, err
	}
	if c.authentication, err = complete(spec.Authentication, p.algorithm, PIN1); err != nil {
		return nil, fmt.Errorf("make the authentication identity: %w", err)
	}
	if c.signature, err = complete(spec.Signature, p.algorithm, PIN2); err != nil {
		return nil, fmt.Errorf("make the signature identity: %w", err)
	}
	if err := c.setPINs(spec, p); err != nil {
		return nil, err
	}
	c.authKey = &key{signer: c.authentication.Key, pin: c.pins[PIN1]}
	c.signKey = &key{signer: c.signature.Key, pin: c.pins[PIN2]}
	if c.applet, err = p.build(c, spec); err != nil {
		return nil, fmt.Errorf("make a %s card: %w", spec.Profile, err)
	}
	return c, nil
}

// serial reads a serial number of hexadecimal digits, or makes one of 8 bytes
// whose first digit is not 0.
func serial(text string) ([]byte, error) {
	if text == "" {
		out := make([]byte, 8)
		rand.Read(out)
		out[0] = out[0]&0x7F | 0x10
		return out, nil
	}
	out, err := hex.DecodeString(text)
	if err != nil || len(out) > 8 {
		return nil, fmt.Errorf("make a virtual card: the serial number %q is not of up to 16 hexadecimal digits, an even number", text)
	}
	return out, nil
}

func (c *Card) setPINs(spec Spec, p profile) error {
	tries := p.tries
	if spec.Tries != 0 {
		tries = spec.Tries
	}
	if tries < 1 || tries > 15 {
		return fmt.Errorf("make a virtual card: %d tries cannot be counted; 1 to 15 can", tries)
	}
	for _, one := range []struct {
		role                   PINRef
		given, usual           string
		shortest, longest, max int
	}{
		{PIN1, spec.PIN1, "1234", 4, p.longestPIN, tries},
		{PIN2, spec.PIN2, "123456", p.shortestPIN2, p.longestPIN, tries},
		{PUK, spec.PUK, "12345678", 4, p.longestPIN, p.pukTries},
	} {
		value := one.given
		if value == "" {
			value = one.usual
		}
		made := &pin{
			role: one.role, value: []byte(value), left: one.max, max: one.max,
			shortest: one.shortest, longest: one.longest,
			oneShot: one.role == PIN2, changed: !spec.NotActivated,
		}
		if !made.accepts(made.value) {
			return fmt.Errorf("make a virtual card: a PIN is not of %d to %d characters", one.shortest, one.longest)
		}
		c.pins[one.role] = made
	}
	return nil
}

// pin returns one of the card's PINs.
func (c *Card) pin(ref PINRef) *pin { return c.pins[ref] }

// Authentication returns the identity that PIN1 opens.
func (c *Card) Authentication() Identity { return c.authentication }

// Signature returns the identity that PIN2 opens.
func (c *Card) Signature() Identity { return c.signature }

// ATR returns the card's answer to reset.
func (c *Card) ATR() []byte { return append([]byte(nil), c.atr...) }

// Verified tells whether PIN1 is verified now, as the card itself knows it:
// no command is sent.
func (c *Card) Verified() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pins[PIN1].verified
}

// TriesLeft tells how often a PIN may still be entered wrongly; 0 is locked.
func (c *Card) TriesLeft(ref PINRef) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pins[ref].left
}

// Counts returns what happened so far.
func (c *Card) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// SetSignDelay makes every later private-key operation take that long.
func (c *Card) SetSignDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signDelay = d
}

// SetLog has every later exchange given to log, which must not call the card;
// nil ends it.
func (c *Card) SetLog(log func(Exchange)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = log
}

// forget ends the security state and all else that lives from power-on to
// power-off.
func (c *Card) forget() {
	for _, p := range c.pins {
		p.verified = false
	}
	c.files.reset()
	c.chain, c.chained, c.rest = nil, nil, nil
	c.applet.reset()
}

// power does what the reader does to the card's contacts, and counts it.
func (c *Card) power(count func(*Counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	count(&c.counts)
}

// transmit answers one command APDU, and waits as long as the card would
// compute unless ctx ends first; then it answers nothing.
func (c *Card) transmit(ctx context.Context, raw []byte) []byte {
	answer, late := c.exchange(raw)
	if late == 0 {
		return answer
	}
	wait := time.NewTimer(late)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-wait.C:
		return answer
	}
}

func (c *Card) exchange(raw []byte) (answer []byte, late time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.APDUs++
	c.late = 0
	answer = c.run(raw)
	if c.log != nil {
		c.log(Exchange{Command: masked(raw), Answer: append([]byte(nil), answer...)})
	}
	return answer, c.late
}

func (c *Card) run(raw []byte) []byte {
	cmd, err := parseAPDU(raw)
	if err != nil {
		return answerAPDU(nil, swWrongLength)
	}
	if cmd.INS == insGetResponse && cmd.CLA&^0x10 == 0 {
		return c.more(cmd)
	}
	c.rest = nil
	whole, sw := c.assemble(cmd)
	if whole == nil {
		return answerAPDU(nil, sw)
	}
	data, sw := c.applet.process(c, *whole)
	return c.deliver(*whole, data, sw)
}

// assemble puts command chains together (ISO 7816-4 5.3.3). The command is nil
// while more of it is to come, or if it is refused.
func (c *Card) assemble(cmd command) (*command, uint16) {
	if cmd.CLA&0x80 == 0 {
		switch {
		case cmd.CLA&0x0C != 0:
			return nil, swSecureMessaging
		case cmd.CLA&0x03 != 0:
			return nil, swLogicalChannel
		}
	}
	first := c.chained
	if first != nil && (first.CLA&^0x10 != cmd.CLA&^0x10 || first.INS != cmd.INS || first.p1p2() != cmd.p1p2()) {
		c.chain, c.chained = nil, nil
		return nil, swLastOfChainExpected
	}
	const longest = 1 << 16
	if len(c.chain)+len(cmd.Data) > longest {
		c.chain, c.chained = nil, nil
		return nil, swWrongLength
	}
	if cmd.CLA&0x10 != 0 {
		c.chain, c.chained = append(c.chain, cmd.Data...), &cmd
		return nil, swOK
	}
	if first != nil {
		cmd.Data = append(c.chain, cmd.Data...)
		c.chain, c.chained = nil, nil
	}
	return &cmd, swOK
}

// deliver answers as much as the command expects and keeps the rest for GET
// RESPONSE. With T=0 a command that brings data cannot say what it expects,
// so all is kept (ISO 7816-3 12.2.1).
func (c *Card) deliver(cmd command, data []byte, sw uint16) []byte {
	if sw != swOK || len(data) == 0 {
		return answerAPDU(data, sw)
	}
	if cmd.Le == noLe {
		c.rest = data
		return answerAPDU(nil, c.waiting())
	}
	if len(cmd.Data) == 0 && cmd.Le < len(data) && len(data) <= 256 {
		return answerAPDU(nil, swLe|uint16(byte(len(data))))
	}
	n := min(cmd.Le, len(data))
	if c.rest = data[n:]; len(c.rest) == 0 {
		return answerAPDU(data, sw)
	}
	return answerAPDU(data[:n], c.waiting())
}

// waiting is the status word for the rest of an answer.
func (c *Card) waiting() uint16 {
	if len(c.rest) >= 256 {
		return swMoreData
	}
	return swMoreData | uint16(len(c.rest))
}

// more does GET RESPONSE.
func (c *Card) more(cmd command) []byte {
	if len(c.rest) == 0 || cmd.Le == noLe {
		return answerAPDU(nil, swConditions)
	}
	n := min(cmd.Le, len(c.rest))
	data := c.rest[:n]
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		return answerAPDU(data, swOK)
	}
	return answerAPDU(data, c.waiting())
}
