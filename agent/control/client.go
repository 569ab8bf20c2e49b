package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"unicode/utf8"
)

// maxAnswer bounds what the client reads of one answer, in bytes.
const maxAnswer = 16 << 20

// Client calls the agent on its Unix socket. It is safe for concurrent use.
// Every error is an *Error when the agent answered, and ErrNotRunning (by
// errors.Is) when no agent listens.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client for the agent on the socket; nothing is opened yet.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		Proxy:       nil,
	}}
	return c
}

// Close closes idle connections to the agent.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the agent's state and counters.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Cards returns readers, cards and certificates.
func (c *Client) Cards(ctx context.Context) (Cards, error) {
	return get[Cards](ctx, c, "/v1/cards")
}

// Settings returns what the agent runs with.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	return get[Settings](ctx, c, "/v1/settings")
}

// PutSettings changes settings, in managed.toml, and returns those that are in
// force then.
func (c *Client) PutSettings(ctx context.Context, change SettingsChange) (Settings, error) {
	return call[Settings](ctx, c, http.MethodPut, "/v1/settings", change)
}

// Reload has the agent read its files again. If it returns an error, nothing has
// changed.
func (c *Client) Reload(ctx context.Context) (Reload, error) {
	return call[Reload](ctx, c, http.MethodPost, "/v1/reload", nil)
}

// Unlock asks the agent to raise a PIN prompt and returns it; the caller, or any
// other front end, then leases and answers it.
func (c *Client) Unlock(ctx context.Context, sel CardSelection) (Prompt, error) {
	return call[Prompt](ctx, c, http.MethodPost, "/v1/unlock", sel)
}

// ChangePIN asks the agent to raise a prompt for the old and the new PIN; it is
// answered as that of Unlock.
func (c *Client) ChangePIN(ctx context.Context, sel CardSelection) (Prompt, error) {
	return call[Prompt](ctx, c, http.MethodPost, "/v1/pin/change", sel)
}

// UnblockPIN asks the agent to raise a prompt for the PUK and a new PIN.
func (c *Client) UnblockPIN(ctx context.Context, sel CardSelection) (Prompt, error) {
	return call[Prompt](ctx, c, http.MethodPost, "/v1/pin/unblock", sel)
}

// Lock locks one card, or all.
func (c *Client) Lock(ctx context.Context, sel CardSelection) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/lock", sel)
	return err
}

// Prompts returns the open prompts, oldest first.
func (c *Client) Prompts(ctx context.Context) ([]Prompt, error) {
	return get[[]Prompt](ctx, c, "/v1/prompts")
}

// Lease takes the prompt for this front end and returns the token that its
// answer must carry.
func (c *Client) Lease(ctx context.Context, id string) (string, error) {
	res, err := c.Answer(ctx, id, Answer{Lease: true})
	return res.LeaseToken, err
}

// Answer answers a prompt. It takes the PINs over and wipes them, also when it
// fails; a PIN goes straight to the socket and never through a buffer that
// lives on.
func (c *Client) Answer(ctx context.Context, id string, a Answer) (AnswerResult, error) {
	defer a.Wipe()
	body, err := answerJSON(a)
	if err != nil {
		return AnswerResult{}, err
	}
	defer clear(body)
	return c.post(ctx, "/v1/prompts/"+url.PathEscape(id), body)
}

// Hosts returns the listed hosts.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	return get[[]Host](ctx, c, "/v1/hosts")
}

// Host returns one listed host by the name it is listed under.
func (c *Client) Host(ctx context.Context, name string) (Host, error) {
	return get[Host](ctx, c, "/v1/hosts/"+url.PathEscape(name))
}

// PutHost lists a host or changes it, in managed.toml. A host that the
// configuration file lists is CodeConfigWins.
func (c *Client) PutHost(ctx context.Context, h Host) (Host, error) {
	return call[Host](ctx, c, http.MethodPut, "/v1/hosts/"+url.PathEscape(h.Name), h)
}

// DeleteHost takes a host off the list.
func (c *Client) DeleteHost(ctx context.Context, name string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "/v1/hosts/"+url.PathEscape(name), nil)
	return err
}

// Consents returns the consents in force.
func (c *Client) Consents(ctx context.Context) ([]Consent, error) {
	return get[[]Consent](ctx, c, "/v1/consents")
}

// Consent returns one consent.
func (c *Client) Consent(ctx context.Context, id string) (Consent, error) {
	return get[Consent](ctx, c, "/v1/consents/"+url.PathEscape(id))
}

// Profiles returns what was learned about hosts.
func (c *Client) Profiles(ctx context.Context) ([]Profile, error) {
	return get[[]Profile](ctx, c, "/v1/profiles")
}

