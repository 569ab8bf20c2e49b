package crl

import (
	"bufio"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// stream reads DER (X.690) from the front, never more than a small piece of it
// at once, and hashes what belongs to the signed part.
type stream struct {
	in     *bufio.Reader
	hash   hash.Hash // nil outside of the signed part
	offset int64     // bytes read
	head   [8]byte   // the tag and length that header has read
	value  []byte    // reused by small
}

// maxSmall bounds what is read into memory in one piece: names, extensions,
// entries with theirs.
const maxSmall = 64 << 10

// Tags that a CRL has (X.680).
const (
	tagInteger         = 0x02
	tagBitString       = 0x03
	tagUTCTime         = 0x17
	tagGeneralizedTime = 0x18
	tagSequence        = 0x30
	tagExtensions      = 0xA0 // [0] EXPLICIT
)

var errDER = errors.New("its encoding is not DER")

func (s *stream) full(b []byte) error {
	n, err := io.ReadFull(s.in, b)
	s.offset += int64(n)
	if s.hash != nil {
		s.hash.Write(b[:n])
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("it ends early")
	}
	return err
}

// header reads a tag and the length of what follows; raw are its own bytes,
// valid until the next call.
func (s *stream) header() (tag byte, length int64, raw []byte, err error) {
	if err := s.full(s.head[:2]); err != nil {
		return 0, 0, nil, err
	}
	tag, first := s.head[0], s.head[1]
	if tag&0x1f == 0x1f { // none of a CRL's
		return 0, 0, nil, errDER
	}
	if first < 0x80 {
		return tag, int64(first), s.head[:2], nil
	}
	n := int(first & 0x7f)
	if n == 0 || n > 4 {
		return 0, 0, nil, errDER
	}
	if err := s.full(s.head[2 : 2+n]); err != nil {
		return 0, 0, nil, err
	}
	for _, b := range s.head[2 : 2+n] {
		length = length<<8 | int64(b)
	}
	if length < 0x80 || s.head[2] == 0 { // a shorter form would do
		return 0, 0, nil, errDER
	}
	return tag, length, s.head[:2+n], nil
}

// small reads a value, valid until the next call.
func (s *stream) small(length int64) ([]byte, error) {
	if length > maxSmall {
		return nil, fmt.Errorf("a part of it has %d bytes, at most %d are read", length, maxSmall)
	}
	if int64(cap(s.value)) < length {
		s.value = make([]byte, max(length, 512))
	}
	s.value = s.value[:length]
	return s.value, s.full(s.value)
}

// want reads the header of a value that must have a tag.
func (s *stream) want(tag byte) (length int64, err error) {
	got, length, _, err := s.header()
	if err != nil {
		return 0, err
	}
	if got != tag {
		return 0, errDER
	}
	return length, nil
}

// whole reads a value with its header, as it stands, into memory of its own.
func (s *stream) whole(tag byte) ([]byte, error) {
	got, length, raw, err := s.header()
	if err != nil {
		return nil, err
	}
	if got != tag {
		return nil, errDER
	}
	all := append([]byte(nil), raw...)
	value, err := s.small(length)
	return append(all, value...), err
}

// begin starts hashing, with what has been read of the signed part so far.
func (s *stream) begin(h crypto.Hash, before []byte) {
	s.hash = h.New()
	s.hash.Write(before)
}

// element takes one value off the front of DER that is in memory.
func element(der []byte) (tag byte, value, rest []byte, ok bool) {
	if len(der) < 2 || der[0]&0x1f == 0x1f {
		return 0, nil, nil, false
	}
	length, at := int(der[1]), 2
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 || n > 3 || len(der) < 2+n || der[2] == 0 {
			return 0, nil, nil, false
		}
		length = 0
		for _, b := range der[2 : 2+n] {
			length = length<<8 | int(b)
		}
		if length < 0x80 {
			return 0, nil, nil, false
		}
		at += n
	}
	if len(der)-at < length {
		return 0, nil, nil, false
	}
	return der[0], der[at : at+length], der[at+length:], true
}

// unixTime reads UTCTime or GeneralizedTime as RFC 5280 section 4.1.2.5 has
// them: in Z, with seconds and without fractions.
func unixTime(tag byte, text []byte) (int64, error) {
	year, digits := 0, text
	switch {
	case tag == tagUTCTime && len(text) == 13:
		yy, ok := number(text[:2])
		if year = 2000 + yy; yy >= 50 {
			year = 1900 + yy
		}
		if !ok {
			return 0, errDER
		}
		digits = text[2:]
	case tag == tagGeneralizedTime && len(text) == 15:
		high, ok1 := number(text[:2])
		low, ok2 := number(text[2:4])
		if year = 100*high + low; !ok1 || !ok2 {
			return 0, errDER
		}
		digits = text[4:]
	default:
		return 0, errDER
	}
	var part [5]int // month, day, hour, minute, second
	for i := range part {
		n, ok := number(digits[2*i : 2*i+2])
		if !ok {
			return 0, errDER
		}
		part[i] = n
	}
	t := time.Date(year, time.Month(part[0]), part[1], part[2], part[3], part[4], 0, time.UTC)
	if digits[10] != 'Z' || part[0] < 1 || part[0] > 12 || t.Day() != part[1] || t.Hour() != part[2] || t.Minute() != part[3] || t.Second() != part[4] {
		return 0, errDER
	}
	return t.Unix(), nil
}

func number(two []byte) (int, bool) {
	a, b := two[0]-'0', two[1]-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}
