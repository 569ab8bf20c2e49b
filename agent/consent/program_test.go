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
		{Program{Path: "/usr/bin/curl", PID: 7, Started: 5}, "/usr/bin/curl", ""},
		{Program{Path: "/usr/lib/git-core/git-remote-http", PID: 7, Started: 5}, "/usr/lib/git-core/git-remote-http", ""},
		{Program{Path: "/usr/bin/python3.11", PID: 7, Started: 5}, "/usr/bin/python3.11 (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/node", PID: 7, Started: 5}, "/usr/bin/node (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/python3.12-dbg", PID: 7, Started: 5}, "/usr/bin/python3.12-dbg (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/python3.13t", PID: 7, Started: 5}, "/usr/bin/python3.13t (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/perl5.36-x86_64-linux-gnu", PID: 7, Started: 5}, "/usr/bin/perl5.36-x86_64-linux-gnu (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/luajit-2.1.0-beta3", PID: 7, Started: 5}, "/usr/bin/luajit-2.1.0-beta3 (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/pwsh-preview", PID: 7, Started: 5}, "/usr/bin/pwsh-preview (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/qemu-aarch64-static", PID: 7, Started: 5}, "/usr/bin/qemu-aarch64-static (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/mawk", PID: 7, Started: 5}, "/usr/bin/mawk (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/beam.smp", PID: 7, Started: 5}, "/usr/bin/beam.smp (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/vim.basic", PID: 7, Started: 5}, "/usr/bin/vim.basic (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/bin/dropbear", PID: 7, Started: 5}, "/usr/bin/dropbear (pid 7/5)", control.NoteRemote},
		{Program{Path: "/usr/bin/stunnel4", PID: 7, Started: 5}, "/usr/bin/stunnel4 (pid 7/5)", control.NoteRemote},
		{Program{Path: "/usr/bin/docker-proxy", PID: 7, Started: 5}, "/usr/bin/docker-proxy (pid 7/5)", control.NoteRemote},
		{Program{Path: "/usr/bin/shotwell", PID: 7, Started: 5}, "/usr/bin/shotwell", ""},
		{Program{Path: "/usr/bin/nodetool", PID: 7, Started: 5}, "/usr/bin/nodetool", ""},
		{Program{Path: "/usr/bin/Rhythmbox", PID: 7, Started: 5}, "/usr/bin/Rhythmbox", ""},
		{Program{Path: "/usr/bin/javaws", PID: 7, Started: 5}, "/usr/bin/javaws", ""},
		{Program{Path: "/usr/bin/python3.11", PID: 7, Connection: 9}, "/usr/bin/python3.11 (connection 9)", control.NoteInterpreter},
		{Program{Path: "/bin/dash", PID: 7, Started: 5}, "/bin/dash (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", PID: 7, Started: 5}, "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 (pid 7/5)", control.NoteInterpreter},
		{Program{Path: "/usr/sbin/sshd", PID: 7, Started: 5}, "/usr/sbin/sshd (pid 7/5)", control.NoteRemote},
		{Program{Path: "/usr/bin/pasta.avx2", PID: 7, Started: 5}, "/usr/bin/pasta.avx2 (pid 7/5)", control.NoteRemote},
		{Program{Path: "/usr/bin/slirp4netns", PID: 7, Started: 5, Sandbox: "container"}, "/usr/bin/slirp4netns (pid 7/5)", control.NoteRemote},
		{Program{PID: 7, Started: 5}, "unknown program (pid 7/5)", control.NoteUnknown},
		{Program{Connection: 99}, "unknown program (connection 99)", control.NoteUnknown},

		{Program{PID: 7, Started: 5, Sandbox: "flatpak", App: "org.mozilla.firefox"}, "flatpak org.mozilla.firefox", ""},
		{Program{Path: "/snap/firefox/4173/usr/lib/firefox/firefox", PID: 7, Started: 5, Sandbox: "snap", App: "firefox"}, "snap firefox", ""},
		{Program{Path: "/snap/code/12/usr/share/code/code", PID: 7, Started: 5}, "/snap/code/current/usr/share/code/code", ""},
		{Program{Path: "/snap/tool/12/usr/bin/python3.12", PID: 7, Started: 5}, "/snap/tool/current/usr/bin/python3.12 (pid 7/5)", control.NoteInterpreter},
		// The same file as outside, with who knows which libraries.
		{Program{Path: "/usr/bin/curl", PID: 7, Started: 5, Sandbox: "container"}, "/usr/bin/curl (pid 7/5)", control.NoteSandbox},
		{Program{PID: 7, Started: 5, Sandbox: "container"}, "unknown program (pid 7/5)", control.NoteSandbox},
	} {
		if c.p.Key() != c.key || c.p.Note() != c.note || c.p.Rememberable() != (c.note == "") {
			t.Errorf("%+v: %q %q %v", c.p, c.p.Key(), c.p.Note(), c.p.Rememberable())
		}
	}
}
