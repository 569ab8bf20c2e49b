package consent

import (
	"testing"

	"github.com/kortti-id/kortti/agent/control"
)

func TestProgram(t *testing.T) {
	for _, c := range []struct {
		p    Program
		key  string
		note control.ProgramNote
	}{
		{Program{Path: "/usr/bin/curl", PID: 7}, "/usr/bin/curl", ""},
		{Program{Path: "/usr/lib/git-core/git-remote-http", PID: 7}, "/usr/lib/git-core/git-remote-http", ""},
		{Program{Path: "/usr/bin/python3.11", PID: 7}, "/usr/bin/python3.11 (pid 7)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/node", PID: 7}, "/usr/bin/node (pid 7)", control.NoteInterpreter},
		{Program{Path: "/bin/dash", PID: 7}, "/bin/dash (pid 7)", control.NoteInterpreter},
		{Program{Path: "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", PID: 7}, "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 (pid 7)", control.NoteInterpreter},
		{Program{Path: "/usr/sbin/sshd", PID: 7}, "/usr/sbin/sshd (pid 7)", control.NoteRemote},
		{Program{Path: "/usr/bin/pasta.avx2", PID: 7}, "/usr/bin/pasta.avx2 (pid 7)", control.NoteRemote},
		{Program{Path: "/usr/bin/slirp4netns", PID: 7, Sandbox: "container"}, "/usr/bin/slirp4netns (pid 7)", control.NoteRemote},
		{Program{PID: 7}, "unknown program (pid 7)", control.NoteUnknown},
		{Program{Connection: 99}, "unknown program (connection 99)", control.NoteUnknown},

		{Program{PID: 7, Sandbox: "flatpak", App: "org.mozilla.firefox"}, "flatpak org.mozilla.firefox", ""},
		{Program{Path: "/snap/firefox/4173/usr/lib/firefox/firefox", PID: 7, Sandbox: "snap", App: "firefox"}, "snap firefox", ""},
		{Program{Path: "/snap/code/12/usr/share/code/code", PID: 7}, "/snap/code/current/usr/share/code/code", ""},
		{Program{Path: "/snap/tool/12/usr/bin/python3.12", PID: 7}, "/snap/tool/current/usr/bin/python3.12 (pid 7)", control.NoteInterpreter},
		// The same file as outside, with who knows which libraries.
		{Program{Path: "/usr/bin/curl", PID: 7, Sandbox: "container"}, "/usr/bin/curl (pid 7)", control.NoteSandbox},
		{Program{PID: 7, Sandbox: "container"}, "unknown program (pid 7)", control.NoteSandbox},
	} {
		if c.p.Key() != c.key || c.p.Note() != c.note || c.p.Rememberable() != (c.note == "") {
			t.Errorf("%+v: %q %q %v", c.p, c.p.Key(), c.p.Note(), c.p.Rememberable())
		}
	}
}
