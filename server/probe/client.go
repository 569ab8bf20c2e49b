package probe

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// patience bounds one request.
const patience = 15 * time.Second

// client is a browser that shows a certificate, or none.
func (r *run) client(certificate *tls.Certificate, http2 bool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: r.Dial, ForceAttemptHTTP2: http2, DisableKeepAlives: true,
			TLSClientConfig: r.tls(certificate),
		},
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (r *run) tls(certificate *tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: r.Roots, ServerName: r.site.Hostname(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certificate == nil {
				return new(tls.Certificate), nil
			}
			return certificate, nil
		},
	}
}

// question is the path with a proof that we know the secret.
func (r *run) question() (nonce, path string) {
	raw := make([]byte, nonceSize)
	rand.Read(raw) // never fails (crypto/rand)
	nonce = hex.EncodeToString(raw)
	return nonce, Path + "?nonce=" + nonce + "&mac=" + r.Secret.mac("asks", nonce)
}

// ask sends a request over HTTP/1.1, changed by the attack, with a certificate or
// without, and gives what has reached the server.
func (r *run) ask(ctx context.Context, certificate *tls.Certificate, attack func(*http.Request)) (answer, error) {
	return r.askBy(ctx, r.client(certificate, false), "https://"+r.site.Host, attack)
}

func (r *run) askBy(ctx context.Context, client *http.Client, origin string, attack func(*http.Request)) (answer, error) {
	nonce, path := r.question()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, origin+path, nil)
	if err != nil {
		return answer{}, err
	}
	if attack != nil {
		attack(req)
	}
	r.report.Requests++
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	return r.read(resp, nonce)
}

// raw sends a request as it is written, which no library puts right. %s is the path.
func (r *run) raw(ctx context.Context, config *tls.Config, request string) (answer, error) {
	conn, err := r.connect(ctx, config)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	nonce, path := r.question()
	if _, err := fmt.Fprintf(conn, request, path); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{}, err
	}
	return r.read(resp, nonce)
}

// connect makes a TLS connection, for HTTP/1.1.
func (r *run) connect(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	port := r.site.Port()
	if port == "" {
		port = "443"
	}
	r.report.Requests++
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	raw, err := r.Dial(ctx, "tcp", net.JoinHostPort(r.site.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// errTurnedAway is an answer that is not our server's: the proxy's own.
type errTurnedAway int

func (e errTurnedAway) Error() string { return fmt.Sprintf("answered with status %d", int(e)) }

func (r *run) read(resp *http.Response, nonce string) (answer, error) {
	a, err := r.readAny(resp)
	if err == nil && a.Nonce != nonce {
		return answer{}, errors.New("the answer to another question came")
	}
	return a, err
}

func (r *run) readAny(resp *http.Response) (a answer, err error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, err
	}
	if !hmac.Equal([]byte(resp.Header.Get(macHeader)), []byte(r.Secret.mac("answers", string(body)))) {
		return answer{}, errTurnedAway(resp.StatusCode)
	}
	return a, json.Unmarshal(body, &a)
}

// tried is what came of an attack.
type tried struct {
	answer       // what reached the server
	away   bool  // the proxy turned the request away, as it does not do with others
	err    error // neither is certain
}

// try makes an attack. A site that does not answer has turned nobody away: only a
// status of the proxy's own that means no, or the end of a connection while a
// harmless question is answered, two times, is a refusal.
func (r *run) try(ctx context.Context, attack func() (answer, error)) tried {
	for again := false; ; again = true {
		a, err := attack()
		if err == nil {
			return tried{answer: a}
		}
		if status, answered := errors.AsType[errTurnedAway](err); answered {
			if status/100 == 4 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
				return tried{away: true}
			}
			return tried{err: err}
		}
		if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() || ctx.Err() != nil {
			return tried{err: err}
		}
		if _, harmless := r.ask(ctx, nil, nil); harmless != nil {
			return tried{err: err}
		}
		if again {
			return tried{away: true}
		}
	}
}
