package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Result is what Verify has found.
type Result struct {
	Instance string     `json:"instance"`
	Segments int        `json:"segments"`
	Records  int        `json:"records"` // decisions
	First    uint64     `json:"first"`   // seq of the first line that is there; 1 if nothing was removed
	Last     Checkpoint `json:"last"`    // the end of what fits together
	Torn     int        `json:"torn"`    // lines that crashes have cut
	// Checked is how many checkpoints the chain agrees with; Pruned how many
	// are older than the first line that is there.
	Checked int `json:"checked"`
	Pruned  int `json:"pruned"`
	// Problem is the first thing that does not fit, nil if there is none. What
	// comes after it was not looked at.
	Problem *Problem `json:"problem,omitempty"`
}

// Problem is where a chain does not fit together, and why.
type Problem struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"` // from 1
	Text string `json:"text"`
}

func (p Problem) String() string {
	if p.File == "" {
		return p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Error makes a Problem an error within the package's own walk.
func (p *Problem) Error() string { return p.String() }

// Entry is a decision on record.
type Entry struct {
	Seq    uint64          `json:"seq"`
	Record json.RawMessage `json:"record"`
}

// Verify reads the whole chain in a folder, also beside a process that writes it,
// and compares it with checkpoints. An error means that it could not be read; what
// does not fit is in the Result.
func Verify(dir string, checkpoints []Checkpoint) (Result, error) {
	w := &walk{checkpoints: map[uint64][]Checkpoint{}}
	for _, c := range checkpoints {
		w.checkpoints[c.Seq] = append(w.checkpoints[c.Seq], c)
	}
	err := w.read(dir)
	if p, ok := errors.AsType[*Problem](err); ok {
		w.Problem = p
		return w.Result, nil
	}
	if err != nil {
		return Result{}, fmt.Errorf("read the audit log: %w", err)
	}
	for _, c := range checkpoints {
		switch {
		case c.Seq < w.First:
			w.Pruned++
		case c.Seq > w.Last.Seq:
			w.Problem = &Problem{Text: fmt.Sprintf("the chain ends at %d, before the checkpoint at %d of %s: lines were cut off", w.Last.Seq, c.Seq, c.Time.Format(time.RFC3339))}
		}
	}
	return w.Result, nil
}

// Read calls each for every decision in a folder, the oldest first, until it
// returns an error. Whether the chain fits together is not asked.
func Read(dir string, each func(Entry) error) error {
	files, err := segments(dir)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	for _, f := range files {
		err := scanFile(f.path, func(text []byte, whole bool) error {
			var l line
			if !whole || json.Unmarshal(text, &l) != nil || l.Record == nil {
				return nil
			}
			return each(Entry{l.Seq, l.Record})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func scanFile(path string, each func(text []byte, whole bool) error) error {
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	defer in.Close()
	return scan(in, each)
}

// walk is one reading of a chain.
type walk struct {
	Result
	checkpoints map[uint64][]Checkpoint
	hash        string // of the line before
	ended       bool   // the segment before has its last line
}

func (w *walk) read(dir string) error {
	files, err := segments(dir)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return &Problem{Text: fmt.Sprintf("there is no segment in %s", dir)}
	}
	for i, f := range files {
		name := filepath.Base(f.path)
		switch {
		case i > 0 && f.number != files[i-1].number+1:
			return &Problem{name, 1, fmt.Sprintf("segment %d does not follow %d: one is missing or there twice", f.number, files[i-1].number)}
		case i > 0 && !w.ended:
			return &Problem{name, 1, "the segment before has no end: lines were cut off there"}
		}
		if err := w.readSegment(f, i == len(files)-1); err != nil {
			return err
		}
		w.Segments++
	}
	return nil
}

func (w *walk) readSegment(f file, last bool) error {
	name, number := filepath.Base(f.path), 0
	wrong := func(format string, args ...any) error { return &Problem{name, number, fmt.Sprintf(format, args...)} }
	w.ended = false
	err := scanFile(f.path, func(text []byte, whole bool) error {
		number++
		if !whole {
			if last { // being written, or cut by a crash that nobody has come after yet
				return nil
			}
			return wrong("the line has been cut")
		}
		l, err := parseLine(text)
		switch {
		case err != nil:
			return wrong("the line is not one of an audit log: %v", err)
		case w.ended:
			return wrong("something follows the end of the segment")
		case (number == 1) != (l.Segment != nil):
			return wrong("the segment's first line is not in its place")
		case l.Segment != nil && (l.Segment.Number != f.number || l.Segment.Version != version):
			return wrong("it is segment %d of version %d, under the name of segment %d", l.Segment.Number, l.Segment.Version, f.number)
		case l.Segment != nil && w.Segments > 0 && l.Segment.Instance != w.Instance:
			return wrong("it is the chain of another instance, %q", l.Segment.Instance)
		}
		if w.hash == "" { // the first line that is there
			w.First, w.Instance = l.Seq, l.Segment.Instance
			if l.Seq == 1 && l.Prev != none {
				return wrong("the first line of all follows another one")
			}
		} else if l.Seq != w.Last.Seq+1 {
			return wrong("line %d follows line %d: something is missing or was put in", l.Seq, w.Last.Seq)
		} else if l.Prev != w.hash {
			return wrong("the line before it has been changed, or this one was put in")
		}
		return w.take(l, f.number, text, wrong)
	})
	return err
}

func (w *walk) take(l line, segment int, text []byte, wrong func(string, ...any) error) error {
	w.hash = hashOf(text)
	for _, c := range w.checkpoints[l.Seq] {
		if c.Hash != w.hash || c.Instance != w.Instance {
			return wrong("the line is not the one of the checkpoint of %s: it, or one before it, has been changed", c.Time.Format(time.RFC3339))
		}
		w.Checked++
	}
	w.Last = Checkpoint{w.Instance, segment, l.Seq, w.hash, time.Now().UTC().Truncate(time.Second)}
	w.ended = l.End != nil
	switch {
	case l.Record != nil:
		w.Records++
	case l.Torn != nil:
		w.Torn++
	}
	return nil
}

// parseLine reads a line strictly: what is not known might mean something to
// another reader.
func parseLine(text []byte) (l line, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return line{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return line{}, errors.New("something follows the object")
	}
	if l.parts() != 1 {
		return line{}, errors.New("it has not one content")
	}
	return l, nil
}

// ParseCheckpoints reads checkpoints as JSON lines, as they are exported.
func ParseCheckpoints(content []byte) (list []Checkpoint, err error) {
	for text := range bytes.Lines(content) {
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var c Checkpoint
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&c); err != nil {
			return nil, fmt.Errorf("checkpoint %d cannot be read: %w", len(list)+1, err)
		}
		if c.Seq == 0 || len(c.Hash) != len(none) {
			return nil, fmt.Errorf("checkpoint %d has no number or hash", len(list)+1)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no checkpoint in it")
	}
	return slices.Clip(list), nil
}
