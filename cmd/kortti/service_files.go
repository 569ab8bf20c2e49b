package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/docs"
)

// The units of the user's systemd.
const (
	socketUnit  = "kortti.socket"
	serviceUnit = "kortti.service"
)

// serviceMark is the first line of what kortti service install writes, and
// removes again.
const serviceMark = "# Written by kortti service install, which may write it anew.\n"

// fileState says what stands where a file of ours would.
type fileState string

const (
	fileMissing  fileState = "missing"
	fileCurrent  fileState = "installed"
	fileOutdated fileState = "outdated" // ours, but not what would be written now
	fileForeign  fileState = "not written by kortti"
)

// serviceFile is a file that has the agent started.
type serviceFile struct{ path, text string }

func (f serviceFile) state() fileState {
	raw, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fileMissing
	case err != nil, !bytes.HasPrefix(raw, []byte(serviceMark)):
		return fileForeign
	case string(raw) != f.text:
		return fileOutdated
	}
	return fileCurrent
}

// servicePlan is where the files belong and what they say.
type servicePlan struct {
	home                   string // the folder of configurations
	socket, service, entry string
}

// newServicePlan knows the places alone.
func newServicePlan() (*servicePlan, error) {
	home, err := config.ConfigHome()
	if err != nil {
		return nil, err
	}
	return &servicePlan{home: home}, nil
}

func (p *servicePlan) units() []serviceFile {
	dir := filepath.Join(p.home, "systemd", "user")
	return []serviceFile{{filepath.Join(dir, socketUnit), p.socket}, {filepath.Join(dir, serviceUnit), p.service}}
}

func (p *servicePlan) entries() []serviceFile {
	return []serviceFile{{filepath.Join(p.home, "autostart", "kortti.desktop"), p.entry}}
}

// planService makes the files for a configuration; named says that the agent
// must be told which it is.
func planService(cfg *config.Config, named bool) (*servicePlan, error) {
	p, err := newServicePlan()
	if err != nil {
		return nil, err
	}
	program, err := executable()
	if err != nil {
		return nil, err
	}
	agent := []string{program, "agent"}
	if named {
		agent = append(agent, "--config", cfg.File)
	}
	socket := "%t/kortti/agent.sock"
	if cfg.Control.Socket != "" {
		socket = cfg.Control.Socket
		if err := plain(socket); err != nil {
			return nil, err
		}
	}
	command, err := commandLine(agent)
	if err != nil {
		return nil, err
	}
	reload, err := commandLine([]string{program, "reload", "--socket"})
	if err != nil {
		return nil, err
	}
	listen := "ListenStream=" + cfg.Proxy.Listen + "\n"
	if _, port, err := net.SplitHostPort(cfg.Proxy.Listen); err != nil || port == "0" {
		listen = "" // a port that nobody knows cannot be listened on in advance
	}
	p.socket = serviceMark + replace(docs.SystemdSocket,
		"ListenStream=127.0.0.1:8079\n", listen,
		"ListenStream=%t/kortti/agent.sock\n", "ListenStream="+socket+"\n")
	p.service = serviceMark + replace(docs.SystemdService,
		"ExecStart=/usr/bin/kortti agent\n", unitEnvironment()+"ExecStart="+command+"\n",
		"ExecReload=/usr/bin/kortti reload --socket %t/kortti/agent.sock\n", "ExecReload="+reload+" "+socket+"\n")
	p.entry = serviceMark + fmt.Sprintf(desktopEntry, command)
	return p, nil
}

// desktopEntry is of the Desktop Application Autostart Specification.
const desktopEntry = `[Desktop Entry]
Type=Application
Name=Kortti agent
Name[fi]=Kortti-agentti
Name[sv]=Kortti-agenten
Comment=Logs you in to web services with your smart card
Exec=%s
Terminal=false
NoDisplay=true
`

// replace replaces what must be in the text.
func replace(text string, oldnew ...string) string {
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			panic("docs/systemd has no line " + oldnew[i]) // a test sees it first
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	return text
}