// ResetProfile has the agent forget what it has learned about a host ("name" or
// "name:port"; a name alone means all its ports) and close its connections.
func (c *Client) ResetProfile(ctx context.Context, host string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "/v1/profiles/"+url.PathEscape(host), nil)
	return err
}

// DeleteConsent takes a consent back; id "" means all.
func (c *Client) DeleteConsent(ctx context.Context, id string) error {
	path := "/v1/consents"
	if id != "" {
		path += "/" + url.PathEscape(id)
	}
	_, err := call[struct{}](ctx, c, http.MethodDelete, path, nil)
	return err
}

// Trust returns the local root of a listed host; it is made on first use.
func (c *Client) Trust(ctx context.Context, host string) (Root, error) {
	return get[Root](ctx, c, "/v1/trust?host="+url.QueryEscape(host))
}

// TrustStatus returns which local roots are in which trust store.
func (c *Client) TrustStatus(ctx context.Context) (TrustStatus, error) {
	return get[TrustStatus](ctx, c, "/v1/trust")
}

// ChangeTrust puts local roots into the trust stores or takes them out. What
// failed in one store is in the result, not an error.
func (c *Client) ChangeTrust(ctx context.Context, r TrustRequest) (TrustResult, error) {
	return call[TrustResult](ctx, c, http.MethodPost, "/v1/trust", r)
}

// Why asks the host which certificates it takes and says what becomes of each.
func (c *Client) Why(ctx context.Context, host string) (Why, error) {
	return get[Why](ctx, c, "/v1/why?host="+url.QueryEscape(host))
}

// Doctor looks for what keeps cards and the agent from working. It takes as long
// as the modules need to be read.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	return get[Doctor](ctx, c, "/v1/doctor")
}

// Audit returns the newest records, oldest of them first; limit 0 means the
// agent's default.
func (c *Client) Audit(ctx context.Context, limit int) ([]AuditRecord, error) {
	path := "/v1/audit"
	if limit > 0 {
		path += "?limit=" + strconv.Itoa(limit)
	}
	return get[[]AuditRecord](ctx, c, path)
}

// Metrics returns the agent's metrics as Prometheus text.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	resp, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return string(text), err
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var out T
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return out, err
		}
	}
	resp, err := c.do(ctx, method, path, raw)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	return decode[T](resp)
}

// do sends a request and turns an error answer into an *Error.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://kortti"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, ErrNotRunning) {
			return nil, ErrNotRunning // without the URL, which says nothing to a person
		}
		return nil, fmt.Errorf("ask the agent on %s: %w", c.socket, err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, decodeError(resp)
	}
	return resp, nil
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	return conn, err
}

// post sends body on a connection of its own. http.Transport would copy a PIN
// into a write buffer that nobody wipes.
func (c *Client) post(ctx context.Context, path string, body []byte) (AnswerResult, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return AnswerResult{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: kortti\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", path, len(body))
	buffers := net.Buffers{head, body}
	if _, err := buffers.WriteTo(conn); err != nil {
		return AnswerResult{}, fmt.Errorf("answer the agent on %s: %w", c.socket, errors.Join(context.Cause(ctx), err))
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return AnswerResult{}, fmt.Errorf("answer the agent on %s: %w", c.socket, errors.Join(context.Cause(ctx), err))
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return AnswerResult{}, decodeError(resp)
	}
	return decode[AnswerResult](resp)
}

// answerJSON writes the answer with its secrets in it, in one array of the right
// size.
func answerJSON(a Answer) ([]byte, error) {
	secrets := []struct {
		key   string
		value Secret
	}{{`"pin":`, a.PIN}, {`"puk":`, a.PUK}, {`"new_pin":`, a.NewPIN}}
	a.PIN, a.PUK, a.NewPIN = nil, nil, nil
	rest, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	size := len(rest)
	for _, s := range secrets {
		if !utf8.Valid(s.value) {
			return nil, errSecret
		}
		size += len(s.key) + secretJSONLen(len(s.value)) + len(",")
	}
	body := append(make([]byte, 0, size), '{')
	for _, s := range secrets {
		if len(s.value) > 0 {
			body = append(s.value.appendJSON(append(body, s.key...)), ',')
		}
	}
	if len(rest) == len("{}") && len(body) > 1 {
		body = body[:len(body)-1] // no comma before the end
	}
	return append(body, rest[1:]...), nil
}

func decode[T any](resp *http.Response) (T, error) {
	var out T
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out); err != nil {
		return out, fmt.Errorf("read the agent's answer: %w", err)
	}
	return out, nil
}

func decodeError(resp *http.Response) error {
	var body struct {
		Error Error `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&body)
	if err != nil || body.Error.Code == "" {
		return &Error{Code: "unknown", Status: resp.StatusCode, Message: "the agent answered " + resp.Status}
	}
	body.Error.Status = resp.StatusCode
	return &body.Error
}
