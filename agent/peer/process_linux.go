package peer

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

// processes finds the process that holds a socket. The processes that were
// found last are looked at first: programs come back, and a full search reads
// every descriptor of the user.
type processes struct {
	mu     sync.Mutex
	recent []int // guarded by mu; the last found first
}

// recentProcesses is how many found processes are remembered.
const recentProcesses = 8

func (p *processes) find(uid, inode uint32) Program {
	p.mu.Lock()
	recent := slices.Clone(p.recent)
	p.mu.Unlock()
	for _, pid := range recent {
		if program, ok := holder(pid, uid, inode); ok {
			p.remember(pid)
			return program
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Program{}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if program, ok := holder(pid, uid, inode); ok {
			p.remember(pid)
			return program
		}
	}
	return Program{}
}

func (p *processes) remember(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent = slices.DeleteFunc(p.recent, func(other int) bool { return other == pid })
	p.recent = slices.Insert(p.recent, 0, pid)
	p.recent = p.recent[:min(len(p.recent), recentProcesses)]
}

// holder looks whether the process is the user's and holds the socket, and if
// so, what it runs.
func holder(pid int, uid, inode uint32) (Program, bool) {
	proc := fmt.Sprintf("/proc/%d", pid)
	info, err := os.Stat(proc)
	if err != nil {
		return Program{}, false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != uid {
		return Program{}, false
	}
	fd := descriptor(proc, inode)
	if fd == "" {
		return Program{}, false
	}
	path := executable(proc)
	// The number may have gone to another process in the meantime.
	if link, err := os.Readlink(fd); err != nil || link != socketLink(inode) {
		return Program{}, false
	}
	return Program{PID: pid, Path: path}, true
}

func socketLink(inode uint32) string { return fmt.Sprintf("socket:[%d]", inode) }

// descriptor gives the /proc name of the process's descriptor of the socket,
// or "".
func descriptor(proc string, inode uint32) string {
	dir, err := os.Open(proc + "/fd")
	if err != nil {
		return ""
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return ""
	}
	want := socketLink(inode)
	for _, name := range names {
		fd := proc + "/fd/" + name
		if link, err := os.Readlink(fd); err == nil && link == want {
			return fd
		}
	}
	return ""
}

// executable gives the path of the file that the process runs, or "".
func executable(proc string) string {
	path, err := os.Readlink(proc + "/exe")
	if err != nil {
		return ""
	}
	running, err := os.Stat(proc + "/exe")
	if err != nil {
		return ""
	}
	return proved(path, running)
}

// proved gives the path if it leads to the running file. The link /proc/PID/exe
// can be made to read as any path by a bind mount in a mount namespace of the
// process's own; that the path is that of the same file here cannot.
func proved(path string, running os.FileInfo) string {
	named, err := os.Stat(path)
	if err != nil || !os.SameFile(running, named) {
		return ""
	}
	return path
}
