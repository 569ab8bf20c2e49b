package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/server/audit"
)

type decision struct {
	N int `json:"n"`
}

// chain is a log in a folder of the test's own, with a clock that the test moves.
type chain struct {
	t      *testing.T
	dir    string
	now    time.Time
	config audit.Config
	ended  []audit.Checkpoint
}

func newChain(t *testing.T) *chain {
	c := &chain{t: t, dir: filepath.Join(t.TempDir(), "audit"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	c.config = audit.Config{
		Dir: c.dir, Instance: "a", Segment: time.Hour, Now: func() time.Time { return c.now },
		Ended: func(p audit.Checkpoint) { c.ended = append(c.ended, p) },
	}
	return c
}

func (c *chain) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *chain) open() *audit.Log {
	c.t.Helper()
	l, err := audit.Open(c.config)
	c.must(err)
	c.t.Cleanup(func() { l.Close() })
	return l
}

// fill writes n decisions, one every 20 minutes, and closes the log.
func (c *chain) fill(n int) audit.Checkpoint {
	c.t.Helper()
	l := c.open()
	for i := range n {
		c.must(l.Append(decision{i}))
		c.now = c.now.Add(20 * time.Minute)
	}
	p, err := l.Checkpoint()
	c.must(err)
	c.must(l.Close())
	return p
}

func (c *chain) verify(checkpoints ...audit.Checkpoint) audit.Result {
	c.t.Helper()
	r, err := audit.Verify(c.dir, checkpoints)
	c.must(err)
	return r
}

func (c *chain) files() []string {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(c.dir, "*.jsonl"))
	c.must(err)
	return files
}

func TestChain(t *testing.T) {
	c := newChain(t)
	end := c.fill(10) // segments of three, the last one open
	if info, err := os.Stat(c.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
	files := c.files()
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 || len(files) != 4 {
		t.Error(files, err)
	}
	r := c.verify(append(c.ended, end)...)
	if r.Problem != nil || r.Records != 10 || r.Segments != 4 || r.First != 1 || r.Checked != 4 || r.Last.Hash != end.Hash || r.Instance != "a" {
		t.Errorf("%+v", r)
	}
	// A later process goes on.
	end = c.fill(1)
	if r := c.verify(end); r.Problem != nil || r.Records != 11 || r.Segments != 4 || r.Checked != 1 {
		t.Errorf("%+v", r)
	}
	var seen []int
	c.must(audit.Read(c.dir, func(e audit.Entry) error {
		var d decision
		c.must(json.Unmarshal(e.Record, &d))
		seen = append(seen, d.N)
		return nil
	}))
	if !slices.Equal(seen, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}) {
		t.Error(seen)
	}
}

