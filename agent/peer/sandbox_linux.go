package peer

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// maxControlGroup bounds what is read of /proc/PID/cgroup, in bytes.
const maxControlGroup = 64 << 10

// sandbox tells whether a process sees other files than we do, and which
// sandboxed application it belongs to.
//
// The application is what systemd has called the process's control group when
// flatpak or snap started it: a program in a container can neither leave its
// group nor name one. The file /.flatpak-info that it sees, and the AppArmor
// label of a program that nothing confines, could be of its own making.
func sandbox(proc string) Sandbox {
	ours, err := os.Readlink("/proc/self/ns/mnt")
	theirs, err2 := os.Readlink(proc + "/ns/mnt")
	if err != nil || err2 != nil || ours == theirs {
		return Sandbox{} // where it cannot be read, neither can the executable
	}
	f, err := os.Open(proc + "/cgroup")
	if err != nil {
		return Sandbox{Kind: Container}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxControlGroup))
	if err != nil {
		return Sandbox{Kind: Container}
	}
	return application(string(text))
}

// application finds a sandboxed application in the content of /proc/PID/cgroup
// (cgroups(7)): a line 0::PATH, where the first part of the path that is no
// slice, nor the user's manager, is the unit that the process was started in.
// What stands below that may be of the process's own making.
func application(text string) Sandbox {
	for line := range strings.Lines(text) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/")
		if !ok {
			continue
		}
		for unit := range strings.SplitSeq(path, "/") {
			if strings.HasSuffix(unit, ".slice") || strings.HasPrefix(unit, "user@") {
				continue
			}
			if app, ok := flatpakUnit(unit); ok {
				return Sandbox{Flatpak, app}
			}
			if app, ok := snapUnit(unit); ok {
				return Sandbox{Snap, app}
			}
			return Sandbox{Kind: Container}
		}
	}
	return Sandbox{Kind: Container}
}

// flatpakUnit reads app-flatpak-ID-NUMBER.scope, as flatpak 1.14's flatpak-run.c
// names it, with the escapes of systemd.unit(5).
func flatpakUnit(unit string) (app string, ok bool) {
	name, ok := strings.CutPrefix(unit, "app-flatpak-")
	name, ok2 := strings.CutSuffix(name, ".scope")
	i := strings.LastIndexByte(name, '-')
	if !ok || !ok2 || i < 0 {
		return "", false
	}
	if _, err := strconv.ParseUint(name[i+1:], 10, 64); err != nil {
		return "", false
	}
	app = strings.ReplaceAll(name[:i], `\x2d`, "-")
	return app, isAppName(app)
}

// snapUnit reads snap.NAME.APP-ID.scope or snap.NAME.APP.service, as snapd's
// cgroup package names them.
func snapUnit(unit string) (app string, ok bool) {
	rest, ok := strings.CutPrefix(unit, "snap.")
	app, _, ok2 := strings.Cut(rest, ".")
	return app, ok && ok2 && isAppName(app) && (strings.HasSuffix(unit, ".scope") || strings.HasSuffix(unit, ".service"))
}

// isAppName tells what may stand in a prompt.
func isAppName(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) < 256
}
