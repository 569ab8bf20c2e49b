package main

import (
	"context"

	"github.com/kortti-id/kortti/cmd/kortti/internal/demo"
)

func runDemo(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "demo", "")
	keep := fs.Bool("keep", false, "leave everything running until Ctrl-C")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	return demo.Run(ctx, demo.Options{Out: std.out, Keep: *keep})
}
