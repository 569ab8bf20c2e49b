package agent

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/kortti-id/kortti/agent/control"
)

// maxAnswer bounds an answer to a prompt, in bytes.
const maxAnswer = 4 << 10

// answerPrompt is POST /v1/prompts/{id}, the one call whose body may hold PINs.
func (a *Agent) answerPrompt(w http.ResponseWriter, r *http.Request) {
	defer wipeInput(w)
	out, err := a.takeAnswer(r)
	w.Header().Set("Connection", "close")
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, out)
}

func (a *Agent) takeAnswer(r *http.Request) (control.AnswerResult, error) {
	answer, err := readAnswer(r.Body)
	if err != nil {
		return control.AnswerResult{}, err
	}
	return a.desk.Answer(r.Context(), r.PathValue("id"), answer)
}

// wipeInput ends the connection after the reply and overwrites what net/http
// has read from it: its buffer would keep the PIN until another connection
// happens to need as much of it.
func wipeInput(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	c.Flush() // who is gone needs no reply
	conn, rw, err := c.Hijack()
	if err != nil {
		panic(err) // HTTP/1.1 on a Unix socket can be hijacked
	}
	defer conn.Close()
	rw.Reader.Reset(zeros{})
	rw.Reader.Peek(rw.Reader.Size())
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// answerFields are the keys of control.Answer.
var answerFields = map[string]bool{
	"lease": true, "lease_token": true, "pin": true, "puk": true, "new_pin": true, "confirm_final": true,
	"allow": true, "remember": true, "certificate": true, "cancel": true,
}

// readAnswer reads an answer to a prompt with its PINs: strictly too, but with no
// copy of the body left behind, and with nothing of it in the error.
func readAnswer(body io.Reader) (control.Answer, error) {
	buf := make([]byte, maxAnswer)
	defer clear(buf)
	n, err := io.ReadFull(body, buf)
	if err == nil {
		return control.Answer{}, &control.Error{Code: "too-long", Status: http.StatusRequestEntityTooLarge, Message: "the body is too long"}
	}
	if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return control.Answer{}, badRequest("the body ended early")
	}
	return parseAnswer(buf[:n])
}

func parseAnswer(body []byte) (control.Answer, error) {
	bad := badRequest("the body is not an answer to a prompt")
	var fields map[string]json.RawMessage
	err := json.Unmarshal(body, &fields)
	known := err == nil
	for key, raw := range fields {
		clear(raw) // a copy
		known = known && answerFields[key]
	}
	if !known {
		return control.Answer{}, bad
	}
	var a control.Answer
	if err := json.Unmarshal(body, &a); err != nil {
		a.Wipe()
		return control.Answer{}, bad
	}
	return a, nil
}
