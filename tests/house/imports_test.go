// Package house keeps the rules of the house that no compiler knows: who may
// import whom, what may need cgo, and what make says before it starts.
package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kortti-id/kortti"

// pkg is what `go list -json` says of a package, as far as it is needed here.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	CgoFiles   []string
	Standard   bool
}

// rule allows the packages under room to import, of ours and of the libraries
// that are watched, only what stands in may. A trailing slash means the tree
// below as well.
type rule struct {
	room string
	may  []string
}

// rules holds the most specific room first: the first one that matches counts.
var rules = []rule{
	{"agent/control/", nil},
	{"docs/", nil},
	{"fineid/fineidtest/", []string{"fineid/"}},
	{"fineid/", nil},
	{"card/token/", []string{crypto11, miekg}},
	{"card/", []string{"card/", miekg}},
	{"softhsm/", []string{crypto11, miekg, "softhsm/"}},
	{"tlsclient/", []string{"card/"}},
	{"agent/", []string{"agent/", "tlsclient/", "card/", "fineid/"}},
	{"gui/", []string{"gui/", "agent/control/", fyne}},
	{"server/evidence/", nil},
	{"server/verify/", []string{"server/evidence/", "server/internal/", "fineid/"}},
	{"server/revoke/crl/", nil},
	{"server/revoke/", []string{"server/revoke/crl/", "server/verify/", "server/internal/", "fineid/"}},
	{"server/audit/", nil},
	{"server/probe/", []string{"server/evidence/", "server/verify/"}},
	{"server/limit/", []string{"server/internal/"}},
	{"server/", []string{"server/", "fineid/", sqlite}},
	{"cmd/kortti-tray/", []string{"gui/", "agent/control/", fyne}},
	{"cmd/kortti-server/", []string{"server/", "fineid/"}},
	{"cmd/kortti/", []string{"cmd/kortti/", "agent/", "docs/", "tlsclient/", "card/", "fineid/", "softhsm/"}},
	{"examples/", []string{"server/", "tlsclient/", "card/", "fineid/"}},
	{"tests/", []string{"tests/", "agent/", "tlsclient/", "card/", "fineid/", "softhsm/", "server/"}},
}

// The libraries that only some rooms may know.
const (
	miekg    = "github.com/miekg/pkcs11"
	crypto11 = "github.com/ThalesIgnite/crypto11"
	fyne     = "fyne.io/fyne/v2/"
	sqlite   = "modernc.org/sqlite"
)

var watched = []string{miekg, crypto11, fyne, sqlite}

func TestImportsRunDownwards(t *testing.T) {
	for _, p := range list(t, "./...") {
		r, ok := roomOf(p.ImportPath)
		if !ok {
			t.Errorf("%s: no room of the house; add it to the rules or move it", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if watchedOrOurs(imp) && !allowed(r, imp) {
				t.Errorf("%s must not import %s", p.ImportPath, imp)
			}
		}
	}
}

// The verifier is to be usable without a database, a directory or a door.
func TestVerifierStandsAlone(t *testing.T) {
	for _, p := range list(t, "./server/verify", "./server/revoke") {
		for _, dep := range p.Deps {
			switch {
			case dep == "database/sql", strings.HasPrefix(dep, "modernc.org/"),
				strings.HasPrefix(dep, "github.com/go-ldap/"),
				dep == module+"/server/door", dep == module+"/server/users":
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

func TestNoCgoWhereNoneIsNeeded(t *testing.T) {
	for _, p := range list(t, "-deps", "./fineid/...", "./server/...", "./agent/control", "./cmd/kortti-server") {
		if !p.Standard && len(p.CgoFiles) > 0 {
			t.Errorf("%s needs cgo", p.ImportPath)
		}
	}
}

// A process that opens a window must not hold a PKCS#11 module, and one that
// listens must not draw.
func TestNoFyneOutsideTheTray(t *testing.T) {
	for _, p := range list(t, "./cmd/kortti", "./cmd/kortti-server", "./agent/...") {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, fyne) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
	for _, p := range list(t, "./gui/...", "./cmd/kortti-tray") {
		if slices.Contains(p.Deps, miekg) {
			t.Errorf("%s depends on %s", p.ImportPath, miekg)
		}
	}
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,CgoFiles,Standard"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %v: %v\n%s", args, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatalf("go list %v found nothing", args)
	}
	return pkgs
}

func roomOf(path string) (rule, bool) {
	inside := strings.TrimPrefix(path, module+"/") + "/"
	for _, r := range rules {
		if strings.HasPrefix(inside, r.room) {
			return r, true
		}
	}
	return rule{}, false
}

func watchedOrOurs(imp string) bool {
	if strings.HasPrefix(imp, module+"/") {
		return true
	}
	return slices.ContainsFunc(watched, func(w string) bool { return strings.HasPrefix(imp+"/", strings.TrimSuffix(w, "/")+"/") })
}

func allowed(r rule, imp string) bool {
	inside := strings.TrimPrefix(imp, module+"/") + "/"
	return slices.ContainsFunc(r.may, func(m string) bool {
		return strings.HasPrefix(inside, strings.TrimSuffix(m, "/")+"/")
	})
}
