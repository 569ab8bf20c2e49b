// Package proof tells a TLS client's proof of possession from everything else
// that a card could be asked to sign.
//
// A card's authentication key can log its owner in anywhere and, to the card, a
// digest is a digest. So the process that holds the unlocked card is handed the
// whole message (crypto.MessageSigner) and signs it only if it is the input of
// a TLS 1.3 client CertificateVerify (RFC 8446 §4.4.3), or the transcript of a
// TLS 1.2 handshake (RFC 5246 §7.4.8) up to the client's CertificateVerify, in
// which the client asked for the agreed host and presented this key's own
// certificate. Both begin with a byte (0x20, 0x01) with which no DER document,
// no JWS and no SSH session begins.
//
// In TLS 1.3 the message holds a hash of the transcript only, so the host
// cannot be checked there.
package proof

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Version is the TLS version that a proof belongs to.
type Version int

// The versions of TLS that have proofs which can be checked.
const (
	TLS12 Version = 12
	TLS13 Version = 13
)

// Wanted is what a proof must agree with.
type Wanted struct {
	Leaf *x509.Certificate // of the key that is to sign
	Host string            // the host that the person agreed to, without port
	Hash crypto.Hash       // of the signature
	PSS  bool              // RSA: PSS with a salt as long as the hash; else PKCS #1 v1.5
}

// Check returns nil if message is a TLS client's proof that agrees with want.
// The error says what is wrong with it and quotes nothing of it.
func Check(message []byte, want Wanted) error {
	version, err := check(message, want)
	if err != nil {
		return err
	}
	return checkScheme(version, want)
}

func check(message []byte, want Wanted) (Version, error) {
	switch {
	case len(message) == 0:
		return 0, errors.New("an empty message")
	case message[0] == prefix13[0]:
		return TLS13, check13(message)
	case message[0] == clientHello:
		return TLS12, check12(message, want)
	}
	return 0, errors.New("not a TLS client's proof")
}

// prefix13 is what RFC 8446 §4.4.3 puts before the transcript's hash.
var prefix13 = []byte(strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00")

// check13 takes the two lengths that TLS 1.3's cipher suites have: SHA-256 and
// SHA-384.
func check13(message []byte) error {
	hash, ok := bytes.CutPrefix(message, prefix13)
	if !ok {
		return errors.New("not a TLS 1.3 client CertificateVerify")
	}
	if len(hash) != crypto.SHA256.Size() && len(hash) != crypto.SHA384.Size() {
		return fmt.Errorf("a TLS 1.3 client CertificateVerify with a hash of %d bytes", len(hash))
	}
	return nil
}

// checkScheme ties the signature's hash and padding to the version and the
// key: RSA is PSS only in TLS 1.3, and a curve has its own hash there. We ask
// the same of elliptic curves in TLS 1.2, for cards that take no other.
func checkScheme(version Version, want Wanted) error {
	switch want.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return errors.New("a hash other than SHA-256, SHA-384 and SHA-512")
	}
	switch key := want.Leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if version == TLS13 && !want.PSS {
			return errors.New("an RSA signature without PSS in TLS 1.3")
		}
		return nil
	case *ecdsa.PublicKey:
		if want.PSS {
			return errors.New("PSS with an elliptic curve key")
		}
		if hash, ok := CurveHash(key); !ok || hash != want.Hash {
			return errors.New("a hash that does not belong to the key's curve")
		}
		return nil
	}
	return errors.New("an unknown type of key")
}

// CurveHash returns the hash that TLS 1.3 uses with key's curve: SHA-256 for
// P-256, SHA-384 for P-384; others are not used for login.
func CurveHash(key *ecdsa.PublicKey) (crypto.Hash, bool) {
	switch key.Curve.Params().BitSize {
	case 256:
		return crypto.SHA256, true
	case 384:
		return crypto.SHA384, true
	}
	return 0, false
}

// Handshake message types (RFC 5246 §7.4, RFC 6066 §8).
const (
	clientHello        = 1
	serverHello        = 2
	certificate        = 11
	serverKeyExchange  = 12
	certificateRequest = 13
	serverHelloDone    = 14
	clientKeyExchange  = 16
	certificateStatus  = 22
)

// version12 is TLS 1.2 on the wire.
const version12 = 0x0303

// check12 takes exactly the messages of a full TLS 1.2 handshake with a client
// certificate and an ephemeral key exchange, before CertificateVerify, and
// nothing after them. In a renegotiation they start anew with the ClientHello.
func check12(message []byte, want Wanted) error {
	rest := cryptobyte.String(message)
	next := func(kind uint8) (cryptobyte.String, error) {
		var got uint8
		var body cryptobyte.String
		if !rest.ReadUint8(&got) || !rest.ReadUint24LengthPrefixed(&body) {
			return nil, fmt.Errorf("a handshake cut short before message type %d", kind)
		}
		if got != kind {
			return nil, fmt.Errorf("handshake message type %d where %d belongs", got, kind)
		}
		return body, nil
	}
	steps := []struct {
		kind  uint8
		check func(cryptobyte.String) error
	}{
		{clientHello, func(b cryptobyte.String) error { return checkClientHello(b, want.Host) }},
		{serverHello, checkServerHello},
		{certificate, func(b cryptobyte.String) error { return checkCertificates(b, nil) }},
		{certificateStatus, opaque},
		{serverKeyExchange, opaque},
		{certificateRequest, checkCertificateRequest},
		{serverHelloDone, empty},
		{certificate, func(b cryptobyte.String) error { return checkCertificates(b, want.Leaf) }},
		{clientKeyExchange, opaque},
	}
	for _, step := range steps {
		if step.kind == certificateStatus && len(rest) > 0 && rest[0] != certificateStatus {
			continue // the server stapled no revocation status
		}
		body, err := next(step.kind)
		if err != nil {
			return err
		}
		if err := step.check(body); err != nil {
			return err
		}
	}
	return empty(rest)
}

