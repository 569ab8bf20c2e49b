package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/control"
)

const serviceUsage = "install | status | uninstall"

// runService has the agent started without a person: by the systemd of the
// user, when a program needs it, or else together with the desktop.
func runService(ctx context.Context, std stdio, args []string) error {
	what, args, err := verb(std, "service", serviceUsage, args)
	if err != nil {
		return err
	}
	switch what {
	case "install":
		return installService(ctx, std, args)
	case "uninstall":
		return uninstallService(ctx, std, args)
	}
	return serviceStatus(ctx, std, args)
}

func installService(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "service install", "")
	file := fs.String("config", "", "configuration `FILE` that the agent is to use")
	autostart := fs.Bool("autostart", false, "start it with the desktop, also where there is systemd")
	show := fs.Bool("print", false, "show what would be written and run, and do nothing")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	cfg, plan, err := loadPlan(*file)
	if err != nil {
		return err
	}
	noManager := managerError(ctx)
	byDesktop := *autostart || noManager != nil
	write, remove := plan.units(), plan.entries()
	if byDesktop {
		write, remove = remove, write
	}
	if *show {
		return printServicePlan(std, write, byDesktop)
	}
	for _, f := range write {
		if f.state() == fileForeign {
			return fmt.Errorf("%s is there already and was not written by kortti service install; move it away first", f.path)
		}
	}
	if !byDesktop {
		if err := refuseOtherAgent(ctx, cfg); err != nil {
			return err
		}
	}
	changed, err := writeFiles(write)
	if err != nil {
		return err
	}
	// What was installed the other way would start a second agent.
	if err := removeInstalled(ctx, remove, noManager == nil); err != nil {
		return err
	}
	if byDesktop {
		sayAutostart(std, write[0].path, noManager, *autostart)
		return nil
	}
	if err := startUnits(ctx, changed); err != nil {
		return err
	}
	sayUnits(std, cfg, write, changed)
	return nil
}

// loadPlan reads a configuration, "" the usual one, and plans for it.
func loadPlan(file string) (*config.Config, *servicePlan, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, nil, err
	}
	plan, err := planService(cfg, file != "")
	return cfg, plan, err
}

// refuseOtherAgent tells of an agent that systemd has not started: its sockets
// would be in the way.
func refuseOtherAgent(ctx context.Context, cfg *config.Config) error {
	socket, err := cfg.Socket()
	if err != nil {
		return err
	}
	if isActive(ctx, socketUnit) {
		return nil // whoever answers there was started by systemd, or is when it is asked
	}
	c := control.New(socket)
	defer c.Close()
	status, err := c.Status(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	return &control.Error{
		Code: "agent-running", Message: fmt.Sprintf("an agent is running that systemd has not started (process %d)", status.PID),
		Hint: fmt.Sprintf("End it (kill %d), and run this again.", status.PID),
	}
}

func sayAutostart(std stdio, path string, noManager error, wanted bool) {
	if !wanted {
		fmt.Fprintf(std.out, "There is no systemd that starts programs for you here (%v), so your desktop does.\n", noManager)
	}
	fmt.Fprintf(std.out, "Written: %s\nThe agent starts when you next log in to your desktop; until then: kortti agent\n", path)
}

func sayUnits(std stdio, cfg *config.Config, units []serviceFile, changed bool) {
	if !changed {
		fmt.Fprintln(std.out, "It was installed already.")
	}
	for _, f := range units {
		fmt.Fprintf(std.out, "%s\n", f.path)
	}
	fmt.Fprintf(std.out, "systemd listens from now on, also after you log in again, and starts the agent when it is needed.\nSee it with: kortti status; its log with: journalctl --user -u %s\n", serviceUnit)
	if cfg.Proxy.Upstream == "env" {
		fmt.Fprintln(std.out, `[proxy] upstream is "env": have systemd know the variables too: systemctl --user import-environment HTTPS_PROXY HTTP_PROXY NO_PROXY`)
	}
}

func printServicePlan(std stdio, files []serviceFile, byDesktop bool) error {
	for _, f := range files {
		fmt.Fprintf(std.out, "# would be written to %s\n%s\n", f.path, f.text)
	}
	if byDesktop {
		return nil
	}
	fmt.Fprintln(std.out, "# would be run")
	for _, args := range startCommands(true) {
		fmt.Fprintf(std.out, "systemctl --user %s\n", strings.Join(args, " "))
	}
	return nil
}

func uninstallService(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "service uninstall", "")
	show := fs.Bool("print", false, "show what would be removed, and do nothing")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	plan, err := newServicePlan()
	if err != nil {
		return err
	}
	all := append(plan.units(), plan.entries()...)
	found := 0
	for _, f := range all {
		switch f.state() {
		case fileMissing:
			continue
		case fileForeign:
			fmt.Fprintf(std.err, "%s was not written by kortti service install, so it stays.\n", f.path)
			continue
		}
		found++
		if *show {
			fmt.Fprintf(std.out, "would be removed: %s\n", f.path)
		}
	}
	if found == 0 {
		fmt.Fprintln(std.out, "Nothing is installed.")
		return nil
	}
	if *show {
		return nil
	}
	if err := removeInstalled(ctx, all, managerError(ctx) == nil); err != nil {
		return err
	}
	fmt.Fprintln(std.out, "Removed. The agent runs when you start it: kortti agent")
	return nil
}

