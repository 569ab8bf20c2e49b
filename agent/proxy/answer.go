package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// errorHeader marks the proxy's own answers with their code; it is taken out
// of what comes from hosts.
const errorHeader = "X-Kortti-Error"

// answer is an error answer of the proxy itself.
type answer struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// write sends the answer.
func (a answer) write(w http.ResponseWriter, r *http.Request) { a.hold(w, r, "") }

// hold sends the answer to a request that waits, or that does not (""): as a page
// to browsers' navigations, as JSON to programs that ask for it and as plain text
// to all others. It stands in the origin of the host that was asked for, so it
// must not be kept, framed, or taken for anything but what it is.
func (a answer) hold(w http.ResponseWriter, r *http.Request, wait Wait) {
	h := w.Header()
	h.Set(errorHeader, a.Code)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	if a.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "2")
	}
	if wantsPage(r) {
		writePage(w, pageOf(a, r, wait))
		return
	}
	var body []byte
	if wantsJSON(r) {
		h.Set("Content-Type", "application/json")
		// A struct of strings always encodes.
		body, _ = json.Marshal(map[string]answer{"error": a})
		body = append(body, '\n')
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = fmt.Appendf(nil, "kortti: %s\n", a.Message)
		if a.Hint != "" {
			body = fmt.Appendf(body, "%s\n", a.Hint)
		}
	}
	w.WriteHeader(a.Status)
	w.Write(body) // the program may be gone, and there is nobody else to tell
}

func wantsJSON(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header["Accept"], ","))
	return strings.Contains(accept, "json") && !strings.Contains(accept, "text/html")
}