// opaque takes any content but none: what the server signed, or a key share.
func opaque(body cryptobyte.String) error {
	if body.Empty() {
		return errors.New("an empty handshake message")
	}
	return nil
}

func empty(body cryptobyte.String) error {
	if !body.Empty() {
		return errors.New("bytes after the handshake's end")
	}
	return nil
}

// checkClientHello reads RFC 5246 §7.4.1.2 and compares the server name.
func checkClientHello(body cryptobyte.String, host string) error {
	var version uint16
	var random []byte
	var session, suites, compression, extensions cryptobyte.String
	if !body.ReadUint16(&version) || !body.ReadBytes(&random, 32) ||
		!body.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!body.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0 ||
		!body.ReadUint8LengthPrefixed(&compression) || len(compression) == 0 ||
		!body.ReadUint16LengthPrefixed(&extensions) || !body.Empty() {
		return errors.New("a malformed ClientHello")
	}
	if version != version12 {
		return errors.New("a ClientHello that is not TLS 1.2's")
	}
	found, err := readExtensions(extensions)
	if err != nil {
		return fmt.Errorf("ClientHello: %w", err)
	}
	name, present := found[extensionServerName]
	return checkServerName(name, present, host)
}

// extensionServerName is server_name (RFC 6066 §3).
const extensionServerName = 0

// readExtensions returns the extensions by type; one that comes twice is an error.
func readExtensions(list cryptobyte.String) (map[uint16]cryptobyte.String, error) {
	found := map[uint16]cryptobyte.String{}
	for !list.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !list.ReadUint16(&kind) || !list.ReadUint16LengthPrefixed(&data) {
			return nil, errors.New("malformed extensions")
		}
		if _, twice := found[kind]; twice {
			return nil, errors.New("an extension that comes twice")
		}
		found[kind] = data
	}
	return found, nil
}

// checkServerName wants exactly one name, the host's. An IP address is never
// sent as a server name (RFC 6066 §3), so for one there must be none.
func checkServerName(data cryptobyte.String, present bool, host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		if present {
			return errors.New("a server name where an address was agreed to")
		}
		return nil
	}
	var names, name cryptobyte.String
	var kind uint8
	if !present || !data.ReadUint16LengthPrefixed(&names) || !data.Empty() ||
		!names.ReadUint8(&kind) || kind != 0 || !names.ReadUint16LengthPrefixed(&name) || !names.Empty() {
		return errors.New("no single server name in the ClientHello")
	}
	host = strings.TrimSuffix(host, ".")
	// The lengths keep Unicode's folding (K, ſ) out.
	if host == "" || len(name) != len(host) || !strings.EqualFold(string(name), host) {
		return errors.New("another server's name in the ClientHello")
	}
	return nil
}

// checkServerHello wants TLS 1.2 to have been chosen (RFC 5246 §7.4.1.3).
func checkServerHello(body cryptobyte.String) error {
	var version uint16
	var random []byte
	if !body.ReadUint16(&version) || version != version12 || !body.ReadBytes(&random, 32) {
		return errors.New("a ServerHello that is not TLS 1.2's")
	}
	return nil
}

// checkCertificates reads RFC 5246 §7.4.2; its first entry must be leaf's DER
// where leaf is given.
func checkCertificates(body cryptobyte.String, leaf *x509.Certificate) error {
	var list cryptobyte.String
	if !body.ReadUint24LengthPrefixed(&list) || !body.Empty() || list.Empty() {
		return errors.New("a malformed or empty Certificate message")
	}
	for first := true; !list.Empty(); first = false {
		var der cryptobyte.String
		if !list.ReadUint24LengthPrefixed(&der) || der.Empty() {
			return errors.New("a malformed Certificate message")
		}
		if first && leaf != nil && !bytes.Equal(der, leaf.Raw) {
			return errors.New("another certificate than this key's in the client's Certificate message")
		}
	}
	return nil
}

// checkCertificateRequest reads the outer form of RFC 5246 §7.4.4.
func checkCertificateRequest(body cryptobyte.String) error {
	var types, schemes, authorities cryptobyte.String
	if !body.ReadUint8LengthPrefixed(&types) || types.Empty() ||
		!body.ReadUint16LengthPrefixed(&schemes) || schemes.Empty() || len(schemes)%2 != 0 ||
		!body.ReadUint16LengthPrefixed(&authorities) || !body.Empty() {
		return errors.New("a malformed CertificateRequest")
	}
	return nil
}
