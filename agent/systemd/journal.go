package systemd

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// IsJournal tells whether what is written to f goes to the journal: systemd
// says in $JOURNAL_STREAM which file that is (systemd.exec(5)).
func IsJournal(f *os.File) bool {
	var st unix.Stat_t
	stream := os.Getenv("JOURNAL_STREAM")
	return stream != "" && unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// NewJournalHandler writes records as text for the journal: with their priority
// in front, as sd-daemon(3) has it, and without the time, which the journal
// knows.
func NewJournalHandler(w io.Writer, level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(&prioritized{w}, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime:
			return slog.Attr{}
		case a.Key == slog.LevelKey:
			if level, ok := a.Value.Any().(slog.Level); ok {
				return slog.Int(slog.LevelKey, priority(level))
			}
		}
		return a
	}})
}

// priority is syslog(3)'s.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// prioritized turns the level that each line begins with into "<N>".
type prioritized struct{ w io.Writer }

func (p *prioritized) Write(record []byte) (int, error) {
	number, rest, ok := bytes.Cut(bytes.TrimPrefix(record, []byte(slog.LevelKey+"=")), []byte(" "))
	if !ok {
		return p.w.Write(record)
	}
	if _, err := p.w.Write(fmt.Appendf(nil, "<%s>%s", number, rest)); err != nil {
		return 0, err
	}
	return len(record), nil
}
