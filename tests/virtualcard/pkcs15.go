package virtualcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
)

// pkcs15AID is the name of the PKCS #15 application (PKCS #15 v1.1, 5.5.2).
var pkcs15AID = []byte{0xA0, 0x00, 0x00, 0x00, 0x63, 'P', 'K', 'C', 'S', '-', '1', '5'}

// layout says where a PKCS #15 card keeps what, as paths from the MF.
type layout struct {
	label, manufacturer       string
	tokenFlags                []int // bits of TokenFlags
	pins                      []pinObject
	authCert, signCert        []uint16
	authKey, signKey          []uint16
	authLabel, signLabel      string
	firstCA                   uint16 // file identifier under the MF, then one more each
	pinPadding, pinStoredSize byte
}

// pinObject is one PIN as the AODF describes it.
type pinObject struct {
	role      PINRef
	label     string
	reference byte // P2 of VERIFY
}

// Identifiers of the objects. Keys and certificates are 45 and 46 on Finnish
// cards; PINs are numbered.
const (
	idAuthentication = 0x45
	idSignature      = 0x46
	idFirstCA        = 0x47
)

// Where the directory files are.
const (
	fileDIR       = 0x2F00
	folderPKCS15  = 0x5015
	fileODF       = 0x5031
	fileTokenInfo = 0x5032
	fileAODF      = 0x4401
	filePrKDF     = 0x4402
	fileCDF       = 0x4403
	fileTrusted   = 0x4404
)

// writePKCS15 puts the files of PKCS #15 v1.1 on a card. There is no directory
// of public keys, as on real cards: middleware takes them from certificates.
func (c *Card) writePKCS15(l layout, cas [][]byte) error {
	mf := c.files.mf
	app := mf.addDF(folderPKCS15, pkcs15AID)
	path := func(id uint16) []byte { return pathTo(idMF, folderPKCS15, id) }
	mf.addEF(fileDIR, tlv(0x61, tlv(0x4F, pkcs15AID), tlv(0x50, []byte(l.label)),
		tlv(0x51, []byte{0x3F, 0x00, 0x50, 0x15})))
	app.addEF(fileODF, join(
		tlv(0xA8, path(fileAODF)), tlv(0xA0, path(filePrKDF)),
		tlv(0xA4, path(fileCDF)), tlv(0xA5, path(fileTrusted))))
	app.addEF(fileTokenInfo, tlv(0x30, integer(0), tlv(0x04, c.serial),
		tlv(0x0C, []byte(l.manufacturer)), tlv(0x80, []byte(l.label)), bits(l.tokenFlags...)))

	var pins []byte
	for _, one := range l.pins {
		pins = append(pins, c.pinEntry(l, one)...)
	}
	app.addEF(fileAODF, pins)
	app.addEF(filePrKDF, join(c.keyEntry(l, PIN1), c.keyEntry(l, PIN2)))
	app.addEF(fileCDF, join(
		certEntry(l.authLabel, idAuthentication, false, pathTo(l.authCert...)),
		certEntry(l.signLabel, idSignature, false, pathTo(l.signCert...))))
	place(mf, l.authCert, c.authentication.Certificate)
	place(mf, l.signCert, c.signature.Certificate)
	place(mf, l.authKey, nil).internal = true
	place(mf, l.signKey, nil).internal = true

	var trusted []byte
	for i, der := range cas {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("read CA certificate %d: %w", i+1, err)
		}
		id := l.firstCA + uint16(i)
		mf.addEF(id, der)
		trusted = append(trusted, certEntry(cert.Subject.CommonName, byte(idFirstCA+i), true, pathTo(idMF, id))...)
	}
	app.addEF(fileTrusted, trusted)
	return nil
}

// place adds an elementary file by its path from the MF and the folders on it
// that are missing, and returns it.
func place(mf *file, path []uint16, content []byte) *file {
	at := mf
	for _, id := range path[1 : len(path)-1] {
		next := at.child(id)
		if next == nil {
			next = at.addDF(id, nil)
		}
		at = next
	}
	return at.addEF(path[len(path)-1], content)
}

