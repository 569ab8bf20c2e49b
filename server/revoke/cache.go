package revoke

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// folder keeps lists and OCSP answers over restarts. What it gives back is
// checked as if it had just come from the net: signatures, nonces, dates. A
// folder without a path keeps nothing. Whoever may write into it can bring back
// older answers whose own time is not over, so it is the owner's alone.
type folder struct{ path string }

const (
	listSuffix   = ".crl"
	answerSuffix = ".ocsp"
	// maxKeptAnswers bounds the answers in the folder, each with some 3 KB.
	maxKeptAnswers = maxAnswers
)

// openFolder makes the folder where there is none, and clears out what a killed
// process has left and the answers that nobody has needed for longest.
func openFolder(path string) (folder, error) {
	if path == "" {
		return folder{}, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return folder{}, fmt.Errorf("make the folder for revocation answers: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return folder{}, fmt.Errorf("read the folder for revocation answers: %w", err)
	}
	type kept struct {
		name string
		at   time.Time
	}
	var answers []kept
	for _, entry := range entries {
		switch info, err := entry.Info(); {
		case err != nil: // gone meanwhile
		case strings.HasPrefix(entry.Name(), "new-"):
			err = os.Remove(filepath.Join(path, entry.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return folder{}, err
			}
		case strings.HasSuffix(entry.Name(), answerSuffix):
			answers = append(answers, kept{entry.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(answers, func(a, b kept) int { return b.at.Compare(a.at) })
	for _, old := range answers[min(len(answers), maxKeptAnswers):] {
		if err := os.Remove(filepath.Join(path, old.name)); err != nil {
			return folder{}, err
		}
	}
	return folder{path}, nil
}

func (f folder) file(hash []byte, suffix string) string {
	return filepath.Join(f.path, hex.EncodeToString(hash)+suffix)
}

func (f folder) listFile(k sourceKey) string {
	return f.file(hashOf(k.name, k.spki, k.address), listSuffix)
}

// list opens the kept list of a source, nil if there is none.
func (f folder) list(k sourceKey) *os.File {
	if f.path == "" {
		return nil
	}
	file, err := os.Open(f.listFile(k))
	if err != nil {
		return nil
	}
	return file
}

// copying is a list on its way into the folder. Its writes never fail: a full
// disk must not keep a list from being used.
type copying struct {
	file *os.File // nil where nothing is kept
	name string
	err  error
}

func (f folder) keep(k sourceKey) *copying {
	if f.path == "" {
		return &copying{}
	}
	file, err := os.CreateTemp(f.path, "new-")
	return &copying{file: file, name: f.listFile(k), err: err}
}

func (c *copying) Write(p []byte) (int, error) {
	if c.file != nil && c.err == nil {
		_, c.err = c.file.Write(p)
	}
	return len(p), nil
}

// commit puts the copy in place. Nobody is told where that fails: the list is in
// use, and fetched again after a restart.
func (c *copying) commit() {
	if c.file == nil || c.err != nil || c.file.Close() != nil {
		return
	}
	if os.Rename(c.file.Name(), c.name) == nil {
		c.file = nil
	}
}

// drop removes what was not committed.
func (c *copying) drop() {
	if c.file != nil {
		c.file.Close()
		os.Remove(c.file.Name())
	}
}

// keptAnswer is an OCSP answer with what it takes to check it again.
type keptAnswer struct {
	Received time.Time `json:"received"`
	Nonce    []byte    `json:"nonce"` // of our question
	Response []byte    `json:"response"`
}

// putAnswer keeps an answer. One that cannot be written is asked for again.
func (f folder) putAnswer(k key, a keptAnswer) {
	if f.path == "" {
		return
	}
	content, err := json.Marshal(a)
	if err != nil {
		return
	}
	file, err := os.CreateTemp(f.path, "new-")
	if err != nil {
		return
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), f.file(k[:], answerSuffix))
	}
	if err != nil {
		os.Remove(file.Name())
	}
}

// answer reads a kept answer.
func (f folder) answer(k key) (a keptAnswer, ok bool) {
	if f.path == "" {
		return a, false
	}
	name := f.file(k[:], answerSuffix)
	info, err := os.Stat(name)
	if err != nil || info.Size() > 2*maxAnswer {
		return a, false
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return a, false
	}
	a, err = parseKept(content)
	return a, err == nil
}

func parseKept(content []byte) (a keptAnswer, err error) {
	err = json.Unmarshal(content, &a)
	return a, err
}
