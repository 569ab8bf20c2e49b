package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/card"
)

// The ports on which card programs serve web pages: the SCS interface of
// DigiSign and Atostek ID (HTTPS, and HTTP before version 1.3), and Atostek's
// own.
const (
	portSCS     = 53952
	portSCSHTTP = 53951
	portAtostek = 44304
)

var cardPorts = []uint16{portSCS, portSCSHTTP, portAtostek}

// checkPorts tells whether the proxy's port is free.
func checkPorts(f *Facts) []control.Finding {
	if !f.Listen.IsValid() || f.Listen.Port() == 0 {
		return nil
	}
	holder := f.server(f.Listen.Port())
	switch {
	case f.Agent:
		return []control.Finding{{Code: "agent", Severity: control.SeverityOK, Title: "The agent runs; its proxy listens on " + f.Listen.String()}}
	case holder != nil:
		return []control.Finding{{
			Code: "port-taken", Severity: control.SeverityError, Title: "The agent's proxy cannot listen on " + f.Listen.String() + ": the port is taken",
			Detail: "It is held by " + holder.program() + ".",
			Fix:    "Stop that program, or choose another port in kortti.toml: [proxy] listen.",
		}}
	}
	return []control.Finding{{
		Code: "agent-not-running", Severity: control.SeverityNote, Title: "The agent does not run, so no site gets the card's certificate now",
		Detail: "Its port " + f.Listen.String() + " is free.", Fix: "Start it: kortti agent",
	}}
}

// checkMiddleware notes other card programs that run, and warns of two that
// quarrel.
func checkMiddleware(f *Facts) []control.Finding {
	var findings []control.Finding
	running := map[card.Product]bool{}
	for _, s := range f.Servers {
		if !slices.Contains(cardPorts, s.Port) {
			continue
		}
		who := middleware(s)
		if who != "" {
			running[who] = true
		}
		findings = append(findings, control.Finding{
			Code: "card-program", Severity: control.SeverityNote, Title: fmt.Sprintf("Another card program listens on port %d", s.Port),
			Detail: "It is " + s.program() + ". It may hold the card while it signs; the agent does not need it and does not disturb it.",
		})
	}
	if running[card.AtostekID] && running[card.DigiSign] {
		findings = append(findings, control.Finding{
			Code: "card-programs-clash", Severity: control.SeverityWarning, Title: "Atostek ID and DigiSign Client run at the same time",
			Detail: "They want the same ports and hold the card against each other.",
			Fix:    "Remove DigiSign Client: it has had no updates since the end of 2025.",
		})
	}
	return findings
}

// middleware tells a card program by its file, or by a port that it alone uses.
func middleware(s Server) card.Product {
	path := strings.ToLower(s.Program)
	switch {
	case strings.Contains(path, "atostek"):
		return card.AtostekID
	case strings.Contains(path, "digisign"), strings.Contains(path, "mpollux"):
		return card.DigiSign
	case path == "" && s.Port == portAtostek:
		return card.AtostekID
	}
	return ""
}
