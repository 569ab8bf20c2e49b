package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/kortti-id/kortti/agent/control"
)

// response is what a service answered at the end of its redirects.
type response struct {
	status    int
	url, body string
}

// whoami is the part of the server's /whoami that the demo looks at.
type whoami struct {
	Authenticated bool   `json:"authenticated"`
	Reason        string `json:"reason"`
	User          struct {
		Username  string `json:"username"`
		FirstName string `json:"first_name"`
		LastName  string `json:"last_name"`
	} `json:"user"`
}

// curl runs curl through the proxy; cookies stay from call to call.
func (s *story) curl(ctx context.Context, args ...string) (response, error) {
	roots, err := s.localRoots(ctx)
	if err != nil {
		return response{}, err
	}
	const mark = "\nkortti-demo "
	args = append([]string{
		"--silent", "--show-error", "--location", "--max-time", "30",
		"--proxy", "http://" + s.proxy, "--cacert", roots,
		"--cookie", s.path("cookies"), "--cookie-jar", s.path("cookies"),
		"--write-out", mark + "%{http_code} %{url_effective} %{num_redirects}",
	}, args...)
	out, err := output(ctx, s.dir, "curl", args...)
	if err != nil {
		return response{}, err
	}
	at := strings.LastIndex(out, mark)
	if at < 0 {
		return response{}, fmt.Errorf("curl printed no status: %q", out)
	}
	var r response
	var redirects int
	if _, err := fmt.Sscan(out[at+len(mark):], &r.status, &r.url, &redirects); err != nil {
		return response{}, err
	}
	r.body = out[:at]
	if r.status == http.StatusOK || r.status == http.StatusForbidden {
		s.requests += 1 + redirects
	}
	return r, nil
}

func (s *story) whoamiCurl(ctx context.Context) (whoami, error) {
	page, err := s.curl(ctx, "https://"+loginHost+"/whoami")
	if err != nil {
		return whoami{}, err
	}
	var who whoami
	if err := json.Unmarshal([]byte(page.body), &who); err != nil {
		return whoami{}, fmt.Errorf("/whoami answered %d %q: %w", page.status, page.body, err)
	}
	return who, nil
}

// localRoots writes the local roots of both hosts into one file, as a person
// would with `kortti trust print`.
func (s *story) localRoots(ctx context.Context) (string, error) {
	file := s.path("local-roots.pem")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	var all strings.Builder
	for _, host := range []string{loginHost, siteHost} {
		out, err := output(ctx, s.dir, s.kortti, "trust", "print", host, "--socket", s.path("agent.sock"))
		if err != nil {
			return "", err
		}
		all.WriteString(out)
	}
	return file, os.WriteFile(file, []byte(all.String()), 0o600)
}

// goClients lets n plain Go clients, each with connections of its own, start
// at once; each logs in and asks /whoami until it made each requests. It
// returns how many requests were answered as the user.
func (s *story) goClients(ctx context.Context, n, each int) (int, error) {
	file, err := s.localRoots(ctx)
	if err != nil {
		return 0, err
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	var (
		wg    sync.WaitGroup
		begin = make(chan struct{})
		errs  = make([]error, n)
	)
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = s.goClient(ctx, roots, each)
		})
	}
	close(begin)
	wg.Wait()
	return n * each, errors.Join(errs...)
}

func (s *story) goClient(ctx context.Context, roots *x509.CertPool, requests int) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: s.proxy}),
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
	}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+loginHost+"/login", nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	for range requests - 1 {
		if err := s.askWho(ctx, hc); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) askWho(ctx context.Context, hc *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+loginHost+"/whoami", nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var who whoami
	if err := json.Unmarshal(body, &who); err != nil || who.User.Username != s.user {
		return fmt.Errorf("/whoami should say %s, but answered %d %s", s.user, resp.StatusCode, body)
	}
	return nil
}

// answering does something while it answers the agent's PIN questions, as the
// tray or `kortti prompt` would. It returns how many it answered.
func (s *story) answering(ctx context.Context, do func(context.Context) error) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.Events(ctx, true)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	answered := make(chan int, 1)
	go func() {
		n := 0
		for {
			ev, err := stream.Next()
			if err != nil {
				answered <- n
				return
			}
			if ev.Kind == control.EventPrompt && ev.Prompt != nil && !ev.Prompt.Leased && ev.Prompt.Kind == control.PromptPIN {
				n++
				_ = s.enter(ctx, ev.Prompt.ID, testPIN) // a failure shows in what do returns
			}
		}
	}()
	err = do(ctx)
	cancel()
	return <-answered, err
}

// unlock asks the agent to unlock the card and enters a PIN.
func (s *story) unlock(ctx context.Context, pin string) error {
	p, err := s.client.Unlock(ctx, control.CardSelection{})
	if err != nil {
		return err
	}
	return s.enter(ctx, p.ID, pin)
}

func (s *story) enter(ctx context.Context, prompt, pin string) error {
	lease, err := s.client.Lease(ctx, prompt)
	if err != nil {
		return err
	}
	_, err = s.client.Answer(ctx, prompt, control.Answer{LeaseToken: lease, PIN: control.Secret(pin)})
	return err
}

// signatures is the shim's count of signatures; 0 also when it cannot be read,
// which no step of the story accepts.
func (s *story) signatures(ctx context.Context) uint64 {
	n, err := s.count(ctx, "signatures")
	if err != nil {
		s.detail("%v", err)
	}
	return n
}

// count reads one of the shim's counters through `kortti testcard list`.
func (s *story) count(ctx context.Context, name string) (uint64, error) {
	out, err := output(ctx, s.dir, s.kortti, "testcard", "list", "--dir", s.path("cards"), "--json")
	if err != nil {
		return 0, err
	}
	var cards []struct{ Counts map[string]uint64 }
	if err := json.Unmarshal([]byte(out), &cards); err != nil {
		return 0, err
	}
	if len(cards) != 1 {
		return 0, errors.New("there should be one test card, not " + strconv.Itoa(len(cards)))
	}
	return cards[0].Counts[name], nil
}
