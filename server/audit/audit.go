// Package audit keeps decisions as a chain of lines in files, so that whoever
// holds a checkpoint can tell whether a line from before it was changed, left out
// or put in.
//
// A folder holds the chain of one instance, in segments: files of JSON lines whose
// names sort. Each line is one object with a number that grows by one ("seq"), the
// SHA-256 of the line before it, without its line feed, in hexadecimal ("prev";
// zeros in the first line of all), and one of
//
//	"segment"  the first line of a segment: version, instance, number, start
//	"record"   a decision
//	"torn"     what a crash had left of a line, in base64
//	"end"      the last line of a segment that is complete
//
// The chain goes on from segment to segment, so any program that can hash can
// check it. By itself it proves nothing against somebody who can write the files
// and makes all hashes anew, and lines cut off at its end leave no trace: export
// checkpoints, and keep them elsewhere.
//
// Old segments may be removed whole (retention): the chain that is left still
// fits together. Lines survive the death of the process; those of the last
// moment before a power failure may be lost, except for what Checkpoint or the end
// of a segment has put on the disk.
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	version = 1
	// maxLine bounds a line, in bytes; a decision has about 2,000.
	maxLine = 1 << 20
	suffix  = ".jsonl"
)

// Config says where a Log is and when its segments end.
type Config struct {
	Dir      string // made with mode 0700 where there is none
	Instance string // whose chain it is, such as the machine's name
	// Segment and Size end a segment, after a time or a number of bytes; 0 =
	// 24 hours, 64 MiB.
	Segment time.Duration
	Size    int64
	Keep    time.Duration    // how long a segment is kept after its end; 0 = for ever
	Now     func() time.Time // nil = time.Now
	// Ended is told of the checkpoint at the end of each segment; optional. It
	// must not call the Log.
	Ended func(Checkpoint)
}

// Checkpoint is a place in a chain: whoever keeps one elsewhere can tell later
// whether all that was before it is still as it was.
type Checkpoint struct {
	Instance string    `json:"instance"`
	Segment  int       `json:"segment"`
	Seq      uint64    `json:"seq"`
	Hash     string    `json:"hash"` // SHA-256 of the line
	Time     time.Time `json:"time"` // when the checkpoint was made
}

// line is what stands in a file.
type line struct {
	Seq     uint64          `json:"seq"`
	Prev    string          `json:"prev"`
	Segment *segment        `json:"segment,omitempty"`
	Record  json.RawMessage `json:"record,omitempty"`
	Torn    []byte          `json:"torn,omitempty"`
	End     *end            `json:"end,omitempty"`
}

type segment struct {
	Version  int       `json:"version"`
	Instance string    `json:"instance"`
	Number   int       `json:"number"`
	Start    time.Time `json:"start"`
}

type end struct {
	Time time.Time `json:"time"`
}

// parts is how many of the kinds of content a line has; one is right.
func (l line) parts() int {
	n := 0
	for _, there := range []bool{l.Segment != nil, l.Record != nil, l.Torn != nil, l.End != nil} {
		if there {
			n++
		}
	}
	return n
}

var none = hex.EncodeToString(make([]byte, sha256.Size))

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Log appends to a chain. It is safe for concurrent use; a second one in the same
// folder, in this process or another, is refused.
type Log struct {
	config Config
	lock   io.Closer

	mu     sync.Mutex // guards what follows, and the order of the lines
	closed bool
	file   *os.File  // nil after a failure to begin a segment
	number int       // of the segment
	start  time.Time // of the segment
	size   int64
	seq    uint64 // of the last line
	hash   string // of the last line
	torn   bool   // the last write failed half way
}

// Open goes on with the chain in a folder, or begins one. The caller closes it.
func Open(c Config) (*Log, error) {
	if c.Segment <= 0 {
		c.Segment = 24 * time.Hour
	}
	if c.Size <= 0 {
		c.Size = 64 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the audit folder: %w", err)
	}
	lock, err := lockFolder(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("audit folder %s: %w", c.Dir, err)
	}
	l := &Log{config: c, lock: lock, hash: none}
	if err := l.resume(); err != nil {
		return nil, errors.Join(fmt.Errorf("audit folder %s: %w", c.Dir, err), l.Close())
	}
	return l, nil
}

// resume finds the end of the chain. A line that a crash has cut is taken out of
// the way and put on record.
func (l *Log) resume() error {
	files, err := segments(l.config.Dir)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return l.begin()
	}
	last := files[len(files)-1]
	file, err := os.OpenFile(last.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l.file, l.number, l.size = file, last.number, 0
	var open bool
	var torn []byte
	err = scan(file, func(text []byte, whole bool) error {
		if !whole {
			torn = bytes.Clone(text)
			return nil
		}
		var ln line
		if err := json.Unmarshal(text, &ln); err != nil {
			return fmt.Errorf("%s cannot be gone on with: %w; look at it with audit verify, and move it away", last.path, err)
		}
		if ln.Segment != nil {
			l.start = ln.Segment.Start
			if ln.Segment.Instance != l.config.Instance {
				return fmt.Errorf("holds the chain of instance %q, not of %q; set another folder or the old name", ln.Segment.Instance, l.config.Instance)
			}
		}
		open = ln.End == nil
		l.seq, l.hash = ln.Seq, hashOf(text)
		l.size += int64(len(text)) + 1
		return nil
	})
	if err != nil {
		return err
	}
	if torn != nil || l.size == 0 {
		if err := file.Truncate(l.size); err != nil {
			return err
		}
	}
	if _, err := file.Seek(l.size, io.SeekStart); err != nil {
		return err
	}
	switch {
	case l.size == 0: // cut in its very first line: nothing of it is in the chain
		if err := errors.Join(file.Close(), os.Remove(last.path)); err != nil {
			return err
		}
		l.file = nil
		return l.resume()
	case !open:
		return l.begin()
	case torn != nil:
		return l.write(line{Torn: torn})
	}
	return nil
}

