// Package docs holds those files of this folder that programs show.
package docs

import _ "embed"

// Settings is kortti.toml: all settings of the agent with their defaults, and
// what they mean.
//
//go:embed kortti.toml
var Settings string

// SystemdSocket is kortti.socket, a unit of the user's systemd, as a package
// installs it.
//
//go:embed systemd/kortti.socket
var SystemdSocket string

// SystemdService is kortti.service, which kortti.socket starts.
//
//go:embed systemd/kortti.service
var SystemdService string
