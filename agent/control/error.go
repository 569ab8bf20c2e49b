package control

import (
	"errors"
	"os"
	"path/filepath"
)

// Error is an error answer of the agent: {"error":{"code","message","hint"}}.
// Code is for programs, Message for people; Hint is a sentence that says what to do.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Status is the HTTP status; 0 when no answer came.
	Status int `json:"-"`
}

// Error gives the message and, if there is one, the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ". " + e.Hint
}

// Is reports whether target is an *Error with the same code, so that
// errors.Is(err, &Error{Code: CodePINWrong}) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Codes that a front end may have to tell apart. Others exist; their message
// and hint say all there is.
const (
	CodeNotRunning   = "agent-not-running"
	CodeNotFound     = "not-found"
	CodeBadRequest   = "bad-request"
	CodeNoCard       = "no-card"
	CodeNoReader     = "no-reader"
	CodeCardRemoved  = "card-removed"
	CodeLocked       = "locked"
	CodePINWrong     = "pin-wrong"
	CodePINRepeated  = "pin-refused-before" // the same wrong PIN again; the card was not asked
	CodePINLength    = "pin-length"
	CodePINFinalTry  = "pin-final-try" // needs confirm_final
	CodePINLocked    = "pin-locked"
	CodePINCancelled = "pin-cancelled"
	CodePINNew       = "pin-new" // the new PIN cannot be used
	CodePUKWrong     = "puk-wrong"
	CodePUKLocked    = "puk-locked"
	CodeNoFrontEnd   = "no-front-end"
	CodeExpired      = "prompt-expired"
	CodeAway         = "away" // the screen was locked while the prompt was open
	CodeLeased       = "prompt-leased"
	CodeNoConsent    = "no-consent"
	CodeConfigWins   = "set-in-config-file"
	CodeUnlocked     = "already-unlocked"
	CodeWhichCard    = "which-card" // several cards: name one
)

// ErrNotRunning is what every call gives when nothing answers on the socket.
var ErrNotRunning = &Error{Code: CodeNotRunning, Message: "the agent is not running", Hint: "Start it with: kortti agent"}

// ErrNoRuntimeDir tells that there is no default place for the socket.
var ErrNoRuntimeDir = errors.New("XDG_RUNTIME_DIR is not set, so there is no default place for the control socket; set it, or [control] socket in the configuration file")

// DefaultSocket returns $XDG_RUNTIME_DIR/kortti/agent.sock. There is no
// fall-back to a directory that other users can write to: without
// XDG_RUNTIME_DIR it is ErrNoRuntimeDir.
func DefaultSocket() (string, error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) { // the XDG specification: ignore relative paths
		return "", ErrNoRuntimeDir
	}
	return filepath.Join(dir, "kortti", "agent.sock"), nil
}
