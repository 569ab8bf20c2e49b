package audit

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kortti-id/kortti/agent/control"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "audit.jsonl")
	f, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Tail(10); err != nil || got == nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	f.Write(control.AuditRecord{Decision: Unlock, Certificate: "ab"})
	f.Close()

	f, err = Open(path, slog.New(slog.DiscardHandler)) // appends
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { f.Write(control.AuditRecord{Decision: Signature, Host: "a.fi"}) })
	}
	all.Wait()
	f.Write(control.AuditRecord{Decision: Lock})
	got, err := f.Tail(100)
	if err != nil || len(got) != 52 || got[0].Decision != Unlock || got[51].Decision != Lock || got[0].Time.IsZero() {
		t.Fatal(len(got), err)
	}
	if got, _ := f.Tail(2); len(got) != 2 || got[0].Decision != Signature || got[1].Decision != Lock {
		t.Error(got)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Error(st.Mode())
	}
}

func TestOpenSaysWhatItCouldNot(t *testing.T) {
	if _, err := Open(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "audit file") {
		t.Error(err)
	}
}

// FuzzParse feeds the reader with damaged files.
func FuzzParse(f *testing.F) {
	f.Add([]byte("{\"decision\":\"lock\"}\n{\"decision\":\"unlock\"}\n"), 1)
	f.Add([]byte("cut\"}\n\n{}\nnull\n{\"decision\":\"a\"}"), 5)
	f.Add([]byte("\n"), 0)
	f.Fuzz(func(t *testing.T, raw []byte, limit int) {
		for _, r := range parse(raw, limit) {
			if r.Decision == "" {
				t.Fatal("a record without a decision")
			}
		}
	})
}