// Bits of PinFlags, CommonObjectFlags, KeyUsageFlags and KeyAccessFlags
// (PKCS #15 v1.1, 6.8.2, 6.1.3, 6.3.2).
const (
	pinLocal, pinInitialized, pinPadded, pinUnblocks = 1, 4, 5, 6
	objectPrivate, objectModifiable                  = 0, 1
	useDecrypt, useSign, useSignRecover, useUnwrap   = 1, 2, 3, 5
	useDerive, useNonRepudiation                     = 8, 9
	keySensitive, keyAlwaysSensitive, keyNeverOut    = 0, 2, 3
	keyLocal                                         = 4
)

// pinEntry is an AODF entry.
func (c *Card) pinEntry(l layout, o pinObject) []byte {
	p := c.pins[o.role]
	flags := []int{pinInitialized, pinPadded}
	common := [][]byte{tlv(0x0C, []byte(o.label)), bits(objectPrivate, objectModifiable)}
	if o.role == PUK {
		flags = append(flags, pinUnblocks)
	} else {
		common = append(common, tlv(0x04, []byte{authID(PUK)})) // what unblocks it
	}
	if o.role == PIN2 {
		flags = append(flags, pinLocal)
	}
	attributes := tlv(0x30, bits(flags...), tlv(0x0A, []byte{1}), // ascii-numeric
		integer(p.shortest), integer(int(l.pinStoredSize)), integer(p.longest),
		tlv(0x80, []byte{o.reference}), tlv(0x04, []byte{l.pinPadding}))
	return tlv(0x30, tlv(0x30, common...), tlv(0x30, tlv(0x04, []byte{authID(o.role)})),
		tlv(0xA1, attributes))
}

// authID is a PIN's identifier among the authentication objects.
func authID(role PINRef) byte { return byte(role) + 1 }

// keyEntry is a PrKDF entry of an RSA or an EC key. The key that PIN2 opens
// asks for its holder's consent to every use.
func (c *Card) keyEntry(l layout, role PINRef) []byte {
	k, label, id, path := c.authKey, l.authLabel, byte(idAuthentication), l.authKey
	common := [][]byte{bits(objectPrivate), tlv(0x04, []byte{authID(role)})}
	if role == PIN2 {
		k, label, id, path = c.signKey, l.signLabel, idSignature, l.signKey
		common = append(common, integer(1))
	}
	common = append([][]byte{tlv(0x0C, []byte(label))}, common...)
	var tag uint16 = 0x30
	size := 2048
	if private, ok := k.signer.(*ecdsa.PrivateKey); ok {
		tag, size = 0xA0, private.Curve.Params().BitSize
	}
	return tlv(tag, tlv(0x30, common...),
		tlv(0x30, tlv(0x04, []byte{id}), bits(keyUses(k.signer, role)...), tlv(0x01, []byte{0xFF}),
			bits(keySensitive, keyAlwaysSensitive, keyNeverOut, keyLocal), integer(0)),
		tlv(0xA1, tlv(0x30, pathTo(path...), integer(size))))
}

func keyUses(k crypto.Signer, role PINRef) []int {
	switch {
	case role == PIN2:
		return []int{useNonRepudiation}
	case fits(k, rsa2048):
		return []int{useDecrypt, useSign, useSignRecover, useUnwrap}
	}
	return []int{useSign, useDerive}
}

// certEntry is a CDF entry.
func certEntry(label string, id byte, authority bool, path []byte) []byte {
	attributes := [][]byte{tlv(0x04, []byte{id})}
	if authority {
		attributes = append(attributes, tlv(0x01, []byte{0xFF}))
	}
	return tlv(0x30, tlv(0x30, tlv(0x0C, []byte(label)), bits(objectModifiable)),
		tlv(0x30, attributes...), tlv(0xA1, tlv(0x30, path)))
}

// pathTo is a Path (PKCS #15 v1.1, 6.1.5).
func pathTo(ids ...uint16) []byte {
	var raw []byte
	for _, id := range ids {
		raw = append(raw, byte(id>>8), byte(id))
	}
	return tlv(0x30, tlv(0x04, raw))
}

// bits is a BIT STRING with named bits.
func bits(set ...int) []byte {
	var out asn1.BitString
	for _, b := range set {
		for len(out.Bytes) <= b/8 {
			out.Bytes = append(out.Bytes, 0)
		}
		out.Bytes[b/8] |= 0x80 >> (b % 8)
		out.BitLength = max(out.BitLength, b+1)
	}
	der, _ := asn1.Marshal(out) // cannot fail: the length fits the bytes
	return der
}

func integer(n int) []byte {
	der, _ := asn1.Marshal(n) // cannot fail
	return der
}

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
