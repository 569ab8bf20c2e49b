package agent

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// acceptsConnections is __SO_ACCEPTCON of the kernel's net.h.
const acceptsConnections = 0x10000

// listens tells whether somebody listens on the Unix socket at path, without
// connecting to it.
func listens(path string) bool {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path; the path may hold spaces.
		text, ok := strings.CutSuffix(lines.Text(), " "+path)
		if fields := strings.Fields(text); ok && len(fields) == 7 {
			flags, err := strconv.ParseUint(fields[3], 16, 32)
			if err == nil && flags&acceptsConnections != 0 {
				return true
			}
		}
	}
	return false
}