// Whatever is done to the files is found, and where.
func TestTampering(t *testing.T) {
	edit := func(file int, change func([]string) []string) func(*chain) {
		return func(c *chain) {
			name := c.files()[file]
			content, err := os.ReadFile(name)
			c.must(err)
			lines := change(strings.Split(strings.TrimSuffix(string(content), "\n"), "\n"))
			c.must(os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		}
	}
	for name, test := range map[string]struct {
		tamper func(*chain)
		want   string
	}{
		"nothing": {func(*chain) {}, ""},
		"a changed decision": {edit(1, func(l []string) []string {
			l[2] = strings.Replace(l[2], `"n":4`, `"n":7`, 1)
			return l
		}), "000002-20260101T010000Z.jsonl:4: the line before it has been changed"},
		"a removed line":     {edit(1, func(l []string) []string { return slices.Delete(l, 2, 3) }), "000002-20260101T010000Z.jsonl:3: line 9 follows line 7"},
		"two lines swapped":  {edit(1, func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }), ":2: line 8 follows line 6"},
		"a line twice":       {edit(1, func(l []string) []string { return slices.Insert(l, 2, l[1]) }), ":3: line 7 follows line 7"},
		"something after it": {edit(1, func(l []string) []string { return append(l, l[1]) }), "something follows the end"},
		"another field": {edit(1, func(l []string) []string {
			l[1] = strings.Replace(l[1], `{"seq"`, `{"x":1,"seq"`, 1)
			return l
		}), ":2: the line is not one of an audit log"},
		"no first line":          {edit(1, func(l []string) []string { return l[1:] }), ":1: the segment's first line"},
		"no end":                 {edit(1, func(l []string) []string { return l[:len(l)-1] }), "000003-20260101T020000Z.jsonl:1: the segment before has no end"},
		"a segment removed":      {func(c *chain) { c.must(os.Remove(c.files()[1])) }, "segment 3 does not follow 1"},
		"a segment there twice":  {func(c *chain) { copyFile(c, 1, "000002-20260101T010001Z.jsonl") }, "segment 2 does not follow 2"},
		"a segment renamed":      {func(c *chain) { c.must(os.Rename(c.files()[3], filepath.Join(c.dir, "000005-20260101T030000Z.jsonl"))) }, "segment 5 does not follow 3"},
		"a segment by that name": {func(c *chain) { copyFile(c, 1, filepath.Base(c.files()[2])) }, ":1: it is segment 2"},
		"the end cut off":        {edit(3, func(l []string) []string { return l[:1] }), "lines were cut off"},
		"the last segment gone":  {func(c *chain) { c.must(os.Remove(c.files()[3])) }, "lines were cut off"},
		"all made anew": {func(c *chain) {
			c.must(os.RemoveAll(c.dir))
			c.now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			c.fill(11) // one more
			c.must(os.RemoveAll(c.dir))
			c.now = time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC)
			c.fill(11)
		}, "the line is not the one of the checkpoint"},
		"nothing left": {func(c *chain) { c.must(os.RemoveAll(c.dir)); c.must(os.Mkdir(c.dir, 0o700)) }, "there is no segment"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t)
			end := c.fill(10)
			test.tamper(c)
			r := c.verify(end)
			switch {
			case test.want == "" && r.Problem != nil, test.want != "" && r.Problem == nil:
				t.Errorf("%+v, want %q", r.Problem, test.want)
			case r.Problem != nil && !strings.Contains(r.Problem.String(), test.want):
				t.Errorf("%q, want %q", r.Problem, test.want)
			}
		})
	}
}

func copyFile(c *chain, from int, to string) {
	content, err := os.ReadFile(c.files()[from])
	c.must(err)
	c.must(os.WriteFile(filepath.Join(c.dir, to), content, 0o600))
}

// Lines cut off at the end leave no trace but for a checkpoint; the package says
// so.
func TestTailNeedsCheckpoint(t *testing.T) {
	c := newChain(t)
	end := c.fill(2)
	name := c.files()[0]
	content, err := os.ReadFile(name)
	c.must(err)
	lines := bytes.SplitAfter(content, []byte("\n"))
	c.must(os.WriteFile(name, bytes.Join(lines[:2], nil), 0o600))
	if r := c.verify(); r.Problem != nil {
		t.Error(r.Problem)
	}
	if r := c.verify(end); r.Problem == nil {
		t.Error("the checkpoint does not help")
	}
}

// A line that a crash has cut is on record, and the chain goes on.
func TestCrash(t *testing.T) {
	for cut := 1; cut < 40; cut += 6 {
		c := newChain(t)
		c.fill(2)
		name := c.files()[0]
		content, err := os.ReadFile(name)
		c.must(err)
		c.must(os.WriteFile(name, content[:len(content)-cut], 0o600))
		if r := c.verify(); r.Problem != nil || r.Records != 1 {
			t.Errorf("%d, before: %+v", cut, r)
		}
		end := c.fill(1)
		if r := c.verify(end); r.Problem != nil || r.Records != 2 || r.Torn != 1 {
			t.Errorf("%d: %+v", cut, r)
		}
	}
	// Even in the first line of a segment.
	c := newChain(t)
	c.fill(4)
	name := c.files()[1]
	content, err := os.ReadFile(name)
	c.must(err)
	c.must(os.WriteFile(name, content[:30], 0o600))
	end := c.fill(1)
	if r := c.verify(end); r.Problem != nil || r.Records != 4 {
		t.Errorf("%+v", r)
	}
}

