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
	// PID is 0 when the process was not found, and Started, in clock ticks, when
	// it is not known since when it runs; Connection then tells the unknown ones
	// apart.
	PID        int
	Started    uint64
	Connection uint32
}

// unknown is how a program is shown whose executable is not proved.
const unknown = "unknown program"

// interpreters run other programs' code under their own name; consent for one
// must not cover all. Whatever is no letter may follow the name: versions,
// architectures, "-dbg".
var interpreters = []string{
	"python", "pypy", "ipython", "node", "nodejs", "deno", "bun", "java", "scala", "perl", "ruby", "irb", "php", "lua", "luajit",
	"guile", "mono", "dotnet", "julia", "beam", "erl", "ghci", "runghc", "R", "Rscript", "octave", "tclsh", "wish", "expect",
	"sh", "bash", "rbash", "dash", "zsh", "fish", "ksh", "busybox", "pwsh", "awk", "gawk", "mawk", "emacs", "vim", "nvim", "gdb",
	"gjs", "electron", "wine", "qemu", "ld-linux", "ld-musl",
}

// relays pass on what comes from elsewhere, as from another machine or a
// container.
var relays = []string{
	"sshd", "ssh", "autossh", "dropbear", "dbclient", "pasta", "passt", "slirp", "rootlesskit", "rootlessport", "docker-proxy",
	"gvproxy", "vpnkit", "conmon", "socat", "nc", "ncat", "stunnel", "haproxy", "tinyproxy", "squid", "mitmproxy", "mitmdump",
}

// among tells whether a file's name is one of the names, with a version or the
// like behind it.
func among(names []string, base string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		rest, ok := strings.CutPrefix(base, name)
		return ok && (rest == "" || !isLetter(rest[0]))
	})
}

func isLetter(b byte) bool { return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' }

// snapFile is a file of a snap; the number is that of its revision.
var snapFile = regexp.MustCompile(`^(/var/lib/snapd)?/snap/([^/]+)/[0-9x]+/`)

// Key names the program in consents: by its path or application or, where that
// says too little about what runs, by its process or connection.
func (p Program) Key() string {
	switch {
	case p.Rememberable():
		return p.Shown()
	case p.PID == 0 || p.Started == 0:
		return fmt.Sprintf("%s (connection %d)", p.Shown(), p.Connection)
	}
	return fmt.Sprintf("%s (pid %d/%d)", p.Shown(), p.PID, p.Started)
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
	base := filepath.Base(p.Path)
	switch {
	case p.App != "":
		return ""
	case among(relays, base):
		return control.NoteRemote
	case p.Sandbox != "":
		return control.NoteSandbox
	case p.Path == "":
		return control.NoteUnknown
	case among(interpreters, base):
		return control.NoteInterpreter
	}
	return ""
}

// Rememberable tells whether the name stands for one program, so that a consent
// may outlive the process.
func (p Program) Rememberable() bool { return p.Note() == "" }
