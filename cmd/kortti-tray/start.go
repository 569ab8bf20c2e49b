package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// start starts the agent, which outlives the tray. It is the one beside this
// program, or else the one in PATH.
func start() error {
	name := "kortti"
	if self, err := os.Executable(); err == nil {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), name)); err == nil {
			name = beside
		}
	}
	cmd := exec.Command(name, "agent")
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the agent cannot be started: %w. Install the program kortti beside kortti-tray", err)
	}
	go cmd.Wait() // so that it leaves no zombie; what it says of itself is in its log
	return nil
}
