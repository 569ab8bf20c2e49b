package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kortti-id/kortti/agent/control"
)

// maxSocketPath is the room in sockaddr_un.sun_path, less the final NUL (unix(7)).
const maxSocketPath = 107

// ErrNoHome tells that neither the XDG variable nor HOME says where files belong.
var ErrNoHome = errors.New("HOME is not set to a full path")

// DefaultFile returns $XDG_CONFIG_HOME/kortti/kortti.toml.
func DefaultFile() (string, error) {
	dir, err := ConfigHome()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "kortti", "kortti.toml"), nil
}

// DefaultState returns $XDG_STATE_HOME/kortti, where roots, consents, choices
// and the audit file live.
func DefaultState() (string, error) {
	dir, err := xdg("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return "", fmt.Errorf("find the state folder: %w", err)
	}
	return filepath.Join(dir, "kortti"), nil
}

// ConfigHome returns $XDG_CONFIG_HOME, or what stands for it.
func ConfigHome() (string, error) {
	dir, err := xdg("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return "", fmt.Errorf("find the configuration folder: %w", err)
	}
	return dir, nil
}

// xdg is the folder that a variable names, or one in the home folder. A relative
// path in the variable is ignored, as the XDG Base Directory Specification wants
// it; os.UserConfigDir would refuse it.
func xdg(variable, inHome string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("%w; set it, or %s", ErrNoHome, variable)
	}
	return filepath.Join(home, inHome), nil
}

// Socket returns the control socket's path. It is an error of its own, not of
// Load, because what needs no agent must work without XDG_RUNTIME_DIR.
func (c *Config) Socket() (string, error) {
	path := c.Control.Socket
	if path == "" {
		var err error
		if path, err = control.DefaultSocket(); err != nil {
			return "", err
		}
	}
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("the control socket's path %q is longer than the system allows (%d bytes); set a shorter [control] socket", path, maxSocketPath)
	}
	return path, nil
}
