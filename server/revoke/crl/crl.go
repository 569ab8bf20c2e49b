// Package crl reads certificate revocation lists (RFC 5280 section 5) as
// streams, and keeps of them what a look-up needs: for a million entries some
// 24 MB, with their dates and reasons.
//
// A List says what was read and whether a CA has signed it; it decides nothing.
// Whether it is fresh enough, speaks of the certificate at hand and is to be
// believed, is package revoke's business. Lists that cannot be understood as a
// whole are refused as a whole: those with unknown critical extensions and
// indirect ones (section 5.3: such a list must not be used).
//
//	list, err := crl.Read(file, crl.Limits{})
//	err = list.CheckSignature(issuer)
//	entry, revoked := list.Lookup(cert.SerialNumber)
package crl

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "crypto/sha512" // for crypto.Hash
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"time"
)

// Limits bound what is read from outside; zero fields have the defaults.
type Limits struct {
	Bytes   int64 // of the whole list; default 256 MiB
	Entries int   // default 5,000,000
}

// List is a list that was read. It is safe for concurrent use.
type List struct {
	Issuer     []byte   // DER of the issuer's name
	KeyID      []byte   // authority key identifier, nil where there is none
	Number     *big.Int // nil where there is none
	Base       *big.Int // of a delta list: the number of the list that it changes; nil in a full one
	ThisUpdate time.Time
	NextUpdate time.Time // zero where there is none
	Scope      Scope

	entries   []entry // sorted by key
	digest    []byte  // of the signed part
	algorithm algorithm
	signature []byte
}

// Scope is the issuing distribution point (RFC 5280 section 5.2.5); the zero
// Scope is all certificates of the issuer.
type Scope struct {
	URLs               []string // of the distribution point, where it is named by URLs
	OnlyUsers          bool     // certificates that are no CA's
	OnlyCAs            bool
	OnlyAttributes     bool // attribute certificates: no identity's
	OnlySomeReasons    bool
	NamedPointNotByURL bool // there is a distribution point that has no URL
}

// Equal tells whether two lists are about the same certificates.
func (s Scope) Equal(other Scope) bool {
	return slices.Equal(s.URLs, other.URLs) && s.OnlyUsers == other.OnlyUsers && s.OnlyCAs == other.OnlyCAs &&
		s.OnlyAttributes == other.OnlyAttributes && s.OnlySomeReasons == other.OnlySomeReasons &&
		s.NamedPointNotByURL == other.NamedPointNotByURL
}

// Reason is why a certificate was revoked (RFC 5280 section 5.3.1).
type Reason uint8

// RemoveFromCRL in a delta list takes an entry of its base back.
const RemoveFromCRL Reason = 8

// Entry is what a list says of one certificate.
type Entry struct {
	Date   time.Time
	Reason Reason // 0, unspecified, where the list names none
}

// entry is 24 bytes: there may be millions.
type entry struct {
	key    key
	date   uint32 // Unix time: until 2106
	reason Reason
}

// key stands for a serial number, as two halves of 16 bytes: its length and its
// bytes, or, of those longer than 15 bytes, 15 bytes of their SHA-256 behind
// 0xFF. Only the CA chooses serial numbers.
type key struct{ high, low uint64 }

