package consent

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
)

// Program is who asks, as far as it is known.
type Program struct {
	// Path is the proven executable, "" when it could not be proved.
	Path string
	// Sandbox is "flatpak", "snap" or another kind of sandbox or container that
	// the program runs in, "" for none; App is the sandboxed application where
	// there is proof of it.
	Sandbox, App string
	// PID is 0 when the process was not found; Connection then tells the
	// unknown ones apart.
	PID        int
	Connection uint32
}

// unknown is how a program is shown whose executable is not proved.
const unknown = "unknown program"

// interpreters run other programs' code under their own name; consent for one
// must not cover all. Versions may follow the name.
var interpreters = []string{
	"python", "pypy", "node", "nodejs", "deno", "bun", "java", "perl", "ruby", "php", "lua", "luajit", "guile", "mono", "dotnet",
	"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "pwsh", "tclsh", "wish", "Rscript", "R", "emacs", "gjs", "qemu",
	"electron", "wine", "gawk", "ld-linux-x86-64.so", "ld-linux-aarch64.so", "ld-linux.so", "ld-musl-x86_64.so", "ld-musl-aarch64.so",
}

// relays pass on what comes from elsewhere, as from another machine or a
// container.
var relays = []string{
	"sshd", "sshd-session", "ssh", "pasta", "pasta.avx", "passt", "passt.avx", "slirp4netns", "rootlesskit", "rootlessport",
	"socat", "nc", "ncat", "nc.openbsd", "nc.traditional",
}

// snapFile is a file of a snap; the number is that of its revision.
var snapFile = regexp.MustCompile(`^(/var/lib/snapd)?/snap/([^/]+)/[0-9x]+/`)

// Key names the program in consents: by its path or application or, where that
// says too little about what runs, by its process or connection.
func (p Program) Key() string {
	switch {
	case p.Rememberable():
		return p.Shown()
	case p.PID == 0:
		return fmt.Sprintf("%s (connection %d)", p.Shown(), p.Connection)
	}
	return fmt.Sprintf("%s (pid %d)", p.Shown(), p.PID)
}

// Shown is the program's name for people. A new revision of a snap is the same
// program.
func (p Program) Shown() string {
	switch {
	case p.App != "":
		return p.Sandbox + " " + p.App
	case p.Path == "":
		return unknown
	}
	return snapFile.ReplaceAllString(p.Path, "$1/snap/$2/current/")
}

// Note returns what is to be said of the program, "" where its name says all.
func (p Program) Note() control.ProgramNote {
	base := strings.TrimRight(filepath.Base(p.Path), "0123456789.-")
	switch {
	case p.App != "":
		return ""
	case slices.Contains(relays, base):
		return control.NoteRemote
	case p.Sandbox != "":
		return control.NoteSandbox
	case p.Path == "":
		return control.NoteUnknown
	case slices.Contains(interpreters, base):
		return control.NoteInterpreter
	}
	return ""
}

// Rememberable tells whether the name stands for one program, so that a consent
// may outlive the process.
func (p Program) Rememberable() bool { return p.Note() == "" }
