package server_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"slices"
	"time"

	"github.com/kortti-id/kortti/server"
)

// A program with an http.Server and a router of its own. Some of its pages are
// for everybody; the middleware serves the login pages and admits to the others.
func Example_netHTTP() {
	config, err := server.Load("kortti-server.toml")
	if err != nil {
		log.Fatal(err)
	}
	srv, err := server.New(context.Background(), config, server.Options{})
	if err != nil {
		log.Fatal(err)
	}
	site := &http.Server{
		Addr: ":8443", Handler: netHTTPSite(srv), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: srv.TLSConfig(), ConnContext: srv.ConnContext,
	}
	log.Print(site.ListenAndServeTLS("", ""), srv.Close())
}

func netHTTPSite(srv *server.Server) http.Handler {
	private := http.NewServeMux()
	private.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		user, _ := server.UserFrom(r.Context())
		fmt.Fprintf(w, "Hello, %s!\n", user.Name())
	})
	private.HandleFunc("GET /reports", func(w http.ResponseWriter, r *http.Request) {
		user, _ := server.UserFrom(r.Context())
		if !slices.Contains(user.Roles, "auditor") { // kortti-server users roles NAME auditor
			http.Error(w, "auditors only", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "no reports yet")
	})

	site := http.NewServeMux()
	site.HandleFunc("GET /about", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "for everybody")
	})
	site.Handle("/", srv.Middleware(private))
	return site
}
