package tray_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kortti-id/kortti/tests/rootfs"
)

// display is a real X server with a window manager, in the tests' own root
// file system. Programs of the machine reach it through its abstract socket.
type display struct {
	t    *testing.T
	dir  string // seen inside as rootfs.Shared
	name string // such as ":1"
}

func newDisplay(t *testing.T) *display {
	t.Helper()
	d := &display{t: t, dir: t.TempDir()}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	x := rootfs.Command(context.Background(), t, d.dir, "Xvfb", "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset")
	x.ExtraFiles = []*os.File{write}
	d.background(x)
	write.Close()
	var number int
	if _, err := fmt.Fscan(read, &number); err != nil {
		t.Fatalf("the X server said no display number: %v", err)
	}
	d.name = fmt.Sprintf(":%d", number)
	d.background(d.command("openbox"))
	return d
}

// background starts a program that ends with the test.
func (d *display) background(cmd *exec.Cmd) {
	d.t.Helper()
	var out bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if d.t.Failed() {
			d.t.Logf("%s said:\n%s", filepath.Base(cmd.Args[0]), out.String())
		}
	})
}

// command prepares an X client of the root file system.
func (d *display) command(name string, args ...string) *exec.Cmd {
	cmd := rootfs.Command(context.Background(), d.t, d.dir, name, args...)
	cmd.Env = append(cmd.Env, "DISPLAY="+d.name)
	return cmd
}

// do runs an X client to its end and returns what it printed.
func (d *display) do(name string, args ...string) string {
	d.t.Helper()
	out, err := d.command(name, args...).CombinedOutput()
	if err != nil {
		d.screenshot("failed")
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// window waits until a visible window has this title and returns its number. A
// search fails, too, when another window goes while it looks.
func (d *display) window(title string) (number string) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); number == ""; {
		out, err := d.command("xdotool", "search", "--onlyvisible", "--limit", "1", "--name", "^"+title+"$").Output()
		if err == nil {
			number = strings.TrimSpace(string(out))
		}
		if time.Now().After(deadline) {
			d.screenshot("failed")
			d.t.Fatalf("no window %q came", title)
		}
	}
	return number
}

// untilGone waits until no visible window has this title.
func (d *display) untilGone(title string) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if d.command("xdotool", "search", "--onlyvisible", "--name", "^"+title+"$").Run() != nil {
			return
		}
		if time.Now().After(deadline) {
			d.screenshot("failed")
			d.t.Fatalf("the window %q stays open", title)
		}
	}
}

// screenshot keeps a picture of the screen where KORTTI_SCREENSHOTS says.
func (d *display) screenshot(name string) {
	dir := os.Getenv("KORTTI_SCREENSHOTS")
	if dir == "" {
		return
	}
	if out, err := d.command("import", "-window", "root", filepath.Join(rootfs.Shared, name+".png")).CombinedOutput(); err != nil {
		d.t.Errorf("screenshot: %v\n%s", err, out)
		return
	}
	b, err := os.ReadFile(filepath.Join(d.dir, name+".png"))
	if err != nil {
		d.t.Error(err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644); err != nil {
		d.t.Error(err)
	}
}
