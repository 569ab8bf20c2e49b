package server_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/kortti-id/kortti/server"
)

// A program with chi. The middleware belongs to a router of its own, not to a
// Group of routes: a Group knows nothing of the login pages.
func Example_chi() {
	config, err := server.Load("kortti-server.toml")
	if err != nil {
		log.Fatal(err)
	}
	srv, err := server.New(context.Background(), config, server.Options{})
	if err != nil {
		log.Fatal(err)
	}
	site := &http.Server{
		Addr: ":8443", Handler: chiSite(srv), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: srv.TLSConfig(), ConnContext: srv.ConnContext,
	}
	log.Print(site.ListenAndServeTLS("", ""), srv.Close())
}

func chiSite(srv *server.Server) http.Handler {
	private := chi.NewRouter()
	private.Use(srv.Middleware)
	private.Get("/", func(w http.ResponseWriter, r *http.Request) {
		user, _ := server.UserFrom(r.Context())
		fmt.Fprintf(w, "Hello, %s!\n", user.Name())
	})
	private.With(auditors).Get("/reports", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "no reports yet")
	})

	site := chi.NewRouter()
	site.Get("/about", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "for everybody")
	})
	site.Mount("/", private)
	return site
}

// auditors admits users with that role: kortti-server users roles NAME auditor
func auditors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _ := server.UserFrom(r.Context()); !slices.Contains(user.Roles, "auditor") {
			http.Error(w, "auditors only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