// begin begins the segment after the present one, and removes those whose time
// is over.
func (l *Log) begin() error {
	if l.file != nil {
		err := l.file.Close()
		l.file = nil
		if err != nil {
			return err
		}
	}
	now := l.config.Now().UTC()
	name := fmt.Sprintf("%06d-%s%s", l.number+1, now.Format("20060102T150405Z"), suffix)
	file, err := os.OpenFile(filepath.Join(l.config.Dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	l.file, l.number, l.start, l.size = file, l.number+1, now, 0
	if err := l.write(line{Segment: &segment{version, l.config.Instance, l.number, now}}); err != nil {
		// A segment without its first line would be none.
		err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		l.file, l.torn = nil, false
		return err
	}
	if l.config.Keep > 0 {
		if _, err := Prune(l.config.Dir, now.Add(-l.config.Keep)); err != nil {
			return err
		}
	}
	return nil
}

// write appends a line, in one write.
func (l *Log) write(ln line) error {
	if l.torn { // the disk was full in the middle of a line
		if err := l.file.Truncate(l.size); err != nil {
			return err
		}
		if _, err := l.file.Seek(l.size, io.SeekStart); err != nil {
			return err
		}
		l.torn = false
	}
	ln.Seq, ln.Prev = l.seq+1, l.hash
	text, err := json.Marshal(ln)
	if err != nil {
		return err
	}
	if len(text) > maxLine {
		return fmt.Errorf("a record has %d bytes, at most %d are kept", len(text), maxLine)
	}
	hash := hashOf(text)
	if _, err := l.file.Write(append(text, '\n')); err != nil {
		l.torn = true
		return err
	}
	l.seq, l.hash, l.size = ln.Seq, hash, l.size+int64(len(text))+1
	return nil
}

// Append adds a decision, as JSON. When it returns nil the line outlives this
// process.
func (l *Log) Append(record any) error {
	content, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the audit log is closed")
	}
	if err := l.turn(); err != nil {
		return fmt.Errorf("begin a segment of the audit log: %w", err)
	}
	if err := l.write(line{Record: content}); err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}

// turn ends the segment where it is time to.
func (l *Log) turn() error {
	if l.file == nil { // it could not be begun
		return l.resume()
	}
	now := l.config.Now().UTC()
	if now.Sub(l.start) < l.config.Segment && l.size < l.config.Size {
		return nil
	}
	if err := l.write(line{End: &end{now}}); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	if l.config.Ended != nil {
		l.config.Ended(l.checkpoint())
	}
	return l.begin()
}

func (l *Log) checkpoint() Checkpoint {
	return Checkpoint{l.config.Instance, l.number, l.seq, l.hash, l.config.Now().UTC().Truncate(time.Second)}
}

// Checkpoint puts the chain on the disk and returns its end.
func (l *Log) Checkpoint() (Checkpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return Checkpoint{}, errors.New("the audit log has no open segment")
	}
	if err := l.file.Sync(); err != nil {
		return Checkpoint{}, fmt.Errorf("put the audit log on the disk: %w", err)
	}
	return l.checkpoint(), nil
}

// Close puts the chain on the disk. The segment stays open for the next process.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	if l.file != nil {
		errs = append(errs, l.file.Sync(), l.file.Close())
		l.file = nil
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

// file is a segment in a folder.
type file struct {
	path   string
	number int
	start  time.Time
}

var fileName = regexp.MustCompile(`^(\d{6,})-(\d{8}T\d{6}Z)\.jsonl$`)

// segments lists a folder's segments in their order.
func segments(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, entry := range entries {
		m := fileName.FindStringSubmatch(entry.Name())
		if m == nil {
			continue
		}
		number, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		start, err := time.Parse("20060102T150405Z", m[2])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name(), err)
		}
		files = append(files, file{filepath.Join(dir, entry.Name()), number, start})
	}
	slices.SortStableFunc(files, func(a, b file) int { return a.number - b.number })
	return files, nil
}

// Prune removes the segments that had ended before a time, and names them. The
// last one stays in any case: the chain goes on from it.
func Prune(dir string, before time.Time) (removed []string, err error) {
	files, err := segments(dir)
	if err != nil {
		return nil, fmt.Errorf("prune the audit log: %w", err)
	}
	for i, f := range files {
		if i == len(files)-1 || !files[i+1].start.Before(before) {
			break
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, fmt.Errorf("prune the audit log: %w", err)
		}
		removed = append(removed, filepath.Base(f.path))
	}
	return removed, nil
}

// scan reads lines, without their line feeds; whole is false for a last one that
// has none.
func scan(from io.Reader, each func(text []byte, whole bool) error) error {
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		var text []byte
		for {
			part, err := in.ReadSlice('\n')
			if len(text)+len(part) > maxLine+1 {
				return fmt.Errorf("a line is longer than %d bytes", maxLine)
			}
			text = append(text, part...)
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if errors.Is(err, io.EOF) {
				if len(text) == 0 {
					return nil
				}
				return each(text, false)
			}
			if err != nil {
				return err
			}
			break
		}
		if err := each(text[:len(text)-1], true); err != nil {
			return err
		}
	}
}
