package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/kortti-id/kortti/server/door"
)

// auditLog appends decisions to a file, one JSON object a line.
type auditLog struct {
	mu   sync.Mutex // guards the order of the lines
	file *os.File   // nil: nothing is written
}

// checkAudit says whether openAudit would probably succeed, without making the
// file.
func checkAudit(path string) error {
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Dir(path))
		return err
	}
	if err != nil {
		return err
	}
	return file.Close()
}

// openAudit makes the file where there is none; only its owner may read it.
func openAudit(path string) (*auditLog, error) {
	if path == "" {
		return &auditLog{}, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return &auditLog{file: file}, nil
}

// Write appends one decision, in one write so that lines of several processes
// do not mix.
func (a *auditLog) Write(r door.Record) error {
	if a.file == nil {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err = a.file.Write(append(line, '\n'))
	return err
}

// Close closes the file.
func (a *auditLog) Close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}
