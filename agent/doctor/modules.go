package doctor

import (
	"errors"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// checkModules says of every module whether it works, and if not, why.
func checkModules(f *Facts) []control.Finding {
	var findings []control.Finding
	works := slices.ContainsFunc(f.Snapshot.Modules, func(m card.ModuleInfo) bool { return m.Err == nil && m.Description != "" })
	for _, m := range f.Snapshot.Modules {
		switch {
		case m.Path == "auto" && m.Err != nil:
			findings = append(findings, noModule(f))
		case m.Err != nil:
			finding := badModule(m)
			finding.Severity = control.SeverityError
			if works { // cards may be readable all the same
				finding.Severity = control.SeverityWarning
			}
			findings = append(findings, finding)
		case m.Description == "":
			findings = append(findings, control.Finding{
				Code: "module-slow", Severity: control.SeverityWarning, Title: "The module " + m.Path + " has not answered yet",
				Detail: "A slow reader or card takes up to half a minute.", Fix: "Wait and run kortti doctor again; if it never answers, take the card out and put it back.",
			})
		default:
			findings = append(findings, control.Finding{Code: "module", Severity: control.SeverityOK, Title: moduleName(m) + " works"})
		}
	}
	return findings
}

func noModule(f *Facts) control.Finding {
	finding := control.Finding{
		Code: "no-module", Severity: control.SeverityError, Title: "No PKCS#11 module was found, so no card can be read",
		Fix: "Install Atostek ID from DVV (dvv.fi) for a FINEID card; OpenSC serves MyEID, YubiKey and many others, and from version 0.27 on FINEID too. A module in an unusual place is named in kortti.toml: [card] modules.",
	}
	for _, m := range f.Installed {
		if product, _ := m.Product(); product == card.SoftHSM {
			finding.Detail = "SoftHSM is installed, but it is only used when it is named."
		}
	}
	return finding
}

// reasons tell why a module cannot be loaded by what the dynamic linker says:
// glibc's, musl's and macOS's words.
var reasons = []struct {
	pattern     *regexp.Regexp
	code        string
	detail, fix string // $1 is the pattern's first group
}{
	{regexp.MustCompile(`wrong ELF class|incompatible architecture|Exec format error|cannot open shared object file: .*machine`),
		"module-architecture", "It was made for another kind of processor or system than this program (" + runtime.GOARCH + ").",
		"Install the module for " + runtime.GOARCH + "."},
	{regexp.MustCompile(`(\S+): cannot open shared object file: No such file|Error loading shared library (\S+?):|Library not loaded: (\S+)`),
		"module-library", "It needs a library that is not installed: $1.", "Install the package that brings $1."},
	{regexp.MustCompile(`invalid ELF header|file too short|not a mach-o file|Not a valid dynamic program`),
		"module-no-library", "The file is no program library.", "Correct the path in kortti.toml ([card] modules), or install the module again."},
	{regexp.MustCompile(`undefined symbol: (\S+)|version .(\S+). not found`),
		"module-library", "A library that it needs is there in a wrong version ($1).", "Update the module and the system's libraries."},
	{regexp.MustCompile(`no such file or directory|no C_GetFunctionList|it is a proxy`),
		"module-wrong", "", "Correct the path in kortti.toml ([card] modules), or install the module."},
	{regexp.MustCompile(`[Pp]ermission denied|failed to map segment`),
		"module-permission", "This user may not load it, or it lies on a file system mounted noexec.", "Make the file readable and put it where programs may be run from."},
}

// badModule explains why a module cannot be used.
func badModule(m card.ModuleInfo) control.Finding {
	finding := control.Finding{Code: "module-failed", Title: "The module " + m.Path + " cannot be used", Detail: reason(m.Err), Fix: card.Hint(m.Err)}
	switch {
	case errors.Is(m.Err, card.ErrModuleCrashed):
		finding.Code, finding.Title = "module-crashed", "The module "+m.Path+" crashes"
		return finding
	case errors.Is(m.Err, card.ErrModuleHung):
		finding.Code, finding.Title = "module-hung", "The module "+m.Path+" does not answer"
		return finding
	}
	for _, r := range reasons {
		groups := r.pattern.FindStringSubmatch(finding.Detail)
		if groups == nil {
			continue
		}
		what := strings.Join(groups[1:], "") // one group at most matches
		fill := func(text string) string { return strings.ReplaceAll(text, "$1", what) }
		finding.Code, finding.Fix = r.code, fill(r.fix)
		if r.detail != "" {
			finding.Detail = fill(r.detail) + " The loader says: " + finding.Detail
		}
		break
	}
	return finding
}

// reason is an error of package card without the operation, which the title
// says.
func reason(err error) string {
	text := err.Error()
	var e *card.Error
	if errors.As(err, &e) {
		text = strings.TrimPrefix(text, e.Op+": ")
	}
	return strings.TrimPrefix(text, card.ErrModule.Error()+": ")
}

// checkSpy warns of modules that write PINs into a file.
func checkSpy(f *Facts) []control.Finding {
	var findings []control.Finding
	for _, m := range f.Snapshot.Modules {
		if strings.Contains(m.Path, "pkcs11-spy") {
			findings = append(findings, control.Finding{
				Code: "module-spy", Severity: control.SeverityError, Title: "The module " + m.Path + " writes every PIN into a log file",
				Detail: "pkcs11-spy stands in front of another module, to find faults in it.",
				Fix:    "Name the module itself in kortti.toml ([card] modules), and change the PIN if it was entered.",
			})
		}
	}
	return findings
}