func keyOf(serial []byte) key {
	var b [16]byte
	if b[0] = byte(len(serial)); len(serial) > 15 {
		sum := sha256.Sum256(serial)
		serial, b[0] = sum[:15], 0xFF
	}
	copy(b[1:], serial)
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// compare is in the way of a million entries being sorted, so it compares no
// more than it must.
func (k key) compare(other key) int {
	if k.high != other.high {
		return cmp.Compare(k.high, other.high)
	}
	return cmp.Compare(k.low, other.low)
}

// Len is the number of entries.
func (l *List) Len() int { return len(l.entries) }

// Lookup tells what the list says of a serial number.
func (l *List) Lookup(serial *big.Int) (Entry, bool) {
	var room [64]byte
	n := (serial.BitLen() + 7) / 8
	if n > len(room) { // RFC 5280 section 4.1.2.2 has them end at 20
		return Entry{}, false
	}
	k := keyOf(serial.FillBytes(room[:n]))
	i, ok := slices.BinarySearchFunc(l.entries, k, func(e entry, k key) int { return e.key.compare(k) })
	if !ok {
		return Entry{}, false
	}
	e := l.entries[i]
	return Entry{time.Unix(int64(e.date), 0).UTC(), e.reason}, true
}

// CheckSignature checks that the issuer has signed the list: its name, its key
// identifier where the list has one, its right to sign lists and the signature.
// The chain of the issuer is the caller's to check.
func (l *List) CheckSignature(issuer *x509.Certificate) error {
	switch {
	case !bytes.Equal(issuer.RawSubject, l.Issuer):
		return errors.New("the list is another issuer's")
	case len(l.KeyID) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(issuer.SubjectKeyId, l.KeyID):
		return errors.New("the list is signed with another key of the issuer")
	case !issuer.BasicConstraintsValid || !issuer.IsCA || issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return errors.New("the issuer may not sign lists")
	}
	return l.algorithm.verify(issuer.PublicKey, l.digest, l.signature)
}

// Read reads a list in DER until its end. The list is not believed before
// CheckSignature has said so.
func Read(from io.Reader, limits Limits) (*List, error) {
	l, err := read(from, limits)
	if err != nil {
		return nil, fmt.Errorf("read the revocation list: %w", err)
	}
	return l, nil
}

func read(from io.Reader, limits Limits) (*List, error) {
	limits.Bytes = cmp.Or(limits.Bytes, 256<<20)
	limits.Entries = cmp.Or(limits.Entries, 5_000_000)
	s := &stream{in: bufio.NewReaderSize(io.LimitReader(from, limits.Bytes+1), 64<<10)}
	length, err := s.want(tagSequence) // CertificateList
	if err != nil {
		return nil, err
	}
	if length > limits.Bytes {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", length, limits.Bytes)
	}
	end := s.offset + length
	l := &List{}
	inner, err := l.readSigned(s, limits)
	if err != nil {
		return nil, err
	}
	outer, err := s.whole(tagSequence)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(inner, outer) { // RFC 5280 section 5.1.1.2
		return nil, errors.New("it names two signature algorithms")
	}
	length, err = s.want(tagBitString)
	if err != nil {
		return nil, err
	}
	signature, err := s.small(length)
	if err != nil {
		return nil, err
	}
	if len(signature) < 2 || signature[0] != 0 {
		return nil, errDER
	}
	l.signature = bytes.Clone(signature[1:])
	if s.offset != end {
		return nil, errDER
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		return nil, errors.New("something follows it")
	}
	l.sort()
	return l, nil
}

// readSigned reads TBSCertList and returns its signature algorithm as it stands.
func (l *List) readSigned(s *stream, limits Limits) (algorithm []byte, err error) {
	tag, length, raw, err := s.header()
	if err != nil {
		return nil, err
	}
	if tag != tagSequence {
		return nil, errDER
	}
	end := s.offset + length
	before := bytes.Clone(raw)
	// The algorithm says which hash, so what comes before it is kept.
	if tag, length, raw, err = s.header(); err != nil {
		return nil, err
	}
	version2 := false
	if tag == tagInteger {
		before = append(before, raw...)
		value, err := s.small(length)
		if err != nil {
			return nil, err
		}
		if len(value) != 1 || value[0] != 1 {
			return nil, errors.New("it has another version than 2")
		}
		version2, before = true, append(before, value...)
		if tag, length, raw, err = s.header(); err != nil {
			return nil, err
		}
	}
	if tag != tagSequence {
		return nil, errDER
	}
	algorithm = bytes.Clone(raw)
	value, err := s.small(length)
	if err != nil {
		return nil, err
	}
	algorithm = append(algorithm, value...)
	if l.algorithm, err = parseAlgorithm(algorithm); err != nil {
		return nil, err
	}
	s.begin(l.algorithm.hash, append(before, algorithm...))
	if l.Issuer, err = s.whole(tagSequence); err != nil {
		return nil, err
	}
	if l.ThisUpdate, err = readTime(s); err != nil {
		return nil, err
	}
	if err := l.readRest(s, end, version2, limits); err != nil {
		return nil, err
	}
	if s.offset != end {
		return nil, errDER
	}
	l.digest, s.hash = s.hash.Sum(nil), nil
	return algorithm, nil
}

func readTime(s *stream) (time.Time, error) {
	tag, length, _, err := s.header()
	if err != nil {
		return time.Time{}, err
	}
	text, err := s.small(length)
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := unixTime(tag, text)
	return time.Unix(seconds, 0).UTC(), err
}

// readRest reads what is optional, in its order: nextUpdate, the entries, the
// extensions.
func (l *List) readRest(s *stream, end int64, version2 bool, limits Limits) error {
	for stage := 0; s.offset < end; {
		tag, length, _, err := s.header()
		if err != nil {
			return err
		}
		switch {
		case (tag == tagUTCTime || tag == tagGeneralizedTime) && stage < 1:
			stage = 1
			text, err := s.small(length)
			if err != nil {
				return err
			}
			seconds, err := unixTime(tag, text)
			if err != nil {
				return err
			}
			l.NextUpdate = time.Unix(seconds, 0).UTC()
		case tag == tagSequence && stage < 2:
			stage = 2
			if s.offset+length > end {
				return errDER
			}
			if err := l.readEntries(s, s.offset+length, limits.Entries); err != nil {
				return err
			}
		case tag == tagExtensions && stage < 3 && version2:
			stage = 3
			der, err := s.small(length)
			if err != nil {
				return err
			}
			if err := l.readExtensions(der); err != nil {
				return err
			}
		default:
			return errDER
		}
	}
	return nil
}

func (l *List) readEntries(s *stream, end int64, most int) error {
	for s.offset < end {
		begin := s.offset
		length, err := s.want(tagSequence)
		if err != nil {
			return err
		}
		der, err := s.small(length)
		if err != nil {
			return err
		}
		e, err := parseEntry(der)
		if err != nil {
			return err
		}
		if l.entries == nil { // the others are mostly as long as the first
			guess := (end-begin)/(s.offset-begin) + 16
			l.entries = make([]entry, 0, min(guess, int64(most)))
		}
		if len(l.entries) == most {
			return fmt.Errorf("it has more than %d entries", most)
		}
		l.entries = append(l.entries, e)
	}
	if s.offset != end {
		return errDER
	}
	return nil
}

func parseEntry(der []byte) (e entry, err error) {
	tag, serial, rest, ok := element(der)
	if !ok || tag != tagInteger || len(serial) == 0 || len(serial) > 1 && serial[0] == 0 && serial[1] < 0x80 {
		return e, errDER
	}
	if serial[0] >= 0x80 {
		return e, errors.New("an entry has a negative serial number")
	}
	if len(serial) > 64 {
		return e, errors.New("an entry has a serial number that is no certificate's")
	}
	if serial[0] == 0 {
		serial = serial[1:]
	}
	tag, date, rest, ok := element(rest)
	if !ok {
		return e, errDER
	}
	seconds, err := unixTime(tag, date)
	if err != nil {
		return e, err
	}
	e.key, e.date = keyOf(serial), uint32(max(0, min(seconds, math.MaxUint32)))
	if len(rest) > 0 {
		e.reason, err = parseEntryExtensions(rest)
	}
	return e, err
}

// sort puts the entries in order. Of entries with one serial number, which a CA
// should not make, the earliest date counts.
func (l *List) sort() {
	order := func(a, b entry) int {
		if c := a.key.compare(b.key); c != 0 {
			return c
		}
		return cmp.Compare(a.date, b.date)
	}
	slices.SortFunc(l.entries, order)
	l.entries = slices.CompactFunc(l.entries, func(a, b entry) bool { return a.key == b.key })
}