// serviceEnvironment are the variables without which the agent would look for
// its files elsewhere than the commands do.
var serviceEnvironment = []string{"XDG_CONFIG_HOME", "XDG_STATE_HOME"}

func unitEnvironment() string {
	lines := ""
	for _, name := range serviceEnvironment {
		if value := os.Getenv(name); filepath.IsAbs(value) && plain(value) == nil {
			lines += fmt.Sprintf("Environment=\"%s=%s\"\n", name, value)
		}
	}
	return lines
}

// commandLine quotes words as units (systemd.syntax(7)) and desktop entries
// both take them.
func commandLine(words []string) (string, error) {
	for i, w := range words {
		if err := plain(w); err != nil {
			return "", err
		}
		if strings.ContainsAny(w, " ;&()|<>*?#~!") {
			words[i] = `"` + w + `"`
		}
	}
	return strings.Join(words, " "), nil
}

// plain refuses what units and desktop entries read differently.
func plain(path string) error {
	if i := strings.IndexFunc(path, func(r rune) bool { return r < ' ' || strings.ContainsRune("%$\"'\\`", r) }); i >= 0 {
		return fmt.Errorf("%q cannot be written into a unit because of %q; use another path", path, path[i])
	}
	return nil
}

// writeFiles writes the files that are missing or outdated, and tells whether
// there were any.
func writeFiles(files []serviceFile) (changed bool, err error) {
	for _, f := range files {
		if f.state() == fileCurrent {
			continue
		}
		changed = true
		if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
			return changed, err
		}
		if err := os.WriteFile(f.path, []byte(f.text), 0o644); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// removeInstalled stops and removes those of the files that are ours.
func removeInstalled(ctx context.Context, files []serviceFile, manager bool) error {
	var ours []serviceFile
	units := false
	for _, f := range files {
		if s := f.state(); s == fileCurrent || s == fileOutdated {
			ours = append(ours, f)
			units = units || filepath.Ext(f.path) != ".desktop"
		}
	}
	if units && manager {
		for _, args := range [][]string{{"disable", "--now", socketUnit}, {"stop", serviceUnit}} {
			if _, err := systemctl(ctx, args...); err != nil {
				return err
			}
		}
	}
	for _, f := range ours {
		if err := os.Remove(f.path); err != nil {
			return err
		}
		// Where systemd does not run, its links must be removed by us.
		link := filepath.Join(filepath.Dir(f.path), "sockets.target.wants", filepath.Base(f.path))
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if units && manager {
		_, err := systemctl(ctx, "daemon-reload")
		return err
	}
	return nil
}

// startCommands are what systemctl is told after the units were written.
func startCommands(changed bool) [][]string {
	if !changed {
		return [][]string{{"enable", "--now", socketUnit}}
	}
	// An agent that runs has the old sockets.
	return [][]string{{"daemon-reload"}, {"stop", serviceUnit, socketUnit}, {"enable", "--now", socketUnit}}
}

func startUnits(ctx context.Context, changed bool) error {
	for _, args := range startCommands(changed) {
		if _, err := systemctl(ctx, args...); err != nil {
			return fmt.Errorf("%w; the units are written: see what systemd says with journalctl --user -u %s, or remove them with kortti service uninstall", err, socketUnit)
		}
	}
	return nil
}

// managerError is nil where the user has a systemd of their own.
func managerError(ctx context.Context) error {
	_, err := systemctl(ctx, "show", "--property=Version")
	return err
}

func isActive(ctx context.Context, unit string) bool { return activeState(ctx, unit) == "active" }

// activeState is a unit's, "inactive" where systemd does not know it.
func activeState(ctx context.Context, unit string) string {
	out, err := systemctl(ctx, "show", "--property=ActiveState", "--value", unit)
	if err != nil || out == "" {
		return "inactive"
	}
	return out
}

func systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--user"}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		why := strings.TrimSpace(said.String())
		if why == "" {
			why = err.Error()
		}
		return "", fmt.Errorf("systemctl --user %s: %s", strings.Join(args, " "), strings.ReplaceAll(why, "\n", "; "))
	}
	return strings.TrimSpace(out.String()), nil
}
