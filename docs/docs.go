// Package docs holds those files of this folder that programs show.
package docs

import _ "embed"

// Settings is kortti.toml: all settings of the agent with their defaults, and
// what they mean.
//
//go:embed kortti.toml
var Settings string
