package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	want := Request{Op: Sign, Host: "asiointi.example.fi", Hash: 6, Certificate: []byte{1, 2}}
	body := []byte("message\x00with any bytes\xff")
	var stream bytes.Buffer
	if err := Write(&stream, want, body); err != nil {
		t.Fatal(err)
	}
	var got Request
	gotBody, err := Read(&stream, &got)
	if err != nil || !reflect.DeepEqual(got, want) || !bytes.Equal(gotBody, body) {
		t.Fatalf("Read = %+v %q %v", got, gotBody, err)
	}
	if _, err := Read(&stream, &got); err != io.EOF {
		t.Fatalf("Read at the end = %v, want io.EOF itself", err)
	}
}

func TestReadRefuses(t *testing.T) {
	frame := func(prefix, rest string) string { return prefix + rest }
	for name, in := range map[string]string{
		"cut prefix":        "\x00\x00",
		"cut header":        frame("\x00\x00\x00\x0a\x00\x00\x00\x00", "{}"),
		"cut body":          frame("\x00\x00\x00\x02\x00\x00\x00\x05", "{}abc"),
		"over the limit":    frame("\x00\x04\x00\x00\x00\x00\x00\x01", "{}"),
		"lengths that wrap": frame("\xff\xff\xff\xff\x00\x00\x00\x01", "{}"),
		"unknown field":     frame("\x00\x00\x00\x0b\x00\x00\x00\x00", `{"Xyzzy":1}`),
		"two values":        frame("\x00\x00\x00\x04\x00\x00\x00\x00", "{}{}"),
		"no JSON":           frame("\x00\x00\x00\x03\x00\x00\x00\x00", "abc"),
		"no header":         frame("\x00\x00\x00\x00\x00\x00\x00\x00", ""),
	} {
		var got Answer
		if _, err := Read(strings.NewReader(in), &got); err == nil || errors.Is(err, io.EOF) && err == io.EOF {
			t.Errorf("%s: err = %v, want a refusal", name, err)
		}
	}
}

func TestWriteRefusesOverTheLimit(t *testing.T) {
	var stream bytes.Buffer
	if err := Write(&stream, Request{Op: Sign}, make([]byte, Limit)); err == nil || stream.Len() != 0 {
		t.Fatalf("err = %v with %d bytes written, want a refusal and nothing written", err, stream.Len())
	}
}

func FuzzRead(f *testing.F) {
	var stream bytes.Buffer
	if err := Write(&stream, Answer{Token: &TokenInfo{Label: "KORTTI"}}, []byte("body")); err != nil {
		f.Fatal(err)
	}
	f.Add(stream.Bytes())
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01{}x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var a Answer
		body, err := Read(bytes.NewReader(in), &a)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Write(&again, a, body); err != nil && len(in) < Limit/8 { // escapes may make JSON longer
			t.Fatalf("a frame that was read cannot be written: %v", err)
		}
	})
}
