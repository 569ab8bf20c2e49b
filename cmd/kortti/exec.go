package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kortti-id/kortti/agent/control"
)

// runExec replaces itself with a program whose environment leads it through the
// agent's proxy: signals, the terminal and the exit code are the program's own.
// Nothing but the environment is changed, and its children inherit that.
func runExec(ctx context.Context, std stdio, args []string) error {
	fs := newFlags(std, "exec", "PROGRAM [ARG...]")
	socket := socketFlag(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(rest[0])
	if err != nil {
		return &control.Error{Code: "no-program", Message: fmt.Sprintf("there is no program %q", rest[0]), Hint: "Give its name or its full path after --."}
	}
	var plan environment
	err = withAgent(*socket, func(c *control.Client) error {
		way, err := findWay(ctx, c)
		if err != nil {
			return err
		}
		if len(way.hosts) == 0 {
			fmt.Fprintln(std.err, "kortti exec: no host is listed, so no request gets the card. Add the one you log in to: kortti hosts add HOST")
		}
		plan, err = planEnvironment(way, os.Environ())
		return err
	})
	if err != nil {
		return err
	}
	for _, note := range append(plan.notes, heedless(ctx, path, plan)...) {
		fmt.Fprintln(std.err, "kortti exec: "+note)
	}
	if err := syscall.Exec(path, rest, plan.env); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	return errors.New("the program was not started") // Exec does not return otherwise
}

// way is how programs reach listed hosts: the proxy and the local roots that
// they must trust.
type way struct {
	proxy string // host:port
	hosts []control.Host
	roots []byte // PEM, of all listed hosts
	dir   string // for the bundles
	// upstream tells that the agent itself goes through another proxy.
	upstream bool
}

// findWay asks the agent.
func findWay(ctx context.Context, c *control.Client) (way, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return way{}, err
	}
	settings, err := c.Settings(ctx)
	if err != nil {
		return way{}, err
	}
	w := way{proxy: status.Proxy, dir: filepath.Join(settings.StateDir, "exec"), upstream: settings.Upstream != ""}
	if w.hosts, err = c.Hosts(ctx); err != nil {
		return way{}, err
	}
	seen := map[string]bool{}
	for _, h := range w.hosts {
		root, err := c.Trust(ctx, h.Name)
		if err != nil {
			return way{}, aboutHost(h.Name, err)
		}
		if !seen[root.SHA256] { // a host that is listed with two ports has one root
			seen[root.SHA256] = true
			w.roots = append(w.roots, root.PEM...)
		}
	}
	return w, nil
}

// rootVariables name files that stand in the place of a program's own trust
// anchors, or beside them.
var rootVariables = []struct {
	name string
	add  bool // what the file holds is added to the program's own anchors
}{
	{"SSL_CERT_FILE", false},      // OpenSSL, Go, Ruby, Python's ssl
	{"CURL_CA_BUNDLE", false},     // curl
	{"REQUESTS_CA_BUNDLE", false}, // Python requests, pip
	{"GIT_SSL_CAINFO", false},     // git
	{"AWS_CA_BUNDLE", false},      // AWS CLI and SDKs
	{"CARGO_HTTP_CAINFO", false},  // cargo
	{"NODE_EXTRA_CA_CERTS", true}, // Node.js
	{"DENO_CERT", true},           // Deno
}

// environment is what a program gets, and what the person should know of it.
type environment struct {
	env    []string
	bundle string // the system's anchors and the local roots
	notes  []string
}

// planEnvironment makes a program's environment out of this one, and writes the
// bundles that it names.
func planEnvironment(w way, environ []string) (environment, error) {
	vars := parseEnviron(environ)
	proxy := "http://" + w.proxy
	var plan environment
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		if old := vars[name]; old != "" && old != proxy && !w.upstream && len(plan.notes) == 0 {
			plan.notes = append(plan.notes, fmt.Sprintf("%s (%s) is replaced by the agent's proxy; if you need it to reach the Internet, set [proxy] upstream in kortti.toml", name, withoutPassword(old)))
		}
		vars[name] = proxy
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		left, dropped := exempt(vars[name], w.hosts)
		if len(dropped) == 0 {
			continue
		}
		vars[name] = left
		plan.notes = append(plan.notes, fmt.Sprintf("%s would lead listed hosts around the proxy; left out of it for this program: %s", name, strings.Join(dropped, ", ")))
	}
	vars["NODE_USE_ENV_PROXY"] = "1" // Node.js 24 heeds the variables above with it
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return plan, fmt.Errorf("make the folder of the certificate bundles: %w", err)
	}
	system, err := systemRoots()
	if err != nil {
		return plan, err
	}
	if plan.bundle, err = writeBundle(w.dir, systemBundle, system, w.roots); err != nil {
		return plan, err
	}
	for _, v := range rootVariables {
		own := vars[v.name]
		if own == filepath.Join(w.dir, systemBundle) || own == filepath.Join(w.dir, localBundle) {
			own = "" // set by a kortti exec around this one
		}
		switch {
		case own == "" && !v.add:
			vars[v.name] = plan.bundle
		case own == "":
			vars[v.name], err = writeBundle(w.dir, localBundle, nil, w.roots)
		default: // the person's own anchors, and no others, with the local roots
			vars[v.name], err = extendBundle(w.dir, own, w.roots)
		}
		if err != nil {
			return plan, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	plan.env = vars.environ()
	return plan, nil
}

type variables map[string]string

func parseEnviron(environ []string) variables {
	vars := variables{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			vars[name] = value
		}
	}
	return vars
}

func (v variables) environ() []string {
	all := make([]string, 0, len(v))
	for name, value := range v {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return all
}

// withoutPassword is a proxy's URL as it may be shown.
func withoutPassword(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil || u.Host == "" {
		return "not a URL"
	}
	return u.Redacted()
}

// exempt takes from a NO_PROXY list what would lead a listed host around the
// proxy, and returns what is left and what was dropped.
func exempt(list string, hosts []control.Host) (left string, dropped []string) {
	var keep []string
	for _, entry := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if slices.ContainsFunc(hosts, func(h control.Host) bool { return covers(entry, h.Name) }) {
			dropped = append(dropped, entry)
			continue
		}
		keep = append(keep, entry)
	}
	return strings.Join(keep, ","), dropped
}

// covers tells whether an entry of NO_PROXY can mean a listed host. Programs
// differ in how they read "example.fi", ".example.fi" and "*.example.fi"; each
// is taken in its widest sense, so that a login never goes around the proxy.
func covers(entry, listed string) bool {
	bare := func(s string) string {
		s = strings.ToLower(strings.TrimSuffix(s, "."))
		if name, port, ok := strings.Cut(s, ":"); ok && strings.Trim(port, "0123456789") == "" {
			s = name
		}
		return strings.TrimPrefix(strings.TrimPrefix(s, "*"), ".")
	}
	if entry == "*" {
		return true
	}
	e, host := bare(entry), bare(listed)
	if e == "" {
		return false
	}
	if e == host || strings.HasSuffix(host, "."+e) {
		return true
	}
	return strings.HasPrefix(listed, "*.") && strings.HasSuffix(e, "."+host)
}
