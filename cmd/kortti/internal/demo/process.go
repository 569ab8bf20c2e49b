package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long the demo waits for a program to get ready or to end.
const patience = 20 * time.Second

// process is one of the demo's programs; what it says goes to a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// start runs a program of Kortti's that stands beside this one.
func start(dir, name, bin string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(bin, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = environment(dir)
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is in ProcessState
		close(p.done)
	}()
	return p, nil
}

// environment gives a program nothing of the person's own settings, so that
// the demo is the same everywhere and touches none of them.
func environment(dir string) []string {
	env := []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_STATE_HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
	for _, name := range []string{"PATH", "LANG", "TMPDIR", "XDG_CACHE_HOME"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	if _, ok := os.LookupEnv("XDG_CACHE_HOME"); !ok {
		if cache, err := os.UserCacheDir(); err == nil {
			env = append(env, "XDG_CACHE_HOME="+cache) // the compiled shim is kept there
		}
	}
	return env
}

// ready waits until is says yes; it gives up when the program ends or ctx does.
func (p *process) ready(ctx context.Context, is func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is(ctx) {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once (%s); it said:\n%s", p.name, p.cmd.ProcessState, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s did not get ready: %w; it said:\n%s", p.name, context.Cause(ctx), p.tail())
		case <-tick.C:
		}
	}
	return nil
}

// stop ends the program in order, and by force when it will not.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end when asked to and was killed; it said:\n%s", p.name, p.tail())
	}
}

// tail is the end of what the program said.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
}

// output runs a program to its end and returns what it printed.
func output(ctx context.Context, dir, bin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = environment(dir)
	cmd.Dir = dir
	cmd.SysProcAttr = dieWithParent()
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	said := strings.TrimSpace(errs.String())
	switch {
	case err == nil:
		return string(out), nil
	case said != "" && ctx.Err() == nil:
		return "", errors.New(said) // it names the program and what to do
	}
	return "", fmt.Errorf("%s %s: %w", filepath.Base(bin), args[0], err)
}
