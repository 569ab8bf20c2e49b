package truststore

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/internal/atomicfile"
	"github.com/kortti-id/kortti/agent/roots"
)

// toolTime is how long one command may take. A database may name PKCS#11
// modules, which certutil loads; a card module that hangs is not waited for.
const toolTime = 30 * time.Second

// Command is one step of a change: a program with its arguments.
type Command struct {
	Argv []string
	// Root says that only root may run it.
	Root bool
}

// String is the command as a person types it in a shell.
func (c Command) String() string {
	if c.Root {
		return "sudo " + Quote(c.Argv...)
	}
	return Quote(c.Argv...)
}

// Quote writes words as a person types them in a shell. Listed hosts need it
// too: "*." and a domain is a pattern there.
func Quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	return strings.Join(quoted, " ")
}

// quote makes one word of a POSIX shell (XCU 2.2.2) of s.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,+=@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// run runs a step of a plan.
func (m *Machine) run(ctx context.Context, c Command) error {
	_, err := m.execute(ctx, c.Argv)
	return err
}

// certutil runs certutil and returns what it writes to its standard output.
func (m *Machine) certutil(ctx context.Context, args ...string) ([]byte, error) {
	return m.execute(ctx, append([]string{"certutil"}, args...))
}

// execute runs a program with an environment of its own and without a terminal,
// on which certutil would ask for a password.
func (m *Machine) execute(ctx context.Context, argv []string) ([]byte, error) {
	path, err := m.look(argv[0])
	if err != nil {
		if argv[0] == "certutil" {
			return nil, ErrNoTool
		}
		return nil, fmt.Errorf("the program %s is not installed: %w", argv[0], err)
	}
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	withoutTerminal(cmd)
	out, complaint := &bounded{left: maxOutput}, &bounded{left: maxComplaint}
	cmd.Stdout, cmd.Stderr = out, complaint
	if err := cmd.Run(); err != nil {
		return out.text, explain(argv[0], string(complaint.text), errors.Join(context.Cause(ctx), err))
	}
	return out.text, nil
}

// What is kept of a program's output, in bytes: certutil can complain without
// end, about a database that another one is making at that moment.
const (
	maxOutput    = 16 << 20
	maxComplaint = 4 << 10
)

// bounded keeps the beginning of what is written to it.
type bounded struct {
	text []byte
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	kept := p[:min(len(p), b.left)]
	b.text, b.left = append(b.text, kept...), b.left-len(kept)
	return len(p), nil
}

// complaints are NSS's error codes that certutil names, as far as there is
// something to say about them.
var complaints = []struct {
	text string
	err  error
}{
	{"SEC_ERROR_BAD_PASSWORD", ErrPassword},
	{"SEC_ERROR_READ_ONLY", ErrReadOnly},
	{"SEC_ERROR_BAD_DATABASE", ErrDatabase},
	{"SEC_ERROR_LEGACY_DATABASE", ErrOldFormat},
	{"Could not find cert", errNoNickname},
}

// errNoNickname says that certutil does not find what it has listed itself: a
// nickname that ends in blanks, or is none.
var errNoNickname = errors.New("certutil does not find a certificate that it lists")

func explain(program, complaint string, err error) error {
	for _, c := range complaints {
		if strings.Contains(complaint, c.text) {
			return c.err
		}
	}
	complaint = strings.Join(strings.Fields(complaint), " ")
	if len(complaint) > 300 {
		complaint = complaint[:300] + "…"
	}
	if complaint == "" {
		return fmt.Errorf("%s failed: %w", program, err)
	}
	return fmt.Errorf("%s failed: %s (%w)", program, strings.ToValidUTF8(complaint, "?"), err)
}

// fileName is the name of a root's file, here and in the system's store.
func fileName(c *x509.Certificate) string {
	host := strings.NewReplacer("*", "_", ":", "_").Replace(roots.HostOf(c))
	return "kortti-" + host + "-" + fingerprint(c)[:8] + ".crt"
}

// file writes a root to a file that commands can name, unless it is there. The
// file holds the certificate and nothing else.
func (m *Machine) file(c *x509.Certificate) (string, error) {
	path := filepath.Join(m.Files, fileName(c))
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return path, nil
	}
	if err := atomicfile.Write(path, text); err != nil {
		return "", fmt.Errorf("keep the root for certutil: %w", err)
	}
	return path, nil
}

// Tidy removes the files of all roots but those in use. What it cannot remove is
// harmless.
func (m *Machine) Tidy(inUse []*x509.Certificate) {
	entries, err := os.ReadDir(m.Files)
	if err != nil {
		return
	}
	for _, e := range entries {
		used := slices.ContainsFunc(inUse, func(c *x509.Certificate) bool { return fileName(c) == e.Name() })
		if own, _ := filepath.Match("kortti-*.crt", e.Name()); own && !used {
			os.Remove(filepath.Join(m.Files, e.Name()))
		}
	}
}
