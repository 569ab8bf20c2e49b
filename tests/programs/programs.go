// Package programs builds Kortti's commands for end-to-end tests, and runs daemons.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// dir is where Main put the programs; "" before.
var dir string

// Main builds the packages, such as "./cmd/kortti", into a folder of its own,
// runs the tests and removes the folder. It is the whole of a TestMain.
func Main(m *testing.M, packages ...string) {
	os.Exit(run(m, packages))
}

func run(m *testing.M, packages []string) int {
	var err error
	if dir, err = os.MkdirTemp("", "kortti-programs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := Build(dir, packages...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Build builds the packages into a folder.
func Build(dir string, packages ...string) error {
	build := exec.Command("go", append([]string{"build", "-tags", "gles,x11,migrated_fynedo", "-o", dir + "/"}, packages...)...)
	build.Dir = Root()
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// Path is the path of a program that Main built.
func Path(name string) string { return filepath.Join(dir, name) }

// Root is the root of the module.
func Root() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "..")
}
