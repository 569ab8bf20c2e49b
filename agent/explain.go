package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/kortti-id/kortti/agent/config"
	"github.com/kortti-id/kortti/agent/consent"
	"github.com/kortti-id/kortti/agent/control"
	"github.com/kortti-id/kortti/agent/prompt"
	"github.com/kortti-id/kortti/agent/roots"
	"github.com/kortti-id/kortti/agent/upstream"
	"github.com/kortti-id/kortti/card"
	"github.com/kortti-id/kortti/tlsclient"
)

// answers say what each error is to a program: 403 where the person or the card
// said no, 503 where trying later can help. The first that matches counts, so
// the narrower stands before the wider; the message is the error's own, and the
// hint card.Hint's unless there is one here.
var answers = []struct {
	err    error
	status int
	code   string
	hint   string
}{
	{card.ErrPINRefusedBefore, http.StatusForbidden, control.CodePINRepeated, ""},
	{card.ErrWrongPUK, http.StatusForbidden, control.CodePUKWrong, ""},
	{card.ErrPUKLocked, http.StatusForbidden, control.CodePUKLocked, ""},
	{card.ErrNewPIN, http.StatusForbidden, control.CodePINNew, ""},
	{card.ErrNoChange, http.StatusNotImplemented, "pin-no-change", ""},
	{card.ErrWrongPIN, http.StatusForbidden, control.CodePINWrong, ""},
	{card.ErrFinalTry, http.StatusConflict, control.CodePINFinalTry, ""},
	{prompt.ErrConfirmFinal, http.StatusConflict, control.CodePINFinalTry, "Send the PIN with confirm_final."},
	{card.ErrPINLocked, http.StatusForbidden, control.CodePINLocked, ""},
	{card.ErrPINCancelled, http.StatusForbidden, control.CodePINCancelled, ""},
	{card.ErrPINLength, http.StatusForbidden, control.CodePINLength, ""},
	{card.ErrPINUnusable, http.StatusForbidden, "pin-unusable", ""},
	{card.ErrRemoved, http.StatusServiceUnavailable, control.CodeCardRemoved, ""},
	{card.ErrNoReader, http.StatusServiceUnavailable, control.CodeNoReader, ""},
	{card.ErrNoCard, http.StatusServiceUnavailable, control.CodeNoCard, ""},
	{card.ErrLockNotConfirmed, http.StatusServiceUnavailable, "lock-not-confirmed", ""},
	{card.ErrModuleCrashed, http.StatusServiceUnavailable, "module-crashed", ""},
	{card.ErrModuleHung, http.StatusServiceUnavailable, "module-hung", ""},
	{card.ErrModule, http.StatusServiceUnavailable, "module", ""},
	{card.ErrMechanism, http.StatusBadGateway, "mechanism", ""},
	{card.ErrNotForLogin, http.StatusForbidden, "not-for-login", ""},
	{card.ErrNotAProof, http.StatusForbidden, "not-a-proof", ""},
	{card.ErrLocked, http.StatusServiceUnavailable, control.CodeLocked, ""},
	{prompt.ErrNoFrontEnd, http.StatusServiceUnavailable, control.CodeNoFrontEnd, "Start the tray app or run: kortti prompt"},
	{prompt.ErrExpired, http.StatusServiceUnavailable, control.CodeExpired, "Answer the prompt of the tray app or of kortti prompt."},
	{prompt.ErrAway, http.StatusServiceUnavailable, control.CodeAway, "Unlock the screen and try again."},
	{prompt.ErrPaused, http.StatusServiceUnavailable, "prompt-paused", ""},
	{prompt.ErrTooMany, http.StatusServiceUnavailable, "prompt-full", "Answer the open prompts first."},
	{prompt.ErrDenied, http.StatusForbidden, control.CodeNoConsent, "Allow the program when it asks again."},
	{prompt.ErrCancelled, http.StatusForbidden, "cancelled", "Answer the prompt when it comes again."},
	{prompt.ErrNotFound, http.StatusNotFound, control.CodeNotFound, ""},
	{prompt.ErrLeased, http.StatusConflict, control.CodeLeased, ""},
	{prompt.ErrNotLeased, http.StatusConflict, "prompt-not-leased", ""},
	{prompt.ErrBusy, http.StatusConflict, "prompt-busy", ""},
	{prompt.ErrBadAnswer, http.StatusBadRequest, control.CodeBadRequest, ""},
	{tlsclient.ErrNoCertificate, http.StatusServiceUnavailable, "no-certificate", "See which certificates the host takes with: kortti why HOST"},
	{tlsclient.ErrAmbiguous, http.StatusForbidden, "ambiguous", ""},
	{tlsclient.ErrNotAllowed, http.StatusForbidden, "not-listed", "List it with: kortti hosts add HOST"},
	{tlsclient.ErrHostEnded, http.StatusServiceUnavailable, "host-changed", "Try again."},
	{tlsclient.ErrClosed, http.StatusServiceUnavailable, "ending", ""},
	{prompt.ErrClosed, http.StatusServiceUnavailable, "ending", ""},
	{card.ErrClosed, http.StatusServiceUnavailable, "ending", ""},
	{config.ErrNotListed, http.StatusNotFound, control.CodeNotFound, "See the listed hosts with: kortti hosts list"},
	{consent.ErrNotFound, http.StatusNotFound, control.CodeNotFound, ""},
	{roots.ErrCorrupt, http.StatusInternalServerError, "root-damaged", "Take the host off the list and list it again."},
	{context.Canceled, http.StatusServiceUnavailable, "withdrawn", ""}, // by the program that asked
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout", ""},
}

