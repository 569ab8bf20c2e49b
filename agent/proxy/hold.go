package proxy

// Wait is what a navigation waits for.
type Wait string

// What a person may be waited for.
const (
	WaitPIN         Wait = "pin"         // the answer to a prompt for the PIN
	WaitConsent     Wait = "consent"     // leave for the program
	WaitCertificate Wait = "certificate" // the choice among several
	WaitCard        Wait = "card"        // a card that fits
)

// Hold is an error of Config.Admit or Config.Transport for a request that can be
// made again (Asked.Repeats): it has to wait for the person, and nothing of it
// has been sent. The browser gets a holding page, which asks again by itself.
type Hold struct {
	For Wait
	// Err says why, for Config.Explain.
	Err error
}

// Error gives the reason.
func (h *Hold) Error() string { return h.Err.Error() }

// Unwrap returns Err.
func (h *Hold) Unwrap() error { return h.Err }
