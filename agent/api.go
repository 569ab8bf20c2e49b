package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kortti-id/kortti/agent/control"
)

// Limits of the control API.
const (
	maxBody = 64 << 10 // bytes
	// settleTime is how long a call waits for the first look at the readers.
	settleTime = 10 * time.Second
)

// call is one call of the control API: what it returns is written as JSON, nil
// as 204.
type call func(r *http.Request) (any, error)

// routes are the calls of the control API by method and path, as http.ServeMux
// takes them.
func (a *Agent) routes() map[string]http.HandlerFunc {
	routes := map[string]http.HandlerFunc{
		"POST /v1/prompts/{id}": a.answerPrompt,
		"GET /v1/events":        a.streamEvents,
		"GET /metrics":          a.writeMetrics,
	}
	for pattern, c := range map[string]call{
		"GET /v1/status":             a.getStatus,
		"GET /v1/cards":              a.getCards,
		"GET /v1/settings":           a.getSettings,
		"PUT /v1/settings":           a.putSettings,
		"POST /v1/reload":            a.postReload,
		"GET /v1/prompts":            func(*http.Request) (any, error) { return a.desk.List(), nil },
		"POST /v1/unlock":            a.postUnlock,
		"POST /v1/lock":              a.postLock,
		"POST /v1/pin/change":        a.postPIN(control.PromptPINChange),
		"POST /v1/pin/unblock":       a.postPIN(control.PromptPINUnblock),
		"GET /v1/hosts":              a.getHosts,
		"GET /v1/hosts/{name}":       a.getHost,
		"PUT /v1/hosts/{name}":       a.putHost,
		"DELETE /v1/hosts/{name}":    a.deleteHost,
		"GET /v1/consents":           func(*http.Request) (any, error) { return a.consents.List(), nil },
		"GET /v1/consents/{id}":      a.getConsent,
		"DELETE /v1/consents":        a.deleteConsent,
		"DELETE /v1/consents/{id}":   a.deleteConsent,
		"GET /v1/trust":              a.getTrust,
		"POST /v1/trust":             a.postTrust,
		"GET /v1/why":                a.getWhy,
		"GET /v1/profiles":           a.getProfiles,
		"DELETE /v1/profiles/{host}": a.deleteProfile,
		"GET /v1/doctor":             a.getDoctor,
		"GET /v1/audit":              a.getAudit,
	} {
		routes[pattern] = func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			out, err := c(r)
			if err != nil {
				writeError(w, err)
				return
			}
			writeJSON(w, out)
		}
	}
	return routes
}

// handler is the control API.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range a.routes() {
		mux.HandleFunc(pattern, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := refuseWebPage(r); err != nil {
			writeError(w, err)
			return
		}
		h, pattern := mux.Handler(r)
		if pattern == "" { // unknown path or method: the mux answers in plain text
			miss := &missing{header: w.Header()}
			h.ServeHTTP(miss, r)
			writeError(w, miss.error(r))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// refuseWebPage refuses what a browser sends for a page. None can reach a Unix
// socket by itself, but a bridge to TCP (socat, ssh -L) can be made in a moment,
// and with it come DNS rebinding and cross-site requests.
func refuseWebPage(r *http.Request) error {
	host := strings.ToLower(r.Host)
	fromPage := host != "kortti" && host != "localhost"
	for name := range r.Header {
		if name == "Origin" || name == "Referer" || strings.HasPrefix(name, "Sec-Fetch-") {
			fromPage = true
		}
	}
	if fromPage {
		return &control.Error{Code: "web-page", Status: http.StatusForbidden, Message: "web pages may not use the control API", Hint: "Use the Host kortti, and no Origin."}
	}
	return nil
}

// missing keeps the status and the Allow header of the mux's own answers.
type missing struct {
	header http.Header
	status int
}

func (m *missing) Header() http.Header         { return m.header }
func (m *missing) WriteHeader(status int)      { m.status = status }
func (m *missing) Write(b []byte) (int, error) { return len(b), nil }

func (m *missing) error(r *http.Request) error {
	e := &control.Error{Code: control.CodeNotFound, Status: http.StatusNotFound, Message: "there is no call " + r.Method + " " + r.URL.Path}
	if m.status == http.StatusMethodNotAllowed {
		e.Code, e.Status = "method-not-allowed", m.status
	}
	return e
}

func writeJSON(w http.ResponseWriter, out any) {
	if out == nil {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	write(w, http.StatusOK, out)
}

func writeError(w http.ResponseWriter, err error) {
	e := explain(err)
	write(w, e.Status, map[string]*control.Error{"error": e})
}

func write(w http.ResponseWriter, status int, out any) {
	body, err := json.Marshal(out)
	if err != nil { // none of our types does this
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // it fails only when the caller is gone
}

func badRequest(message string) error {
	return &control.Error{Code: control.CodeBadRequest, Status: http.StatusBadRequest, Message: message}
}

// decode reads a JSON body strictly; an empty body is an empty object.
func decode[T any](r *http.Request) (T, error) {
	var out T
	raw, err := io.ReadAll(r.Body)
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return out, &control.Error{Code: "too-long", Status: http.StatusRequestEntityTooLarge, Message: "the body is too long"}
	}
	if err != nil {
		return out, badRequest("the body ended early")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return out, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		return out, badRequest("the body is not what this call takes: " + strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return out, badRequest("something follows the JSON of the body")
	}
	return out, nil
}

// settle waits until the readers have been looked at once, so that a call in an
// agent's first second does not find a machine without cards. A module that
// hangs must not hold up everything.
func (a *Agent) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := a.cards.Wait(ctx); err != nil {
		a.log.Debug("the first look at the readers has not ended", "error", err)
	}
}