func TestOneWriter(t *testing.T) {
	c := newChain(t)
	l := c.open()
	if other, err := audit.Open(c.config); err == nil || !strings.Contains(err.Error(), "another server writes there") {
		t.Errorf("%v, %v", other, err)
	}
	c.must(l.Close())
	if l.Append(decision{}) == nil {
		t.Error("wrote to a closed log")
	}
	c.config.Instance = "b"
	if _, err := audit.Open(c.config); err == nil || !strings.Contains(err.Error(), `of instance "a"`) {
		t.Errorf("took another instance's chain: %v", err)
	}
}

func TestRetention(t *testing.T) {
	c := newChain(t)
	c.config.Keep = 90 * time.Minute
	end := c.fill(20)
	files := c.files()
	if len(files) < 2 || len(files) > 4 {
		t.Errorf("%d segments left", len(files))
	}
	r := c.verify(c.ended[0], end)
	if r.Problem != nil || r.First == 1 || r.Pruned != 1 || r.Checked != 1 {
		t.Errorf("%+v", r)
	}
	removed, err := audit.Prune(c.dir, c.now.Add(time.Hour))
	if err != nil || len(removed) != len(files)-1 {
		t.Errorf("%v, %v", removed, err)
	}
	if r := c.verify(end); r.Problem != nil || r.Segments != 1 {
		t.Errorf("%+v", r)
	}
}

// A clock that goes back breaks nothing.
func TestClockGoesBack(t *testing.T) {
	c := newChain(t)
	c.fill(4)
	c.now = c.now.Add(-48 * time.Hour)
	end := c.fill(4)
	if r := c.verify(end); r.Problem != nil || r.Records != 8 {
		t.Errorf("%+v", r)
	}
}

func TestSize(t *testing.T) {
	c := newChain(t)
	c.config.Size = 1000
	l := c.open()
	for i := range 50 {
		c.must(l.Append(decision{i}))
	}
	c.must(l.Close())
	if r := c.verify(); r.Problem != nil || r.Segments < 5 || r.Records != 50 {
		t.Errorf("%+v", r)
	}
}

func TestConcurrent(t *testing.T) {
	c := newChain(t)
	c.config.Size = 5000
	l := c.open()
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			for range 20 {
				if err := l.Append(decision{i}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 { // read while it is being written
		if r := c.verify(); r.Problem != nil {
			t.Error(r.Problem)
		}
	}
	running.Wait()
	c.must(l.Close())
	if r := c.verify(); r.Problem != nil || r.Records != 400 {
		t.Errorf("%+v", r)
	}
}

func TestParseCheckpoints(t *testing.T) {
	good, err := json.Marshal(audit.Checkpoint{Instance: "a", Segment: 1, Seq: 3, Hash: strings.Repeat("0", 64)})
	if err != nil {
		t.Fatal(err)
	}
	list, err := audit.ParseCheckpoints(fmt.Appendf(nil, "%s\n\n%s\n", good, good))
	if err != nil || len(list) != 2 {
		t.Error(list, err)
	}
	for _, bad := range []string{"", "\n", "{}", "x", `{"seq":1}`, string(good) + "{}x"} {
		if list, err := audit.ParseCheckpoints([]byte(bad)); err == nil && bad != string(good)+"{}x" {
			t.Errorf("%q: %v", bad, list)
		}
	}
}

// FuzzVerify puts anything into a segment: nothing but the chain fits.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","segment":{"version":1,"instance":"a","number":1,"start":"2026-01-01T00:00:00Z"}}` + "\n"))
	f.Add([]byte("{}\n{"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "000001-20260101T000000Z.jsonl"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verify(dir, nil)
		if err == nil && r.Problem == nil && r.Last.Seq > 1 && r.Records+r.Torn+1 > bytes.Count(content, []byte("\n")) {
			t.Errorf("%+v", r)
		}
		_ = audit.Read(dir, func(audit.Entry) error { return nil })
	})
}

func BenchmarkAppend(b *testing.B) {
	l, err := audit.Open(audit.Config{Dir: b.TempDir(), Instance: "a"})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	record := map[string]string{"event": "request", "detail": strings.Repeat("x", 1500)}
	for b.Loop() {
		if err := l.Append(record); err != nil {
			b.Fatal(err)
		}
	}
}
