package pinentry

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// Bounds of the protocol: a line has at most 1,000 bytes with its end (Assuan
// manual, "Server responses"), and a PIN 255, which is more than any card takes.
const (
	maxLine = 999
	maxData = 255
)

var (
	errLine   = errors.New("pinentry sent a line that is none of the protocol's")
	errData   = errors.New("what was entered is too long")
	errCached = errors.New("pinentry took the PIN from a cache; that is never asked for, so switch it off")
)

// lines reads lines into one array, which can be wiped.
type lines struct {
	from       io.Reader
	buf        [2 * (maxLine + 1)]byte
	start, end int // of what was read and not yet given
}

// next gives the next line without its end, valid until the next call.
func (l *lines) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : l.start+i]
			l.start += i + 1
			if len(line) > maxLine {
				return nil, errLine
			}
			return line, nil
		}
		if l.end-l.start > maxLine {
			return nil, errLine
		}
		l.end = copy(l.buf[:], l.buf[l.start:l.end])
		l.start = 0
		n, err := l.from.Read(l.buf[l.end:])
		l.end += n
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// wipe overwrites all but what was not yet given.
func (l *lines) wipe() {
	clear(l.buf[:l.start])
	clear(l.buf[l.end:])
}

// replyKind is what a line of the program is.
type replyKind int

const (
	replyOK replyKind = iota
	replyError
	replyData
	replyInquire
	replyCached // the PIN comes from a cache
	replyOther  // status and comments
)

type reply struct {
	kind replyKind
	err  error  // of replyError
	data []byte // of replyData, escaped
}

// parse reads one line of the program.
func parse(line []byte) (reply, error) {
	word, rest, _ := bytes.Cut(line, []byte(" "))
	switch {
	case len(line) > 0 && line[0] == '#':
		return reply{kind: replyOther}, nil
	case string(word) == "OK":
		return reply{kind: replyOK}, nil
	case string(word) == "D":
		return reply{kind: replyData, data: rest}, nil
	case string(word) == "S" && bytes.HasPrefix(rest, []byte("PASSWORD_FROM_CACHE")):
		return reply{kind: replyCached}, nil
	case string(word) == "S":
		return reply{kind: replyOther}, nil
	case string(word) == "INQUIRE":
		return reply{kind: replyInquire}, nil
	case string(word) == "ERR":
		number, text, _ := strings.Cut(string(rest), " ")
		code, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return reply{}, errLine
		}
		return reply{kind: replyError, err: errorOf(int(code), text)}, nil
	}
	return reply{}, errLine
}

func errorOf(code int, text string) error {
	switch code & codeMask {
	case codeCancelled, codeFully:
		return ErrCancelled
	case codeNotConfirmed:
		return errNotConfirmed
	case codeTimeout:
		return ErrTimeout
	}
	text = strings.Map(func(r rune) rune {
		if isControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return &Error{Code: code, Text: text}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }

// escape writes text as a parameter (Assuan manual, "Client requests"), with no
// more than limit bytes and no character cut in two.
func escape(text string, limit int) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(text, "?") {
		c := string(r)
		switch {
		case r == '%' || r == '\n' || r == '\r':
			c = "%" + strings.ToUpper(strconv.FormatInt(0x100+int64(r), 16)[1:])
		case isControl(r):
			continue
		}
		if b.Len()+len(c) > limit {
			break
		}
		b.WriteString(c)
	}
	return b.String()
}

// unescape adds escaped data to dst, which never moves.
func unescape(dst, data []byte) ([]byte, error) {
	for len(data) > 0 {
		c, n := data[0], 1
		if c == '%' {
			if len(data) < 3 {
				return dst, errLine
			}
			high, ok := hexDigit(data[1])
			low, ok2 := hexDigit(data[2])
			if !ok || !ok2 {
				return dst, errLine
			}
			c, n = high<<4|low, 3
		}
		if len(dst) == cap(dst) {
			return dst, errData
		}
		dst, data = append(dst, c), data[n:]
	}
	return dst, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
