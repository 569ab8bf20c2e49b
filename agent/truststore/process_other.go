//go:build !unix

package truststore

import (
	"context"
	"os/exec"
)

// Other systems have no NSS stores that are found here, so nothing is run.

func withoutTerminal(*exec.Cmd) {}

func writable(string, ...string) error { return nil }

func lock(context.Context, string) (release func(), err error) { return func() {}, nil }
