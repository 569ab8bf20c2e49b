package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/fineid/fineidtest"
	"github.com/kortti-id/kortti/softhsm"
)

func TestMain(m *testing.M) {
	card.RunIfChild()
	testscript.Main(m, map[string]func(){"kortti": main, "goget": goGet})
}

// The scripts are the specification of the command line. Besides testscript's
// own commands they use those of scriptCommands.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: scriptEnv, Cmds: scriptCommands()})
}

// scriptEnv gives a script a home of its own; only the compiled shim is shared.
func scriptEnv(env *testscript.Env) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	libm, err := filepath.Glob("/lib*/*/libm.so.6")
	if err != nil || len(libm) == 0 {
		return fmt.Errorf("find a library that is no PKCS#11 module: %v %v", libm, err)
	}
	run := filepath.Join(env.WorkDir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("XDG_RUNTIME_DIR", run)
	env.Setenv("XDG_CACHE_HOME", cache)
	env.Setenv("LIBM", libm[0])
	env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would sleep 1 s at each program's end
	return nil
}

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"code": code, "until": until, "count": count, "config": writeConfig, "occupy": occupy, "proxy": proxyAddress, "site": site,
	}
}

// code ("code N PROGRAM ARG...") runs a program, which must end with that exit code.
func code(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// until ("until PATTERN PROGRAM ARG...") runs a program again and again until
// what it prints matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		_ = ts.Exec(args[1], args[2:]...)
		if pattern.MatchString(ts.ReadFile("stdout") + ts.ReadFile("stderr")) {
			return
		}
	}
	ts.Fatalf("this never came: %s", args[0])
}

// count ("count COUNTER N") compares a counter of the card in cards/card.
func count(ts *testscript.TestScript, _ bool, args []string) {
	c, err := softhsm.Open(ts.MkAbs("cards/card"))
	ts.Check(err)
	counts, err := c.Counts()
	ts.Check(err)
	if got := fmt.Sprint(counts[args[0]]); got != args[1] {
		ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}

// config ("config [FILE]") writes the default kortti.toml: any free port, the
// card in cards/card, and then the lines of FILE.
func writeConfig(ts *testscript.TestScript, _ bool, args []string) {
	text := fmt.Sprintf("[proxy]\nlisten = \"127.0.0.1:0\"\n[card]\nmodules = [%q]\n", ts.MkAbs("cards/card/kortti-testcard.so"))
	for _, file := range args {
		text += os.Expand(ts.ReadFile(file), ts.Getenv)
	}
	ts.Check(os.MkdirAll(ts.MkAbs(".config/kortti"), 0o700))
	ts.Check(os.WriteFile(ts.MkAbs(".config/kortti/kortti.toml"), []byte(text), 0o600))
}

// occupy ("occupy") listens on a free port and leaves its address in $ADDR.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("ADDR", l.Addr().String())
}

// proxy ("proxy") waits for the agent and leaves the address of its proxy in $PROXY.
func proxyAddress(ts *testscript.TestScript, _ bool, _ []string) {
	until(ts, false, []string{"proxy 127", "kortti", "status"})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := control.New(ts.MkAbs("run/kortti/agent.sock"))
	defer c.Close()
	status, err := c.Status(ctx)
	ts.Check(err)
	ts.Setenv("PROXY", status.Proxy)
}

// site ("site") starts the hosts site.kortti.test and asks.kortti.test, which want a
// certificate of the test PKI in cards-pki and answer with its name. Their address
// is in $SITE, the roots of their own certificate are in site-roots.pem. The host
// door.kortti.test at $DOOR asks for none; its /login leads to them as localhost.
func site(ts *testscript.TestScript, _ bool, _ []string) {
	pki, err := fineidtest.Load(ts.MkAbs("cards-pki"))
	ts.Check(err)
	certificate, err := pki.ServerCert("site.kortti.test", "asks.kortti.test", "localhost")
	ts.Check(err)
	clients := x509.NewCertPool()
	for rest := append(pki.RootsPEM(), pki.IssuingPEM()...); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		ts.Check(err)
		clients.AddCert(ca)
	}
	server := httptest.NewUnstartedServer(pages(ts.MkAbs("www")))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // `kortti why` ends handshakes half-way
	server.StartTLS()
	ts.Defer(server.Close)
	ts.Setenv("SITE", strings.TrimPrefix(server.URL, "https://"))
	door := httptest.NewUnstartedServer(doorPages(strings.Replace(server.URL, "127.0.0.1", "localhost", 1)))
	certificate, err = pki.ServerCert("door.kortti.test")
	ts.Check(err)
	door.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	door.Config.ErrorLog = server.Config.ErrorLog
	door.StartTLS()
	ts.Defer(door.Close)
	ts.Setenv("DOOR", strings.TrimPrefix(door.URL, "https://"))
	ts.Check(os.WriteFile(ts.MkAbs("site-roots.pem"), pki.WebRootsPEM(), 0o600))
}

// goGet is a Go program that knows nothing of Kortti.
func goGet() {
	resp, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(7)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		os.Exit(8)
	}
}

// pages are what site serves: / greets the card's owner, /files/ is a folder.
func pages(folder string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(folder))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello "+r.TLS.PeerCertificates[0].Subject.CommonName+"\n")
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Own")+"\n") })
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		for range 200 {
			w.Write(make([]byte, 100_000))
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "there is no such page", http.StatusNotFound)
	})
	for from, to := range map[string]string{
		"/elsewhere": "https://asks.kortti.test/", "/header-elsewhere": "https://asks.kortti.test/header",
		"/plain": "http://site.kortti.test/", "/around": "/around",
	} {
		mux.Handle(from, http.RedirectHandler(to, http.StatusFound))
	}
	return mux
}

// doorPages are what the host that asks for no certificate serves; its login
// leads to another one.
func doorPages(login string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/login", http.RedirectHandler(login+"/", http.StatusFound))
	mux.HandleFunc("/page", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/form", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<form method=post action=/next><input name=user></form>")
	})
	return mux
}
