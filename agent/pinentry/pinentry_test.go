package pinentry

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake is a pinentry program that answers each command with a line of its own and
// writes down what it was told.
func fake(t *testing.T, script string) (path string, told func() string) {
	t.Helper()
	dir := t.TempDir()
	path, log := filepath.Join(dir, "pinentry"), filepath.Join(dir, "told")
	text := "#!/bin/sh\nprintf 'OK hello\\n'\nwhile read -r word rest; do\nprintf '%s\\n' \"$word $rest\" >>" + log + "\ncase $word in\n" +
		script + "\nBYE) printf 'OK\\n'; exit ;;\n*) printf 'OK\\n' ;;\nesac\ndone\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, func() string {
		raw, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
}

func start(t *testing.T, c Config) *Dialog {
	t.Helper()
	d, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPIN(t *testing.T) {
	path, told := fake(t, `GETPIN) printf 'S PIN_REPEATED\n# a comment\nD 12%%2534\nD ä\nOK\n' ;;
OPTION) printf 'ERR 83886254 Unknown option <Pinentry>\n' ;;`)
	d := start(t, Config{Path: path, TTY: "/dev/pts/7", TTYType: "xterm", Locale: "fi_FI.UTF-8"})
	for f, text := range map[Field]string{Description: "PIN of\n50 % ÄILI\x1b[2J", Mistake: strings.Repeat("ä", 2000)} {
		if err := d.Set(f, text); err != nil {
			t.Error(err)
		}
	}
	pin, err := d.PIN()
	if err != nil || string(pin) != "12%34ä" {
		t.Errorf("%q %v", pin, err)
	}
	if bytes.Contains(d.out.buf[:], []byte("34")) {
		t.Error("the PIN is left in the buffer")
	}
	d.Close()
	for _, want := range []string{
		"OPTION ttyname=/dev/pts/7\n", "OPTION ttytype=xterm\n", "OPTION lc-ctype=fi_FI.UTF-8\n", "OPTION lc-messages=fi_FI.UTF-8\n",
		"SETDESC PIN of%0A50 %25 ÄILI[2J\n", "GETPIN \n", "BYE \n",
	} {
		if !strings.Contains(told(), want) {
			t.Errorf("%q was not said:\n%s", want, told())
		}
	}
	if strings.Contains(told(), "cache") {
		t.Error("a cache was spoken of")
	}
	for line := range strings.Lines(told()) {
		if len(line) > maxLine+1 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestAnswers(t *testing.T) {
	for reply, want := range map[string]error{
		`ERR 83886179 cancelled`:        ErrCancelled,
		`ERR 83886278 fully`:            ErrCancelled,
		`ERR 83886142 timeout`:          ErrTimeout,
		`ERR x`:                         errLine,
		`HELLO`:                         errLine,
		`S PASSWORD_FROM_CACHE\nOK`:     errCached,
		`D 1%%zz\nOK`:                   errLine,
		`D 1234\nERR 83886179 late`:     ErrCancelled,
		`INQUIRE QUALITY 1234\nD 1`:     nil, // and OK for our CAN
		`ERR 536871187 \033[2Jodd`:      &Error{536871187, "[2Jodd"},
		`D ` + strings.Repeat("1", 300): errData,
	} {
		path, _ := fake(t, "GETPIN) printf '"+reply+"\\n' ;;")
		d := start(t, Config{Path: path})
		pin, err := d.PIN()
		var other *Error
		if errors.As(want, &other) {
			if got := new(Error); !errors.As(err, &got) || *got != *other {
				t.Errorf("%s: %v", reply, err)
			}
		} else if !errors.Is(err, want) || err != nil && pin != nil {
			t.Errorf("%s: %q %v, want %v", reply, pin, err, want)
		}
		d.Close()
	}
	for reply, want := range map[string]bool{"OK": true, "ERR 83886194 not confirmed": false} {
		path, _ := fake(t, "CONFIRM) printf '"+reply+"\\n' ;;")
		d := start(t, Config{Path: path})
		if got, err := d.Confirm(); got != want || err != nil {
			t.Errorf("%s: %v %v", reply, got, err)
		}
		d.Close()
	}
	path, _ := fake(t, "CONFIRM) printf 'ERR 83886179 cancelled\\n' ;;")
	d := start(t, Config{Path: path})
	if got, err := d.Confirm(); got || !errors.Is(err, ErrCancelled) {
		t.Error(got, err)
	}
	d.Close()
}

// A program that shows a question ends with the context, and one that ends by
// itself is told of.
func TestEnds(t *testing.T) {
	path, _ := fake(t, "GETPIN) exit ;;\nCONFIRM) exec sleep 600 ;;")
	d := start(t, Config{Path: path})
	if _, err := d.PIN(); err == nil || !strings.Contains(err.Error(), "ended without an answer") {
		t.Error(err)
	}
	d.Close()

	closed := errors.New("answered elsewhere")
	ctx, cancel := context.WithCancelCause(t.Context())
	d, err := Start(ctx, Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := d.Confirm()
		asked <- err
	}()
	cancel(closed)
	if err := <-asked; !errors.Is(err, closed) {
		t.Error(err)
	}
	d.Close()

	if _, err := Start(t.Context(), Config{Path: "/nonexistent/pinentry"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Start(t.Context(), Config{Path: "true"}); err == nil || !strings.Contains(err.Error(), "does not answer as a pinentry") {
		t.Error(err)
	}
}

// FuzzReply feeds the reader of what a pinentry program says.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"OK\n", "D 12%2534\nOK x\n", "S a\n# b\nINQUIRE c\nERR 83886179 d\n", "D " + strings.Repeat("%00", 400) + "\n", strings.Repeat("x", 3000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var in bytes.Buffer
		d := &Dialog{in: &in, out: lines{from: bytes.NewReader(said)}, ctx: ctx}
		data, err := d.reply()
		if err != nil && data != nil || len(data) > maxData {
			t.Fatalf("%d bytes and %v", len(data), err)
		}
	})
}

// FuzzEscape: what is escaped fits a line, holds nothing that ends it, and reads
// as what it was.
func FuzzEscape(f *testing.F) {
	f.Add("50 %\nÄ\x00", 10)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		got := escape(text, limit)
		if limit >= 0 && len(got) > limit || strings.ContainsFunc(got, isControl) {
			t.Fatalf("%q", got)
		}
		back, err := unescape(make([]byte, 0, len(got)), []byte(got))
		if err != nil {
			t.Fatal(err)
		}
		clean := strings.Map(func(r rune) rune {
			if isControl(r) && r != '\n' && r != '\r' {
				return -1
			}
			return r
		}, strings.ToValidUTF8(text, "?"))
		if !strings.HasPrefix(clean, string(back)) {
			t.Fatalf("%q became %q", clean, back)
		}
	})
}
