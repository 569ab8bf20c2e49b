package doctor

import "github.com/kortti-id/kortti/agent/control"

// checkScreen tells whether a locked screen and sleep lock the cards; only a
// running agent knows.
func checkScreen(f *Facts) []control.Finding {
	switch {
	case !f.Agent || f.Screen.Detail == "":
		return nil
	case !f.Screen.Watched:
		return []control.Finding{{
			Code: "screen-lock", Severity: unless(f.testing(), control.SeverityWarning),
			Title: "A locked screen does not lock the card", Detail: "The screen's lock is not watched: " + f.Screen.Detail + ".",
			Fix: "Lock the card with kortti lock, or pull it, when you leave; set a short idle_lock in kortti.toml. Start the agent from the desktop session if it runs outside of it.",
		}}
	case !f.Sleep.Watched:
		return []control.Finding{{
			Code: "sleep-lock", Severity: control.SeverityNote, Title: "The machine's sleep does not lock the card",
			Detail: "Sleep is not watched: " + f.Sleep.Detail + ".", Fix: "Lock the card with kortti lock, or pull it, before the machine sleeps.",
		}}
	}
	return []control.Finding{{Code: "screen-lock", Severity: control.SeverityOK, Title: "A locked screen locks the card, and so does sleep"}}
}
