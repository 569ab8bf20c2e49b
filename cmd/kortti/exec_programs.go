package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// versionTime bounds `node --version`.
const versionTime = 10 * time.Second

// firstNode is the first Node.js whose own HTTP client heeds HTTPS_PROXY (with
// NODE_USE_ENV_PROXY, which kortti exec sets).
const firstNode = 24

// heedless says in a line where a program does not heed the environment that it
// is given, and what to do instead. Of programs that nobody has looked at it
// says nothing.
func heedless(ctx context.Context, path string, plan environment) []string {
	name := filepath.Base(path)
	const browser = "%s does not heed these variables: set the agent's proxy.pac in it and give it the local roots with: kortti trust install"
	switch {
	case name == "node" || name == "nodejs":
		if major, ok := nodeMajor(ctx, path); ok && major < firstNode {
			return []string{fmt.Sprintf("Node.js %d ignores HTTPS_PROXY (%d and newer heed it), so its requests get no card unless the script itself uses a proxy", major, firstNode)}
		}
	case name == "java":
		host, port := proxyOf(plan)
		return []string{fmt.Sprintf("Java ignores HTTPS_PROXY: give it -Dhttps.proxyHost=%s -Dhttps.proxyPort=%s and a trust store with the certificates of %s", host, port, plan.bundle)}
	case name == "git":
		if proxy, err := exec.CommandContext(ctx, path, "config", "--get", "http.proxy").Output(); err == nil {
			return []string{fmt.Sprintf("git's own setting http.proxy (%s) goes before HTTPS_PROXY: leave it out with: git -c http.proxy= ...", withoutPassword(strings.TrimSpace(string(proxy))))}
		}
	case name == "wget":
		return []string{"wget does not read SSL_CERT_FILE: give it --ca-certificate=" + plan.bundle}
	case name == "sudo" || name == "su" || name == "doas" || name == "pkexec":
		return []string{name + " runs programs as another user, and the agent refuses those"}
	case name == "ssh" || name == "scp" || name == "sftp":
		return []string{name + " does not speak HTTP; the card's certificate is for web services"}
	case strings.HasPrefix(name, "firefox"), strings.HasPrefix(name, "chromium"), strings.HasPrefix(name, "google-chrome"),
		name == "brave-browser", name == "microsoft-edge", name == "epiphany":
		return []string{fmt.Sprintf(browser, name)}
	}
	return nil
}

// nodeMajor asks Node.js for its version.
func nodeMajor(ctx context.Context, path string) (int, bool) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0, false
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), ".")
	n, err := strconv.Atoi(major)
	return n, err == nil
}

// proxyOf is the proxy's host and port in a planned environment.
func proxyOf(plan environment) (host, port string) {
	address := strings.TrimPrefix(parseEnviron(plan.env)["HTTPS_PROXY"], "http://")
	at := strings.LastIndexByte(address, ':')
	return address[:at], address[at+1:]
}
