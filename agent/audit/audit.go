// Package audit keeps the record of what the agent decided: one JSON line for
// each decision, in a file of the user's own. Certificates appear by their
// SHA-256 only; no name, no PIN and no URL beyond the host is written.
package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// The decisions that are recorded.
const (
	Consent       = "consent"        // a program may use a certificate at a host
	ConsentDenied = "consent-denied" // the person said no
	ConsentEnded  = "consent-ended"  // a consent was taken back
	Unlock        = "unlock"
	UnlockRefused = "unlock-refused" // wrong PIN, locked PIN, …
	Lock          = "lock"
	PINChanged    = "pin-changed"
	PINUnblocked  = "pin-unblocked"
	PINKept       = "pin-kept" // it was to be changed or unblocked: wrong PIN, wrong PUK, …
	Removed       = "removed"
	Chosen        = "chosen"    // the person chose a certificate for a host
	Signature     = "signature" // the card proved the person's identity to a host
	HostListed    = "host-listed"
	HostDropped   = "host-dropped"
	Settings      = "settings" // the settings were changed
)

// maxTail bounds how much of the file's end Tail reads, in bytes.
const maxTail = 4 << 20

// File is an open audit file. It is safe for concurrent use.
type File struct {
	log *slog.Logger

	mu   sync.Mutex // guards the writes and the reads of file
	file *os.File
}

// Open opens the audit file, mode 0600, and makes it with its directory when it
// is missing. What cannot be written later goes to log: the agent goes on.
func Open(path string, log *slog.Logger) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open the audit file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit file: %w", err)
	}
	return &File{log: log, file: f}, nil
}

// Write appends one record; Time is set when it is zero.
func (f *File) Write(r control.AuditRecord) {
	if r.Time.IsZero() {
		r.Time = time.Now().UTC()
	}
	line, err := json.Marshal(r)
	if err == nil {
		f.mu.Lock()
		_, err = f.file.Write(append(line, '\n')) // one write: O_APPEND keeps lines whole
		f.mu.Unlock()
	}
	if err != nil {
		f.log.Error("write the audit file", "error", err, "decision", r.Decision)
	}
}

// Tail returns the newest records, at most limit of them, the oldest first.
// Lines that are no records are left out.
func (f *File) Tail(limit int) ([]control.AuditRecord, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := f.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the audit file: %w", err)
	}
	start := max(0, st.Size()-maxTail)
	raw, err := io.ReadAll(io.NewSectionReader(f.file, start, st.Size()-start))
	if err != nil {
		return nil, fmt.Errorf("read the audit file: %w", err)
	}
	return parse(raw, limit), nil
}

// parse reads the last limit records of raw, whose first line may be cut.
func parse(raw []byte, limit int) []control.AuditRecord {
	var newest []control.AuditRecord
	for len(raw) > 0 && len(newest) < limit {
		raw = bytes.TrimRight(raw, "\n")
		i := bytes.LastIndexByte(raw, '\n')
		var r control.AuditRecord
		if json.Unmarshal(raw[i+1:], &r) == nil && r.Decision != "" {
			newest = append(newest, r)
		}
		raw = raw[:i+1]
	}
	records := make([]control.AuditRecord, len(newest))
	for i, r := range newest {
		records[len(newest)-1-i] = r
	}
	return records
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
