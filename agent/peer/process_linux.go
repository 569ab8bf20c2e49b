package peer

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// processes finds the processes that hold sockets. A search reads every
// descriptor of the user, so there is one at a time, and it is for all who have
// asked since the last one began: a thousand connections at once cost little
// more than one.
type processes struct {
	searching sync.Mutex // held during a search
	recent    []int      // guarded by searching; the processes found last, the last first

	mu   sync.Mutex // guards next; taken while searching, never the other way round
	next *search    // begins when the search under way has ended; nil until somebody asks
}

// search is one look through the processes.
type search struct {
	wanted map[uint32]bool    // the inodes of sockets
	found  map[uint32]Program // nil before the search has ended; guarded by processes.searching
}

// recentProcesses is how many found processes are remembered: programs come
// back, so they are looked at first.
const recentProcesses = 8

// find looks for a socket of the user; uid is the same in all calls.
func (p *processes) find(uid, inode uint32) Program {
	p.mu.Lock()
	if p.next == nil {
		p.next = &search{wanted: make(map[uint32]bool)}
	}
	mine := p.next
	mine.wanted[inode] = true
	p.mu.Unlock()

	p.searching.Lock()
	defer p.searching.Unlock()
	if mine.found == nil { // nobody has begun it
		p.mu.Lock()
		p.next = nil // who asks from now on waits for another
		p.mu.Unlock()
		p.run(mine, uid)
	}
	return mine.found[inode]
}

// run looks through the processes. The caller holds searching.
func (p *processes) run(s *search, uid uint32) {
	s.found = make(map[uint32]Program)
	look := func(pid int) {
		if holds(pid, uid, s.wanted, s.found) {
			p.remember(pid)
		}
	}
	recent := slices.Clone(p.recent)
	for _, pid := range recent {
		look(pid)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		if len(s.found) == len(s.wanted) {
			return
		}
		if pid, err := strconv.Atoi(e.Name()); err == nil && !slices.Contains(recent, pid) {
			look(pid)
		}
	}
}

func (p *processes) remember(pid int) {
	p.recent = slices.DeleteFunc(p.recent, func(other int) bool { return other == pid })
	p.recent = slices.Insert(p.recent, 0, pid)
	p.recent = p.recent[:min(len(p.recent), recentProcesses)]
}

// holds looks which of the wanted sockets the process holds, if it is the user's,
// and adds what it runs to found.
func holds(pid int, uid uint32, wanted map[uint32]bool, found map[uint32]Program) (any bool) {
	proc := fmt.Sprintf("/proc/%d", pid)
	info, err := os.Stat(proc)
	if err != nil {
		return false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != uid {
		return false
	}
	var path string
	var in Sandbox
	var began uint64
	for fd, inode := range sockets(proc) {
		if len(found) == len(wanted) {
			break
		}
		if _, known := found[inode]; known || !wanted[inode] {
			continue
		}
		if !any {
			path, in, began = executable(proc), sandbox(proc), started(proc)
		}
		// The number may have gone to another process in the meantime.
		if now, ok := socketOf(fd); ok && now == inode {
			found[inode] = Program{PID: pid, Started: began, Path: path, Sandbox: in}
			any = true
		}
	}
	return any
}

// sockets gives the /proc names of the process's descriptors of sockets, with
// the sockets' inodes.
func sockets(proc string) iter.Seq2[string, uint32] {
	return func(yield func(string, uint32) bool) {
		dir, err := os.Open(proc + "/fd")
		if err != nil {
			return
		}
		defer dir.Close()
		names, err := dir.Readdirnames(-1)
		if err != nil {
			return
		}
		for _, name := range names {
			fd := proc + "/fd/" + name
			if inode, ok := socketOf(fd); ok && !yield(fd, inode) {
				return
			}
		}
	}
}

// socketOf reads the link of a descriptor: "socket:[INODE]" (proc_pid_fd(5)).
func socketOf(fd string) (inode uint32, ok bool) {
	link, err := os.Readlink(fd)
	if err != nil {
		return 0, false
	}
	digits, ok := strings.CutPrefix(link, "socket:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 32)
	return uint32(n), ok && err == nil
}

// started reads the 22nd field of /proc/PID/stat (proc_pid_stat(5)), 0 where it
// cannot. The second one, in parentheses, may hold anything.
func started(proc string) uint64 {
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return ticks
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
