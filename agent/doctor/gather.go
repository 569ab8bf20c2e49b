package doctor

import (
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"github.com/kortti-id/kortti/agent/peer"
	"github.com/kortti-id/kortti/card"
)

// dialTime is how long a port of this machine may take to answer.
const dialTime = time.Second

// Gather collects the facts. s is what a card manager saw, listen where the
// proxy listens or would, and agent says whether an agent is behind it.
func Gather(s card.Snapshot, listen string, agent bool) *Facts {
	f := &Facts{
		Now: time.Now(), Built: built(), Snapshot: s, Installed: card.Installed(),
		Agent: agent, Env: map[string]string{},
	}
	for _, m := range s.Modules {
		if product, _ := m.Product(); product == card.OpenSC && f.OpenSC.Path == "" {
			f.OpenSC = card.InspectOpenSC(m.Path)
		}
	}
	f.Listen, _ = netip.ParseAddrPort(listen) // of a name or nothing there is nothing to say
	for _, name := range variables {
		f.Env[name] = os.Getenv(name)
	}
	ask := []netip.AddrPort{}
	if f.Listen.IsValid() && f.Listen.Port() != 0 && !agent {
		ask = append(ask, f.Listen)
	}
	for _, port := range cardPorts {
		ask = append(ask, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	}
	for _, at := range ask {
		if listens(at) {
			f.Servers = append(f.Servers, Server{Port: at.Port(), Program: peer.Listener(at).Path})
		}
	}
	return f
}

// listens says whether somebody takes connections there.
func listens(at netip.AddrPort) bool {
	conn, err := net.DialTimeout("tcp", at.String(), dialTime)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// built returns when this program's source was last changed, zero when it is
// not known.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			at, _ := time.Parse(time.RFC3339, setting.Value) // zero if it is none
			return at
		}
	}
	return time.Time{}
}
