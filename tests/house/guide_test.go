package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestGuidesSayTheSame compares the user guides: each language has the same
// chapters with the same commands, and tables of the same length.
func TestGuidesSayTheSame(t *testing.T) {
	want := shapeOf(t, "en.md")
	if len(want) < 20 {
		t.Fatalf("the English guide has %d chapters and commands", len(want))
	}
	for _, name := range []string{"fi.md", "sv.md"} {
		if got := shapeOf(t, name); !slices.Equal(got, want) {
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Errorf("%s differs from en.md first here:\n%s\n%s", name, got[i], want[i])
					break
				}
			}
			t.Errorf("%s has %d chapters, commands and table rows, en.md %d", name, len(got), len(want))
		}
	}
}

var comment = regexp.MustCompile(`\s+#.*$`)

// shapeOf is what must be the same in every language: that a chapter, a row of a
// table or a point of a list begins, and the lines of code without their comments.
func shapeOf(t *testing.T, name string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide", name))
	if err != nil {
		t.Fatal(err)
	}
	var shape []string
	inCode := false
	for line := range strings.SplitSeq(string(raw), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inCode = !inCode
		case inCode:
			shape = append(shape, comment.ReplaceAllString(line, ""))
		case strings.HasPrefix(line, "#"), strings.HasPrefix(line, "|"), strings.HasPrefix(line, "- "):
			shape = append(shape, line[:1])
		}
	}
	return shape
}