// explain says what an error means to those who called, without what they have
// no business to know.
func explain(err error) *control.Error {
	var e *control.Error
	if errors.As(err, &e) {
		return e
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			e := &control.Error{Code: a.code, Status: a.status, Message: a.err.Error(), Hint: a.hint}
			if e.Hint == "" {
				e.Hint = card.Hint(err)
			}
			var choice *tlsclient.ChoiceError
			if errors.As(err, &choice) {
				e.Hint = strings.ReplaceAll(e.Hint, "HOST", choice.Explanation.Host)
			}
			return e
		}
	}
	var fixed *config.FixedError
	if errors.As(err, &fixed) {
		return &control.Error{Code: control.CodeConfigWins, Status: http.StatusConflict, Message: fixed.Error(), Hint: "Change it there."}
	}
	var up *tlsclient.UpstreamError
	if errors.As(err, &up) {
		return explainUpstream(up)
	}
	return &control.Error{Code: "failed", Status: http.StatusInternalServerError, Message: err.Error()}
}

func explainUpstream(up *tlsclient.UpstreamError) *control.Error {
	var way *upstream.Error
	if errors.As(up, &way) {
		return &control.Error{Code: way.Code(), Status: http.StatusBadGateway, Message: way.Error(), Hint: way.Hint()}
	}
	e := &control.Error{Code: "upstream", Status: http.StatusBadGateway, Message: up.Error()}
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(up, &untrusted):
		e.Code = "upstream-certificate"
		e.Hint = "If the host's certificate comes from a private CA, set tls_roots for the host."
	case up.Timeout():
		e.Code, e.Status = "upstream-timeout", http.StatusGatewayTimeout
	case up.Op == "connect":
		e.Code = "upstream-unreachable"
		e.Hint = "Check the host's name and the network, and whether the way out needs another proxy: [proxy] upstream in kortti.toml."
	}
	return e
}

// noCardAtAll is what callers are told while no reader holds a card.
var noCardAtAll = &control.Error{
	Code: control.CodeNoCard, Status: http.StatusServiceUnavailable,
	Message: "there is no card in the reader", Hint: "Insert your card and try again.",
}

// noLoginCard is what the person is told when no inserted card can be used.
var noLoginCard = &control.Error{
	Code: control.CodeNoCard, Status: http.StatusServiceUnavailable,
	Message: "the inserted card has no certificate for login", Hint: "See why with: kortti certs",
}

// explainProxied explains the errors of proxied requests and counts those that
// are the host's: proxy.Config.Explain.
func (a *Agent) explainProxied(err error) (status int, code, message, hint string) {
	e := explain(err)
	if errors.Is(err, tlsclient.ErrNoCertificate) && !a.anyCard() {
		e = noCardAtAll // more to the point than that none fits
	}
	var up *tlsclient.UpstreamError
	if errors.As(err, &up) {
		a.counts.upstreamError(e.Code)
	}
	a.log.Info("a request failed", "code", e.Code, "error", withoutContent(err))
	return e.Status, e.Code, e.Message, e.Hint
}

// withoutContent is an error for the log. What net/http says of an answer that
// breaks the rules of HTTP quotes it, and that may be anything.
func withoutContent(err error) error {
	var up *tlsclient.UpstreamError
	var network net.Error
	var alert tls.AlertError
	if !errors.As(err, &up) || up.Op != "request" || errors.As(up.Err, &network) || errors.As(up.Err, &alert) || errors.Is(up.Err, io.EOF) {
		return err
	}
	return &tlsclient.UpstreamError{Host: up.Host, Op: up.Op, Err: errors.New("the host's answer breaks the rules of HTTP, or its end came early")}
}