// serviceReport is `kortti service status --json`.
type serviceReport struct {
	Manager bool                `json:"systemd"` // of the user is there
	Why     string              `json:"systemd_error,omitempty"`
	Socket  string              `json:"socket"` // active, inactive, failed
	Service string              `json:"service"`
	Files   []serviceFileReport `json:"files"`
}

type serviceFileReport struct {
	Path  string    `json:"path"`
	State fileState `json:"state"`
}

func serviceStatus(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "service status", "")
	file := fs.String("config", "", "configuration `FILE` that the agent is to use")
	asJSON := jsonFlag(fs)
	if _, err := parse(fs, args); err != nil {
		return err
	}
	_, plan, err := loadPlan(*file)
	if err != nil {
		return err
	}
	r := serviceReport{Socket: "inactive", Service: "inactive"}
	if err := managerError(ctx); err != nil {
		r.Why = err.Error()
	} else {
		r.Manager, r.Socket, r.Service = true, activeState(ctx, socketUnit), activeState(ctx, serviceUnit)
	}
	for _, f := range append(plan.units(), plan.entries()...) {
		r.Files = append(r.Files, serviceFileReport{f.path, f.state()})
	}
	if *asJSON {
		return printJSON(std.out, r)
	}
	r.print(std)
	return nil
}

func (r serviceReport) print(std stdio) {
	installed, old := false, false
	for _, f := range r.Files {
		if f.State != fileMissing {
			fmt.Fprintf(std.out, "%s: %s\n", f.Path, f.State)
			installed, old = true, old || f.State == fileOutdated
		}
	}
	switch {
	case !r.Manager:
		fmt.Fprintf(std.out, "There is no systemd that starts programs for you here: %s\n", r.Why)
	case installed || r.Socket != "inactive":
		fmt.Fprintf(std.out, "%s is %s, %s is %s.\n", socketUnit, r.Socket, serviceUnit, r.Service)
	}
	if !installed && r.Socket == "inactive" {
		fmt.Fprintln(std.out, "Nothing starts the agent for you. Have it started with: kortti service install")
	}
	if old {
		fmt.Fprintln(std.out, "What is installed does not fit this program and your settings any more. Write it anew with: kortti service install")
	}
	if r.Socket == "failed" || r.Service == "failed" {
		fmt.Fprintf(std.out, "See why with: journalctl --user -u %s -u %s\nThen: systemctl --user reset-failed %s %s; systemctl --user start %s\n", socketUnit, serviceUnit, socketUnit, serviceUnit, socketUnit)
	}
}

// executable is this program's file, as units and desktop entries can name it.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("this program's file is not there any more: %w", err)
	}
	return path, nil
}
