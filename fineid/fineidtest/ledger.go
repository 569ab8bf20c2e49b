package fineidtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const ledgerFile = "ledger.jsonl"

// entry is one record: a certificate was issued or, with a time, revoked.
type entry struct {
	CA string `json:"ca"`
	// Serial is the certificate's serial number in hex.
	Serial  string    `json:"serial"`
	Revoked time.Time `json:"revoked,omitzero"`
	Reason  int       `json:"reason,omitempty"`
}

// ledger knows which certificates were issued and which were revoked. With a
// folder it is a file that several processes append to, so that one of them
// can issue while another one answers OCSP; each reads what is new before it
// answers.
type ledger struct {
	// mu guards all fields.
	mu      sync.Mutex
	dir     string
	offset  int64 // how much of the file has been read
	entries []entry
}

// add records an entry.
func (l *ledger) add(e entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dir == "" {
		l.entries = append(l.entries, e)
		return nil
	}
	return appendEntries(l.dir, []entry{e})
}

// attach copies the entries so far into a folder, and keeps the ledger there.
func (l *ledger) attach(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.catchUp(); err != nil {
		return err
	}
	if err := appendEntries(dir, l.entries); err != nil {
		return err
	}
	l.dir, l.offset, l.entries = dir, 0, nil
	return nil
}

// find gives the last entry about a certificate.
func (l *ledger) find(ca, serial string) (entry, bool, error) {
	entries, err := l.of(ca)
	if err != nil {
		return entry{}, false, err
	}
	for _, e := range slices.Backward(entries) {
		if e.Serial == serial {
			return e, true, nil
		}
	}
	return entry{}, false, nil
}

// of lists the entries of one CA, oldest first.
func (l *ledger) of(ca string) ([]entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.catchUp(); err != nil {
		return nil, err
	}
	var found []entry
	for _, e := range l.entries {
		if e.CA == ca {
			found = append(found, e)
		}
	}
	return found, nil
}

// catchUp reads what was appended to the file since the last time. A last line
// without its end is another process's half-written one and waits.
func (l *ledger) catchUp() error {
	if l.dir == "" {
		return nil
	}
	file, err := os.Open(filepath.Join(l.dir, ledgerFile))
	if err != nil {
		return fmt.Errorf("read ledger of test PKI: %w", err)
	}
	defer file.Close()
	news, err := io.ReadAll(io.NewSectionReader(file, l.offset, 1<<30))
	if err != nil {
		return fmt.Errorf("read ledger of test PKI: %w", err)
	}
	for {
		line, rest, complete := bytes.Cut(news, []byte("\n"))
		if !complete {
			return nil
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read ledger of test PKI: %w", err)
		}
		l.entries = append(l.entries, e)
		l.offset += int64(len(line)) + 1
		news = rest
	}
}

// appendEntries writes all entries in one write, which O_APPEND keeps whole
// between processes.
func appendEntries(dir string, entries []entry) error {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, e := range entries {
		if err := encoder.Encode(e); err != nil {
			return fmt.Errorf("write ledger of test PKI: %w", err)
		}
	}
	file, err := os.OpenFile(filepath.Join(dir, ledgerFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write ledger of test PKI: %w", err)
	}
	_, err = file.Write(lines.Bytes())
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write ledger of test PKI: %w", err)
	}
	return nil
}
