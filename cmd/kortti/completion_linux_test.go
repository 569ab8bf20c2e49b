package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A person types in bash and presses Tab.
func TestCompletionInBash(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page-to-write"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bash := exec.Command("bash", "--norc", "-i")
	bash.Dir = dir
	bash.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "PS1=> ", "TERM=dumb", "INPUTRC=/dev/null", "GORACE=atexit_sleep_ms=0"}
	s := onTerminal(t, bash)
	s.waitFor("> ")
	s.enter("source <(kortti completion bash); echo loa''ded\r")
	s.waitFor("loaded")
	for _, step := range [][2]string{
		{"kortti hos\t", "kortti hosts "},
		{"pre\t", "kortti hosts presets "},
		{"\x15kortti get -o pa\t", "kortti get -o page-to-write "},
		{"\x15kortti hosts add --pre\tsuo\t", "kortti hosts add --preset suomi.fi "},
	} {
		s.enter(step[0])
		s.waitFor(step[1])
	}
	s.enter("\x15exit 0\r")
	s.end(0, "exit")
}
