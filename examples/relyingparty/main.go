// Command relyingparty is the smallest web site that lets people in by card.
// Its configuration is that of kortti-server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/kortti-id/kortti/server"
)

func main() {
	config := flag.String("config", "kortti-server.toml", "configuration `FILE`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *config); err != nil {
		fmt.Fprintln(os.Stderr, "relyingparty:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	config, err := server.Load(file)
	if err != nil {
		return err
	}
	srv, err := server.New(ctx, config, server.Options{})
	if err != nil {
		return err
	}
	return errors.Join(srv.ListenAndServe(ctx, http.HandlerFunc(hello)), srv.Close())
}

// hello is the application: only active users who have logged in come here.
func hello(w http.ResponseWriter, r *http.Request) {
	user, _ := server.UserFrom(r.Context())
	fmt.Fprintf(w, "Hello, %s!\n", user.Name())
}
