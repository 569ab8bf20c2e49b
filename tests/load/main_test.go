// Package load puts an agent in a process of its own under the load of
// thousands of programs while its cards are pulled, its hosts fail and its
// programs run away, and looks at what is left afterwards.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kortti-id/kortti/agent"
	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/screen"
	"github.com/kortti-id/kortti/card"
)

// patience is for what is waited for; it is never slept.
const patience = 120 * time.Second

// agentVar names the configuration file of the agent that this binary is to be.
const agentVar = "KORTTI_LOAD_AGENT"

// endOfStacks follows the goroutines on standard error.
const endOfStacks = "end of goroutines"

// nowhere is the address of a bus that is not there.
const nowhere = "unix:path=/nonexistent/bus"

func TestMain(m *testing.M) {
	card.RunIfChild()
	if file := os.Getenv(agentVar); file != "" {
		if err := beAgent(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beAgent is the agent's process. It tells the proxy's address, and then answers
// each line of its input: "count" with the number of goroutines and the bytes in
// use, "stacks" with the goroutines on standard error. The end of input ends it.
func beAgent(file string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{
		Config: cfg, StateDir: filepath.Join(filepath.Dir(file), "state"), Version: "test",
		Buses: screen.Buses{System: nowhere, Session: nowhere},
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	fmt.Println(a.Proxy())
	go func() {
		defer cancel()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			switch lines.Text() {
			case "count":
				debug.FreeOSMemory()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				fmt.Println(runtime.NumGoroutine(), m.HeapAlloc)
			case "stacks":
				stacks := make([]byte, 16<<20)
				fmt.Fprintf(os.Stderr, "%s\n%s\n", stacks[:runtime.Stack(stacks, true)], endOfStacks)
				fmt.Println("done")
			}
		}
	}()
	return a.Run(ctx)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// process is a running agent.
type process struct {
	*control.Client
	proxy string
	pid   int
	log   *buffer

	mu  sync.Mutex // one question at a time
	in  io.WriteCloser
	out *bufio.Reader
}

// startAgent runs an agent with a configuration until the test ends, and then
// wants a clean end: no race, no panic, no error.
func startAgent(t *testing.T, dir, text string) *process {
	t.Helper()
	file, socket := filepath.Join(dir, "kortti.toml"), filepath.Join(dir, "run", "agent.sock")
	text = "[proxy]\nlisten = \"127.0.0.1:0\"\n[control]\nsocket = \"" + socket + "\"\n" + text
	check(t, os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), agentVar+"="+file)
	p := &process{Client: control.New(socket), log: new(buffer)}
	cmd.Stderr = p.log
	var err error
	p.in, err = cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	p.out = bufio.NewReader(out)
	check(t, cmd.Start())
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		p.Close()
		p.in.Close()
		killer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer killer.Stop()
		if err := cmd.Wait(); err != nil || strings.Contains(p.log.String(), "panic") {
			t.Errorf("the agent ended with %v and said:\n%s", err, p.log)
		}
	})
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the agent did not start: %v\n%s", err, p.log)
	}
	p.proxy = strings.TrimSpace(line)
	return p
}

func (p *process) ask(t *testing.T, question string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.in, question)
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the agent is gone: %v\n%s", err, p.log)
	}
	return line
}

// stacks are the agent's log and its goroutines.
func (p *process) stacks(t *testing.T) string {
	t.Helper()
	p.ask(t, "stacks")
	waitFor(t, "the goroutines", func() bool { return strings.Contains(p.log.String(), endOfStacks) })
	return p.log.String()
}

// held is what the agent's process holds.
type held struct {
	goroutines, files, sockets, children int
	heap                                 uint64 // bytes
}

func (h held) exceeds(limit held) bool {
	return h.goroutines > limit.goroutines || h.files > limit.files || h.sockets > limit.sockets || h.children > limit.children
}

func (p *process) holdings(t *testing.T) held {
	t.Helper()
	var h held
	if _, err := fmt.Sscan(p.ask(t, "count"), &h.goroutines, &h.heap); err != nil {
		t.Fatal(err)
	}
	files := fmt.Sprintf("/proc/%d/fd", p.pid)
	list, err := os.ReadDir(files)
	check(t, err)
	for _, f := range list {
		to, err := os.Readlink(filepath.Join(files, f.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		h.files++
		if strings.HasPrefix(to, "socket:") {
			h.sockets++
		}
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.pid))
	check(t, err)
	for _, path := range tasks {
		if list, err := os.ReadFile(path); err == nil { // else the thread has ended
			h.children += len(strings.Fields(string(list)))
		}
	}
	return h
}

// buffer is a log that the test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
