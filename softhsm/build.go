package softhsm

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

//go:embed shim
var shimSource embed.FS

var compilerFlags = []string{"-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"}

// softHSMPaths are the places where distributions put SoftHSM: Debian and
// Ubuntu, Fedora, Arch, and a build of one's own.
var softHSMPaths = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/*/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
}

// ErrNotInstalled says that a program or library which test cards are made with
// is missing on this machine; its text names the Debian package.
var ErrNotInstalled = errors.New("not installed")

func findSoftHSM() (string, error) {
	for _, pattern := range softHSMPaths {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("test cards need SoftHSM (libsofthsm2.so), which is %w: install the package softhsm2 (Debian: apt install softhsm2)", ErrNotInstalled)
}

// buildShim returns the compiled shim from the user's cache, where it lies by
// the hash of what it is made from, and makes it first if it is not there.
// Any number of processes may do this at once.
func buildShim() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the test card's library: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	name, err := shimName()
	if err != nil {
		return "", err
	}
	shim := filepath.Join(cache, "kortti", name)
	if _, err := os.Stat(shim); err == nil {
		return shim, nil
	}
	if err := os.MkdirAll(filepath.Dir(shim), 0o700); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(shim), "build-*")
	if err != nil {
		return "", fmt.Errorf("compile the test card's library: %w", err)
	}
	defer os.RemoveAll(work)
	built, err := compileShim(work)
	if err != nil {
		return "", err
	}
	if err := os.Rename(built, shim); err != nil {
		return "", fmt.Errorf("keep the test card's library: %w", err)
	}
	return shim, nil
}

func shimName() (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.GOOS, runtime.GOARCH, compilerFlags)
	err := fs.WalkDir(shimSource, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := shimSource.ReadFile(path)
		fmt.Fprintln(hash, path, len(data))
		hash.Write(data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the embedded source of the test card's library: %w", err)
	}
	return "testcard-" + hex.EncodeToString(hash.Sum(nil)[:8]) + ".so", nil
}

func compileShim(work string) (string, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return "", fmt.Errorf("test cards need a C compiler (cc), which is %w: install the packages gcc and libc6-dev (Debian: apt install gcc libc6-dev)", ErrNotInstalled)
	}
	if err := os.CopyFS(work, shimSource); err != nil {
		return "", fmt.Errorf("unpack the source of the test card's library: %w", err)
	}
	built := filepath.Join(work, "shim.so")
	args := append(compilerFlags[:len(compilerFlags):len(compilerFlags)], "-o", built, filepath.Join(work, "shim", "shim.c"))
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the test card's library (are gcc and libc6-dev installed?): %w\n%s", err, strings.TrimSpace(string(out)))
	}
	return built, nil
}

// copyFile copies a library to a card. Each card has its own files, since a
// process loads one file only once.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, data, 0o700)
}

// writeFile replaces a file as a whole, so that no reader sees half of it.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		os.Remove(temporary.Name())
	}
	return err
}
