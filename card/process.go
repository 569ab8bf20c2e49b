package card

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kortti-id/kortti/card/internal/child"
	"github.com/kortti-id/kortti/card/internal/wire"
)

// RunIfChild serves a parent and never returns where this process was started
// as a manager's child; elsewhere it does nothing. It must be the first line of
// main and of TestMain, before anything is read, written or started.
func RunIfChild() {
	if len(os.Args) == 3 && os.Args[1] == wire.Argument {
		child.Main(os.Args[2])
	}
}

// environment is what children get of ours. Everything else stays out, above
// all what makes modules and the dynamic linker load or print more: LD_*,
// OPENSC_DEBUG, PKCS11SPY, P11_KIT_DEBUG.
var environment = []string{
	"HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR",
	"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
	"OPENSC_CONF", "SOFTHSM2_CONF", "PCSCLITE_CSOCK_NAME",
	"GORACE", // for test binaries with the race detector; nothing else reads it
}

// process is a child and the connection to it.
type process struct {
	cmd  *exec.Cmd
	conn net.Conn
	turn chan struct{} // full while a call is under way
	done chan struct{} // closed when the process is gone

	mu  sync.Mutex
	why error // why it ended or is to end; guarded by mu
}

// startProcess starts a child; its end must be waited for with stop or close.
// A quiet child's output is counted, never shown: it gets a PIN, and modules
// print what they like.
func startProcess(executable string, role wire.Role, quiet bool, log *slog.Logger) (*process, error) {
	conn, end, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start a child for cards: %w", err)
	}
	defer end.Close()
	output := &lines{log: log, quiet: quiet}
	cmd := exec.Command(executable, wire.Argument, string(role))
	cmd.Env = cleanEnvironment()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{end}                      // wire.Descriptor
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the parent's to handle
	cmd.WaitDelay = time.Second                           // a module may have started something that keeps the output open
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start a child for cards: %w", err)
	}
	p := &process{cmd: cmd, conn: conn, turn: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		output.flush()
		p.because(fmt.Errorf("%w: %s", ErrModuleCrashed, output.crash(err)))
		conn.Close()
		close(p.done)
	}()
	return p, nil
}

// socketPair returns our end as a connection and the child's end as a file.
func socketPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock() // no child may inherit them before they are marked
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

func cleanEnvironment() []string {
	env := []string{"GOTRACEBACK=none"} // a crash is a line, not a dump
	for _, name := range environment {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// call sends a request and returns the answer; calls wait for each other. A
// *wire.Fault is the child's own answer; any other error is the end of the
// child, which is killed when it does not answer in time or ctx ends while the
// module works: a PKCS#11 call cannot be cancelled. The answer may be set then
// too.
func (p *process) call(ctx context.Context, limit time.Duration, r wire.Request, body []byte) (answer wire.Answer, result []byte, err error) {
	select {
	case p.turn <- struct{}{}:
	case <-p.done:
		return answer, nil, p.reason()
	case <-ctx.Done():
		return answer, nil, context.Cause(ctx)
	}
	defer func() { <-p.turn }()
	if why := p.reason(); why != nil { // ended while this call waited for its turn
		return answer, nil, why
	}
	release := context.AfterFunc(ctx, func() { p.end(context.Cause(ctx)) })
	defer release()
	result, err = p.exchange(limit, r, body, &answer)
	switch why := p.reason(); {
	case why != nil: // ended while the module worked: what it made must not be used
		return answer, nil, why
	case err == nil && answer.Fault != nil:
		err = answer.Fault
	}
	return answer, result, err
}

// exchange writes a frame and reads one.
func (p *process) exchange(limit time.Duration, r wire.Request, body []byte, answer *wire.Answer) ([]byte, error) {
	if err := p.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		<-p.done // closed by its end
		return nil, p.reason()
	}
	err := wire.Write(p.conn, r, body)
	var result []byte
	if err == nil {
		result, err = wire.Read(p.conn, answer)
	}
	switch {
	case err == nil:
		return result, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.stop(fmt.Errorf("%w within %v", ErrModuleHung, limit))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		select { // it ended by itself: its exit status says how
		case <-p.done:
		case <-time.After(exitGrace):
			p.stop(fmt.Errorf("%w: it closed its connection", ErrModuleCrashed))
		}
	default:
		p.stop(fmt.Errorf("%w: %v", ErrModuleFailed, err))
	}
	return nil, p.reason()
}

// because keeps the first reason for the process's end.
func (p *process) because(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		p.why = why
	}
}

// reason returns why the process ended, or nil while nothing ended it.
func (p *process) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// end kills the process and does not wait.
func (p *process) end(why error) {
	p.because(why)
	_ = p.cmd.Process.Kill() // fails only when it is gone already
}

// stop kills the process and returns when it is gone.
func (p *process) stop(why error) {
	p.end(why)
	<-p.done
}

// exitGrace is how long a child that has closed its connection may take to end.
const exitGrace = 3 * time.Second

// closeGrace is how long a child may take to log out and finalise its module.
const closeGrace = 500 * time.Millisecond

// close asks an idle process to log out and end, kills it if it is busy or
// slow, and returns when it is gone. No call gets a turn any more.
func (p *process) close(why error) {
	p.because(why)
	select {
	case p.turn <- struct{}{}:
		_ = p.conn.SetDeadline(time.Now().Add(closeGrace))
		if wire.Write(p.conn, wire.Request{Op: wire.Close}, nil) == nil {
			select {
			case <-p.done:
			case <-time.After(closeGrace):
			}
		}
	default:
	}
	p.stop(why)
}

// maxLine and maxLines bound what one child may put into the log.
const (
	maxLine  = 200
	maxLines = 100
)

// lines takes a child's output. exec writes to it from one goroutine, and flush
// comes after that has ended.
type lines struct {
	log     *slog.Logger
	quiet   bool
	pending []byte
	count   int
	size    int
	signal  string // "SIGSEGV: segmentation violation", as Go's runtime reports a crash in C
}

// Write logs whole lines, capped in length and number.
func (l *lines) Write(b []byte) (int, error) {
	l.size += len(b)
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		l.pending = append(l.pending, line[:min(len(line), maxLine-len(l.pending))]...)
		if whole {
			l.emit()
		}
		rest = after
	}
	return len(b), nil
}

// flush logs what is left, or of a quiet child how much there was.
func (l *lines) flush() {
	if l.quiet && l.size > 0 {
		l.log.Debug("a signer's module wrote output, which is not kept", "bytes", l.size)
		return
	}
	l.emit()
}

// crash says how the process ended.
func (l *lines) crash(exit error) string {
	switch {
	case l.signal != "":
		return l.signal
	case exit == nil:
		return "it ended by itself"
	}
	return exit.Error()
}

func (l *lines) emit() {
	line := printable(l.pending)
	l.pending = l.pending[:0]
	if l.signal == "" && strings.HasPrefix(line, "SIG") {
		l.signal = line
	}
	if line == "" || l.quiet || l.count >= maxLines {
		return
	}
	l.count++
	l.log.Debug("a card child says", "line", line)
}

// printable masks digits, which may be identifiers, and what is not text.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9':
			return '#'
		case r < ' ' || r == 0x7f || r == '\uFFFD':
			return '.'
		}
		return r
	}, strings.TrimSpace(string(b)))
}
