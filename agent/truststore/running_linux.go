package truststore

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// programs are the file names of browsers' programs, by Store.Browser.
var programs = map[string][]string{
	chromiumName: {"chromium", "chromium-browser", "chrome", "brave", "msedge", "vivaldi-bin", "opera"},
	firefoxName:  {"firefox", "firefox-bin", "firefox-esr"},
	"LibreWolf":  {"librewolf", "librewolf-bin"},
	"Waterfox":   {"waterfox", "waterfox-bin"},
	"Floorp":     {"floorp", "floorp-bin"},
	"Zen":        {"zen", "zen-bin"},
}

// Running lists the browsers (Store.Browser) that this user runs now, in order.
// It looks at the names of programs only, so it may miss one or see one of
// another profile.
func Running() (browsers []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		if _, err := strconv.Atoi(filepath.Base(process)); err != nil || !own(process) {
			continue
		}
		exe, err := os.Readlink(process + "/exe")
		if err != nil {
			continue // ended, or a sandboxed part of a browser that others stand for
		}
		exe = filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
		for browser, names := range programs {
			if slices.Contains(names, exe) && !slices.Contains(browsers, browser) {
				browsers = append(browsers, browser)
			}
		}
	}
	slices.Sort(browsers)
	return browsers
}

func own(process string) bool {
	info, err := os.Stat(process)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
